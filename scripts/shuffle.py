"""The paper's shuffle experiment (arXiv 2105.01601, section 3.4), small: a Mixer beside a CNN.

python scripts/shuffle.py cifar10 --steps 500

Both are trained on CIFAR-10 (a folder with train/<class>/ and test/<class>/) on the same batches in
the same order, three times each: on images as they are, with patches and the pixels inside patches
permuted, and with all pixels permuted. One fixed order for all images, also for those of the test.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.data.read import read_split
from mixer_mlx.images.decode import decode
from mixer_mlx.runtime import openblas
from mixer_mlx.runtime.threads import in_threads
from mixer_mlx.shuffle import shuffled

PATCH, BATCH, LR, WEIGHT_DECAY = 4, 64, 2e-3, 0.05
WIDTHS = (32, 64, 128)
ORDERS = {"as they are": None, "patches": "patches", "all pixels": "pixels"}


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions of stride 2, each with LayerNorm and ReLU; mean; a linear map."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.convolutions = [
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(inputs, WIDTHS, strict=True)
        ]
        self.norms = [nn.LayerNorm(width) for width in WIDTHS]
        self.head = nn.Linear(WIDTHS[-1], 10)

    def __call__(self, x: mx.array) -> mx.array:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.relu(norm(convolution(x)))
        return self.head(x.mean(axis=(1, 2)))


def small_mixer() -> MlpMixer:
    return MlpMixer(
        MixerConfig(
            image_size=(32, 32),
            patch_size=PATCH,
            num_blocks=4,
            hidden_dim=64,
            tokens_mlp_dim=32,
            channels_mlp_dim=256,
            num_classes=10,
            hidden_act="gelu_tanh",
        )
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"Mixer": small_mixer, "CNN": SmallCNN}


def images_of(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    dataset, _ = read_split(root, split)
    return np.stack(list(in_threads(lambda p: np.asarray(decode(p)), dataset.paths, 256))), (
        dataset.labels
    )


def normalised(pixels: np.ndarray, shuffle: str | None) -> mx.array:
    x = mx.array(pixels).astype(mx.float32) / 127.5 - 1
    return x if shuffle is None else shuffled(x, shuffle, PATCH)


def loss_of(model: nn.Module, x: mx.array, y: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(x), y, label_smoothing=0.1, reduction="mean")


def trained(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, shuffle: str | None, steps: int
) -> nn.Module:
    warmup = steps // 10
    rate = optim.join_schedules(
        [optim.linear_schedule(0, LR, warmup), optim.cosine_decay(LR, steps - warmup)], [warmup]
    )
    optimizer = optim.AdamW(rate, weight_decay=WEIGHT_DECAY)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x: mx.array, y: mx.array) -> mx.array:
        loss, gradients = nn.value_and_grad(model, loss_of)(model, x, y)
        optimizer.update(model, gradients)
        return loss

    rng = np.random.default_rng(0)
    order = np.concatenate(
        [rng.permutation(len(images)) for _ in range(-(-steps * BATCH // len(images)))]
    )
    for number in range(steps):
        rows = order[number * BATCH : (number + 1) * BATCH]
        pixels = images[rows].copy()
        flipped = rng.random(len(rows)) < 0.5
        pixels[flipped] = pixels[flipped, :, ::-1]
        mx.eval(step(normalised(pixels, shuffle), mx.array(labels[rows])), state)
    return model


def accuracy(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, shuffle: str | None
) -> float:
    right = 0
    for start in range(0, len(images), 250):
        found = model(normalised(images[start : start + 250], shuffle)).argmax(axis=1)
        right += int((np.array(found) == labels[start : start + 250]).sum())
    return right / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    asked = parser.parse_args()
    openblas.prepare()
    openblas.set_threads(1)  # as fast for products as small as these, and half the work
    train, test = images_of(asked.data, "train"), images_of(asked.data, "test")
    print(f"accuracy on {len(test[1]):,} test images after {asked.steps} steps of {BATCH} images")
    print(f"{'model':6} {'parameters':>10}" + "".join(f"  {name:>11}" for name in ORDERS))
    for name, make in MODELS.items():
        cells = []
        for shuffle in ORDERS.values():
            mx.random.seed(0)
            model = trained(make(), *train, shuffle, asked.steps)
            cells.append(f"  {accuracy(model, *test, shuffle):11.1%}")
        count = sum(array.size for _, array in tree_flatten(model.parameters()))
        print(f"{name:6} {count:10,}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
