#!/usr/bin/env python3
"""The table in docs/export.md: what each format's file weighs, and how far its logits are off.

    python scripts/export_table.py             # prints the table
    python scripts/export_table.py --write     # puts it into docs/export.md

Needs the extras of the formats, and what computes the logits: onnxruntime, and for Core ML packages
the interpreter in tests/reference.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

import mixer_mlx
from mixer_mlx import MixerConfig, MlpMixer, ModelInfo, Preprocess
from mixer_mlx.convert import ExportOptions
from mixer_mlx.convert.export import formats

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEAD = "| model | format | options | file | seconds | largest difference | by |"

Run = Callable[[Path, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """An export, and what runs it: a file and uint8 images (N, H, W, 3) -> logits."""

    format: str
    flags: str
    options: ExportOptions
    suffix: str
    run: Run
    runtime: str


def onnx_runtime(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def numpy(path: Path, images: np.ndarray) -> np.ndarray:
    """Of the first image; a constant that probabilities leave open is missing."""
    sys.path.insert(0, str(PAGE.parents[1] / "tests"))
    from reference import numpy_mil

    values = numpy_mil.run(path, images[:1].transpose(0, 3, 1, 2))
    return np.log(values["probabilities"])


def _coreml(precision: str) -> Row:
    options = ExportOptions(compute_precision=precision)  # type: ignore[arg-type]
    flags = "" if precision == "float16" else f"`--compute-precision {precision}`"
    return Row("coreml", flags, options, ".mlpackage", numpy, "NumPy")


def core_ai(path: Path, images: np.ndarray) -> np.ndarray:
    """By Apple's runtime, which takes one image at a time."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    async def logits() -> np.ndarray:
        async with AIModelAsset.load(path).executable() as model:
            function = model.load_function("main")
            found = [await function({"image": NDArray(image[None])}) for image in images]
            return np.concatenate([values["logits"].numpy() for values in found])

    return asyncio.run(logits())


def _onnx(weights: str) -> Row:
    options = ExportOptions(weights=weights)  # type: ignore[arg-type]
    flags = "" if weights == "float32" else f"`--weights {weights}`"
    return Row("onnx", flags, options, ".onnx", onnx_runtime, "ONNX Runtime")


ROWS = [
    *map(_onnx, ("float32", "float16", "int8")),
    *map(_coreml, ("float16", "float32")),
    Row("coreai", "", ExportOptions(), ".aimodel", core_ai, "Core AI"),
]
MODELS = ("cifar10", "B/16")


def model(name: str) -> tuple[MlpMixer, ModelInfo]:
    """The built-in model, or random weights of a variant, with logits about as large as its."""
    if name == "cifar10":
        classifier = mixer_mlx.load(name, dtype="float32", device="cpu")
        return classifier.model, classifier.info
    mx.random.seed(0)
    config = MixerConfig.variant(name)
    made = MlpMixer(config)
    shape = made.head.weight.shape
    made.head.weight = mx.random.normal(shape) * 2 * config.hidden_dim**-0.5
    mx.eval(made.parameters())
    return made, ModelInfo(config, Preprocess(config.image_size, crop_pct=1))


def measure(row: Row, made: MlpMixer, info: ModelInfo, folder: Path) -> tuple[int, float, float]:
    """Bytes of the export, the seconds that it took, and the largest difference of its logits.

    The difference is relative to the standard deviation of our logits, in float32, for 8 images, or
    as many as were run; each image's logits are compared without their mean.
    """
    out = folder / f"model{row.suffix}"
    start = time.perf_counter()
    formats.export(
        made,
        info,
        out,
        format=row.format,
        options=row.options,
        force=True,  # type: ignore[arg-type]
    )
    seconds = time.perf_counter() - start
    shape = (8, *info.config.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ours = np.array(made(mx.array(info.preprocess.normalize(images))))
    found = row.run(out, images)
    centred = [
        logits - logits.mean(axis=1, keepdims=True) for logits in (found, ours[: len(found)])
    ]
    difference = np.abs(centred[0] - centred[1]).max() / ours.std()
    return _size(out), seconds, float(difference)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def line(name: str, row: Row, size: int, seconds: float, difference: float) -> str:
    """A row of the table."""
    cells = (name, row.format, row.flags, f"{size / 2**20:.1f} MiB", f"{seconds:.1f}")
    return f"| {' | '.join(cells)} | {difference:.1e} | {row.runtime} |".replace("|  |", "| |")


def table() -> str:
    """All rows."""
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for name in MODELS:
        made, info = model(name)
        for row in ROWS:
            with tempfile.TemporaryDirectory() as folder:
                lines.append(line(name, row, *measure(row, made, info, Path(folder))))
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="Write the table into docs/export.md.")
    if not parser.parse_args().write:
        print(table())
        return
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
