#!/usr/bin/env python3
"""The table in docs/quantization.md: size, accuracy and agreement of quantised models.

    python scripts/quantization_table.py DATA             # prints the table
    python scripts/quantization_table.py DATA --write     # puts it into docs/quantization.md

DATA is a folder of CIFAR-10's test images, one folder per class.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

import mixer_mlx
from mixer_mlx import Classifier, MixerConfig, MlpMixer, ModelInfo, Preprocess, checkpoint
from mixer_mlx.convert import convert
from mixer_mlx.quantization import Quantization, quantize

PAGE = Path(__file__).parents[1] / "docs" / "quantization.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEAD = "| options | cifar10 | top-1 | same class | B/16 |"
KINDS = {
    "`--quantize --q-bits 8`": Quantization(bits=8),
    "`--quantize --q-bits 8 --q-group-size 32`": Quantization(bits=8, group_size=32),
    "`--quantize --q-mode mxfp8`": Quantization(mode="mxfp8"),
    "`--quantize --q-bits 4 --q-group-size 32`": Quantization(bits=4, group_size=32),
    "`--quantize` (4 bits, groups of 64)": Quantization(),
    "`--quantize --q-bits 4 --q-group-size 128`": Quantization(bits=4, group_size=128),
    "`--quantize --q-mode mxfp4`": Quantization(mode="mxfp4"),
}


def read(data: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of 32 x 32, uint8 (N, 32, 32, 3), and their classes."""
    files = [
        (path, label) for label, name in enumerate(classes) for path in (data / name).iterdir()
    ]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return pixels, np.array([label for _, label in files])


def classes_of(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """The most probable class of each image."""
    return np.concatenate(
        [classifier.forward(pixels[i : i + 256]).argmax(axis=1) for i in range(0, len(pixels), 256)]
    )


def b16_mib(kind: Quantization | None) -> float:
    """The weights of B/16 for 1,000 classes, whose values don't matter, in float16."""
    model = MlpMixer(MixerConfig.variant("B/16"))
    model.set_dtype(mx.float16)
    info = ModelInfo(model.config, Preprocess((224, 224)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "model")
        made = quantize(model, kind) if kind else model
        checkpoint.save(out, made, info.replace(quantization=kind))
        return _mib(out)


def _mib(folder: Path) -> float:
    return (folder / checkpoint.WEIGHTS_FILE).stat().st_size / 2**20


def rows(data: Path) -> Iterator[str]:
    """All rows of the table."""
    yield HEAD
    yield "|---|---:|---:|---:|---:|"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "float16")
        convert("cifar10", out, dtype="float16")
        plain = mixer_mlx.load(out, dtype="float32", device="cpu")
        pixels, labels = read(data, plain.info.labels)
        expected = classes_of(plain, pixels)
        top1 = np.mean(expected == labels)
        yield f"| float16 | {_mib(out):.2f} MiB | {top1:.2%} | | {b16_mib(None):.1f} MiB |"
        for number, (flags, kind) in enumerate(KINDS.items()):
            out = Path(folder, str(number))
            convert("cifar10", out, quantization=kind)
            found = classes_of(mixer_mlx.load(out, dtype="float32", device="cpu"), pixels)
            cells = [flags, f"{_mib(out):.2f} MiB", f"{np.mean(found == labels):.2%}"]
            cells += [f"{np.mean(found == expected):.2%}", f"{b16_mib(kind):.1f} MiB"]
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true", help="Write the table into the page.")
    asked = parser.parse_args()
    lines = []
    for row in rows(asked.data):
        print(row, file=sys.stderr if asked.write else sys.stdout, flush=True)
        lines.append(row)
    if asked.write:
        before, rest = PAGE.read_text("utf-8").split(BEGIN)
        table = "\n".join(lines).replace("%", " %")
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", "utf-8")


if __name__ == "__main__":
    main()
