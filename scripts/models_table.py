#!/usr/bin/env python3
"""The tables in docs/models.md: the published models, and how fast their architectures are.

python scripts/models_table.py             # prints both tables
python scripts/models_table.py --write     # puts them into docs/models.md
python scripts/models_table.py --write --no-speed     # only the first, from the catalogue
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mixer_mlx import Classifier, MixerConfig, MlpMixer, ModelInfo, Preprocess
from mixer_mlx.catalog import CATALOG, CatalogEntry
from mixer_mlx.choices import BUILT_IN

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
REFERENCE = "B/16"
BATCH = 8


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines
    )


def by_accuracy() -> list[CatalogEntry]:
    """The models to download, most accurate first, then as the catalogue lists them."""
    published = (entry for entry in CATALOG.values() if entry.source)
    return sorted(published, key=lambda entry: -(entry.top1 or 0))


def _row(entry: CatalogEntry) -> list[str]:
    config = entry.config
    return [
        f"`{entry.name}`",
        config.variant_name or "",
        f"{entry.top1:.1f}" if entry.top1 else "",
        f"{entry.real:.1f}" if entry.real else "",
        f"{config.num_parameters / 1e6:.1f} M",
        f"{entry.download_bytes / 2**20:.0f} MiB",
        f"{config.num_classes:,}",
        entry.licence,
    ]


def models() -> str:
    """The table of `by_accuracy`."""
    head = ["name", "architecture", "top-1, %", "ReaL, %", "parameters", "download", "classes"]
    return table([*head, "licence"], [_row(entry) for entry in by_accuracy()])


def configs() -> dict[str, MixerConfig]:
    """The catalogue's architectures, with 1,000 classes or, for the built-in model, its own."""
    found = {
        entry.config.variant_name or entry.name: entry.config.replace(num_classes=1000)
        for entry in CATALOG.values()
        if entry.source
    }
    found[BUILT_IN] = CATALOG[BUILT_IN].config
    return found


def seconds(rounds: int) -> dict[str, list[float]]:
    """Seconds of a batch by architecture, in rounds in which each runs once."""
    made = {}
    for name, config in configs().items():
        info = ModelInfo(config, Preprocess(config.image_size, crop_pct=1))
        made[name] = Classifier(MlpMixer(config), info)
    found: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds + 2):  # two warm up: the second batch of a size may be compiled
        for name, classifier in made.items():
            pixels = np.zeros((BATCH, *classifier.config.image_size, 3), np.uint8)
            start = time.perf_counter()
            mx.eval(classifier.forward(pixels))
            if turn > 1:
                found[name].append(time.perf_counter() - start)
        print(".", end="", flush=True, file=sys.stderr)
    return found


def speeds(rounds: int) -> str:
    """All architectures, fastest first; speeds by the medians over the rounds."""
    found = seconds(rounds)
    medians = {name: statistics.median(times) for name, times in found.items()}
    rows = []
    for name in sorted(medians, key=lambda name: medians[name]):
        ratios = [r / mine for r, mine in zip(found[REFERENCE], found[name], strict=True)]
        config = configs()[name]
        rows.append(
            [
                name,
                f"{config.num_parameters / 1e6:.1f} M",
                f"{config.num_macs / 1e9:.2f}",
                f"{statistics.median(ratios):.2f}",
                f"{BATCH / medians[name]:.1f}",
            ]
        )
    return table(["architecture", "parameters", "GMACs", f"x {REFERENCE}", "images/s"], rows)


def put(page: str, name: str, content: str) -> str:
    """The page with `content` between its marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="Write them into docs/models.md.")
    parser.add_argument("--no-speed", action="store_true", help="Only the models.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds of measuring (default 5).")
    asked = parser.parse_args()
    tables = {"models": models()}
    if not asked.no_speed:
        tables["speeds"] = speeds(asked.rounds)
    if not asked.write:
        print("\n\n".join(tables.values()))
        return
    page = PAGE.read_text("utf-8")
    for name, content in tables.items():
        page = put(page, name, content)
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
