"""An album end to end: how near `mixer predict` with the built-in model comes to decoding alone.

    python benchmarks/album.py --torch-python PATH [--sets "24-megapixel HEIC" --add]

Files are copies of one generated image for each set. All contenders are commands on the same cores.
"decoding" opens every file in as many threads, JPEGs at the size that `mixer predict` chooses, and
does nothing with the pixels: the machine's limit. "plain loop" is PIL.Image.open and a call of the
classifier, image by image. timm needs pillow-heif for the HEICs; its batches are small enough that
every process of its loader has some.
"""

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import harness
import images
import models
import numpy as np
import predict
import session
from harness import HERE, OURS, Command, Row
from PIL import Image
from session import Session

DECODING, LOOP = "decoding", "plain loop"
SETS = {
    "12-megapixel JPEG": (100, images.LARGE, ".jpg"),
    "12-megapixel HEIC": (16, images.LARGE, ".heic"),
    "24-megapixel HEIC": (8, (6000, 4000), ".heic"),
}
QUICK = {name: (4, size, suffix) for name, (_, size, suffix) in SETS.items() if suffix == ".jpg"}


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs=2, metavar=("CONTENDER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run_one(*options.only, options.threads)
        return
    sets = QUICK if options.quick else {name: SETS[name] for name in options.sets}
    with Session("album", options, rounds=3) as run, tempfile.TemporaryDirectory() as folder:
        for name, (count, size, suffix) in sets.items():
            files = write(Path(folder) / name.replace(" ", "-"), count, size, suffix)
            measure(run, name, files, Path(folder))


def write(folder: Path, count: int, size: tuple[int, int], suffix: str) -> Path:
    """Copies of one image; encoding a HEIC takes longer than all of the rest."""
    folder.mkdir()
    first = folder / f"0{suffix}"
    image = images.synthetic(np.random.default_rng(0), size)
    if suffix == ".heic":
        import pillow_heif

        pillow_heif.from_pillow(image).save(first, quality=60)
    else:
        image.save(first, quality=images.QUALITY)
    for number in range(1, count):
        shutil.copy(first, folder / f"{number}{suffix}")
    return folder


def measure(run: Session, name: str, files: Path, folder: Path) -> None:
    """One set, with all contenders."""
    threads = run.options.threads
    with models.files(models.BUILT_IN) as model:
        ours = ["-m", "mixer_mlx", "predict", str(files), "-m", model["native"], "--quiet"]
        ours += ["--device", "cpu", "--format", "json", "-o", str(folder / "ours"), "--force"]
        contenders = [Command(OURS, [sys.executable, *ours], threads)]
        for other in (DECODING, LOOP):
            command = [str(HERE / "album.py"), "--only", other, str(files)]
            command += ["--threads", str(threads)]
            contenders.append(Command(other, [sys.executable, *command], threads))
        peer = [str(HERE / "timm_predict.py"), str(files), model["timm"], str(folder / "timm")]
        size = min(32, math.ceil(len(list(files.iterdir())) / (4 * threads)))  # work for all
        peer += ["--workers", str(threads), "--batch-size", str(size)]
        contenders += predict.peers(run, peer)
        results = harness.compare(contenders, rounds=run.rounds, seconds=0, warm_up=1)
    fractions = of_decoding(results)
    print(f"{name}: " + ", ".join(f"{key} {value:.0%}" for key, value in fractions.items()))
    run.add({"name": name, "pictures": len(list(files.iterdir()))}, results, of_decoding=fractions)


def of_decoding(results: dict[str, Row]) -> dict[str, float]:
    """Decoding's seconds as a fraction of those of `mixer predict`: of wall time, and of the CPU's,
    for which the model competes with decoding unless there is a GPU."""
    limit, ours = results[DECODING], results[OURS]
    return {
        "speed_of_decoding": limit["seconds"]["median"] / ours["seconds"]["median"],
        "decoding_of_cpu_seconds": limit["cpu_seconds"] / ours["cpu_seconds"],
    }


def run_one(name: str, folder: str, threads: int) -> None:
    """A contender of this file, in a process of its own."""
    paths = sorted(Path(folder).iterdir())
    if name == DECODING:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decoder(), paths))
        return
    import pillow_heif

    import mixer_mlx

    pillow_heif.register_heif_opener()
    classifier = mixer_mlx.load(models.BUILT_IN, dtype="float32", device="cpu")
    for path in paths:
        with Image.open(path) as image:
            classifier(image)


def decoder() -> Callable[[Path], None]:
    """A function that decodes a file as `mixer predict` does, and drops its pixels."""
    from mixer_mlx import checkpoint
    from mixer_mlx.catalog import BUILT_IN_FOLDER
    from mixer_mlx.images.decode import opened, rgb
    from mixer_mlx.images.preprocess import _REDUCED_RATIO

    target = checkpoint.read_info(BUILT_IN_FOLDER).preprocess.target_size

    def decode(path: Path, at_least: int) -> None:
        with opened(path, at_least=at_least) as image:
            rgb(image)

    return partial(decode, at_least=math.ceil(_REDUCED_RATIO * max(target)))


if __name__ == "__main__":
    main()
