"""Training data out of thin air, and the tiny model that learns from it."""

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mixer_mlx import MixerConfig, MlpMixer, Preprocess
from mixer_mlx.training.network import put

CONFIG = MixerConfig(
    image_size=(8, 12),
    patch_size=4,
    num_blocks=2,
    hidden_dim=12,
    tokens_mlp_dim=10,
    channels_mlp_dim=20,
    num_classes=5,
)
PREPROCESS = Preprocess(image_size=(8, 12), std=(0.25, 0.25, 0.25))

Batch = tuple[NDArray[np.uint8], NDArray[np.int32]]


class Synthetic:
    """Images whose brightness tells their class, shuffled by (seed, epoch)."""

    def __init__(self, batches: int = 5, batch_size: int = 6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.batches, self.batch_size, self.seed = batches, batch_size, seed
        self.labels = rng.integers(0, 5, batches * batch_size).astype(np.int32)
        noise = rng.integers(0, 60, (len(self.labels), 8, 12, 3))
        self.pixels = (noise + 40 * self.labels[:, None, None, None]).astype(np.uint8)

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        for batch in range(start, self.batches):
            chosen = order[batch * self.batch_size :][: self.batch_size]
            yield self.pixels[chosen], self.labels[chosen]


def tiny_model(seed: int = 0, config: MixerConfig = CONFIG) -> MlpMixer:
    """A model whose weights are those of the seed, none of them zero."""
    model, rng = MlpMixer(config), np.random.default_rng(seed)
    shapes = [(name, w.shape) for name, w in tree_flatten(model.parameters())]
    values = {name: rng.normal("norm" in name and "weight" in name, 0.2, s) for name, s in shapes}
    put(model, {name: mx.array(value.astype(np.float32)) for name, value in values.items()})
    return model


def weights(model: MlpMixer) -> dict[str, NDArray[np.float32]]:
    """The parameters as they are now."""
    return {name: np.array(w) for name, w in tree_flatten(model.parameters())}
