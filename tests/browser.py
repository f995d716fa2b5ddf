"""A browser for tests: headless Chromium with a fake camera, driven by Playwright.

A test makes a fixture of it with `chromium = pytest.fixture(scope="module")(browsing)`.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",  # for root, as in CI; the pages are ours
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE = 60_000
"""Milliseconds, for a loaded machine."""


def browsing() -> Iterator[Any]:
    """The browser."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="NOT RUN: needs Playwright (pip install playwright)"
    )
    if CHROMIUM is None:
        pytest.skip("NOT RUN: needs Chromium (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
