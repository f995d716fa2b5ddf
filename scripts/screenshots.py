#!/usr/bin/env python3
"""The screenshots of docs/serve.md: each state of the page, light and dark, wide and narrow.

    pip install -e '.[cpu,serve]' playwright && apt-get install chromium
    python scripts/screenshots.py

Runs `mixer serve` and `mixer teach` in a temporary folder, with the built-in model and the images
of `tests/golden/cifar_files`, and a browser with a fake camera.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[1]
FILES = ROOT / "tests" / "golden" / "cifar_files"
SHOTS = ROOT / "docs" / "serve"
COLOURS = 192
"""Of a picture's palette, which makes it a third as large."""
_FEWER_DOUBTS = """
document.querySelectorAll('#doubts li:nth-child(n + 11)').forEach((one) => one.remove());
"""
_NO_FOLDERS = """
document.querySelectorAll('#saved, #run').forEach((one) => {
    one.textContent = one.textContent.replaceAll(/\\/\\S*\\//g, '');
});
"""
"""Temporary ones would differ each time."""
FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def mixer(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a command that serves a page; yields the address."""
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "mixer_mlx", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "MIXER_MLX_CACHE": str(folder / "cache")},
    )
    try:
        assert process.stdout  # noqa: S101
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def shoot(shown: Any, name: str, **options: Any) -> None:
    """Save what a page or a part of it shows as docs/serve/NAME.png."""
    path = SHOTS / f"{name}.png"
    shown.screenshot(path=str(path), **options)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


def choose(page: Any, button: Any, paths: list[Path]) -> None:
    """Choose files with a button of the page."""
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(paths)


def look(browser: Any, folder: Path, address: str) -> None:
    """Answers, a heat map and neighbours."""
    for scheme, width in (("light", 1100), ("dark", 400)):
        size = {"width": width, "height": 700}
        page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)
        page.goto(address)
        images = [FILES / "ship" / "0003.jpg", ROOT / "examples" / "cat.png"]
        choose(page, page.locator("#files"), images)
        expect(page.locator("#results .bars li")).to_have_count(10)
        expect(page.locator("#results .near img")).to_have_count(12)
        page.get_by_role("button", name="Why?").first.click()
        expect(page.get_by_alt_text("Heat map").first).to_be_visible()
        page.wait_for_timeout(500)
        shoot(page, f"look-{scheme}", full_page=True)
        page.close()


def teach(browser: Any, folder: Path, address: str) -> None:
    """From the empty page to a report."""
    page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
    page.goto(address)
    expect(page.locator("#teach")).to_be_visible()
    shoot(page, "empty")
    for name in ("frog", "ship"):
        page.locator("#class-name").fill(name)
        page.get_by_role("button", name="Add a class").click()
        card = page.locator(".class").filter(has=page.locator(f'h3 b:text-is("{name}")'))
        choose(
            page,
            card.get_by_role("button", name="Add images"),
            sorted((FILES / name).iterdir())[:12],
        )
        expect(card).to_contain_text("12 images")
    choose(page, page.locator("#files"), [FILES / n / "0013.jpg" for n in ("frog", "ship")])
    expect(page.locator("#results .bars li")).to_have_count(4)
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#live-answer li")).to_have_count(2)
    page.wait_for_timeout(1000)
    shoot(page, "teach-light")
    page.get_by_role("button", name="Camera").click()

    page.get_by_role("button", name="Enough images?").click()
    expect(page.locator("#enough-answer svg")).to_be_visible()
    shutil.copy(FILES / "ship" / "0014.jpg", folder / "wrong.jpg")
    frog = page.locator(".class").first
    choose(page, frog.get_by_role("button", name="Add images"), [folder / "wrong.jpg"])
    expect(frog).to_contain_text("13 images")
    page.get_by_role("button", name="Review").click()
    expect(page.locator("#doubts li")).to_have_count(25)
    page.wait_for_timeout(800)
    page.evaluate(
        "document.querySelectorAll('#doubts li:nth-child(n+11)').forEach(one => one.remove())"
    )
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    shoot(page.locator("#check"), "check-dark")
    page.keyboard.press("2")
    expect(frog).to_contain_text("12 images")
    page.reload()

    page.get_by_role("button", name="Save").click()
    expect(page.locator("#saved")).to_contain_text("model-1")
    page.get_by_role("spinbutton").fill("12")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("link", name="Report")).to_be_visible(timeout=300_000)
    expect(page.locator("#curves svg")).to_have_count(2)
    page.evaluate(_NO_FOLDERS)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 700, "height": 760})
    page.locator("#make").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    shoot(page.locator("#make"), "keep")
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.reload()
    expect(page.locator(".class")).to_have_count(2)
    page.wait_for_timeout(300)
    shoot(page, "narrow-dark", full_page=False)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    expect(opened.value.locator("h1")).to_contain_text(re.compile("run-1"))


def main() -> None:
    """Draw all."""
    SHOTS.mkdir(exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    expect.set_options(timeout=60_000)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        folder = Path(temporary)
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        embed = [sys.executable, "-m", "mixer_mlx", "embed", str(FILES), "-m", "cifar10", "-q"]
        subprocess.run([*embed, "-o", "all.npz"], cwd=folder, check=True)  # noqa: S603
        with mixer(folder, "serve", "-m", "cifar10", "--index", "all.npz", "-q") as address:
            look(browser, folder, address)
        with mixer(folder, "teach", "photos", "-m", "cifar10", "-q") as address:
            teach(browser, folder, address)
        browser.close()


if __name__ == "__main__":
    main()
