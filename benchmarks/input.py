"""Files to normalised batches: mixer-mlx's threads compared with timm's transform in a DataLoader.

    python benchmarks/input.py --torch-python PATH [--photo PHOTO]

1,000 JPEGs of 500 x 375 and 100 of 12 megapixels, resized and cropped to 224 x 224, by as many
threads here as DataLoader has worker processes. "mixer-mlx" is what `mixer predict` does, which
decodes large JPEGs at a reduced size; "mixer-mlx exact" (`--exact`) decodes them in full, as timm
does, and must give timm's pixels.
"""

import tempfile
from pathlib import Path

import agreement
import harness
import images
import session
from session import Session

SETS = {"500 x 375": (1000, images.SMALL), "12 megapixels": (100, images.LARGE)}
QUICK = {"500 x 375": (64, images.SMALL), "12 megapixels": (6, images.LARGE)}
EXACT = "mixer-mlx exact"
TOLERANCE = 1e-5
"""Largest difference, as a fraction of the largest normalised value, 1."""


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--photo", type=Path, help="photograph to make the images from")
    options = parser.parse_args()
    with Session("input", options) as run, tempfile.TemporaryDirectory() as folder:
        for name, (count, size) in (QUICK if options.quick else SETS).items():
            files = Path(folder) / name.replace(" ", "-")
            images.write(files, count, size, photo=options.photo)
            measure(run, name, count, files)


def measure(run: Session, name: str, count: int, files: Path) -> None:
    """One set of images, with all contenders."""
    case = {
        "job": "pictures",
        "pictures": str(files),
        "image_size": [224, 224],
        "batch": 32,
        "threads": run.options.threads,
    }
    names = [harness.OURS, EXACT, "timm"]
    with run.workers(names) as workers, tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            worker.start({**case, "exact": worker.name == EXACT})
        results = harness.compare(workers, rounds=run.rounds, seconds=0, warm_up=1)
        alike = [worker for worker in workers if worker.name != harness.OURS]
        differences = agreement.check(alike, Path(folder), "images", TOLERANCE)
        session.add_memory(results, workers)
    kib = sum(path.stat().st_size for path in files.iterdir()) / count / 1024
    source = "a photograph" if run.options.photo else "noise of a photograph's spectrum"
    shown = {"name": name, "pictures": count, "kib_each": round(kib), "made_of": source}
    run.add(shown, results, differences=differences)


if __name__ == "__main__":
    main()
