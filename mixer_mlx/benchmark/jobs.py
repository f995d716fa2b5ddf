"""Inference and training on a batch of images as jobs to measure, with their FLOPs.

Each multiply-accumulate of the model's linear layers counts as two FLOPs; multiply-accumulates per
image are:

    stem          S * P * P * in * C
    each block    2 * S * C * D_S  (token mixing)  +  2 * S * C * D_C  (channel mixing)
    head          C * classes

Norms, GELUs, biases and skip connections aren't counted. Training counts three times as many: the
gradient of a product is two products of its size.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mixer_mlx.classify import Classifier
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.loader import noise
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.quantization import cast
from mixer_mlx.runtime import backend
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import Step, make_step

from .measure import Job

_TOP = 5


def random_classifier(config: MixerConfig, device: mx.Device | None = None) -> Classifier:
    """An untrained Classifier: as fast as a trained one, with nothing to download."""
    with mx.stream(device or mx.default_device()):
        mx.random.seed(0)
        pixel = (0.5,) * config.in_channels
        info = ModelInfo(config, Preprocess(config.image_size, mean=pixel, std=pixel))
        return Classifier(MlpMixer(config), info, device)


def forward_jobs(
    classifier: Classifier, batch_sizes: Sequence[int], dtypes: Sequence[str]
) -> list[Job]:
    """What `Classifier.predict` computes on the device for a batch.

    From uint8 pixels in the CPU's memory to the five most probable classes of each image: stacking
    and copying, normalising, the model, softmax, sorting. Decoding isn't included. Raises
    ConfigError for a batch that can't fit in memory.
    """
    config = classifier.config
    check_memory(config, batch_sizes, dtypes)
    pixels = noise(config, max(batch_sizes))
    jobs = []
    for dtype in dtypes:
        cast = _cast(classifier, dtype)
        weights = config.num_parameters * cast.model.dtype.size
        for size in batch_sizes:
            run = _forward(cast, pixels[:size])
            jobs.append(Job(dtype, size, size * forward_flops(config), run, weights))
    return jobs


def forward_flops(config: MixerConfig) -> int:
    """FLOPs for one image, as counted above."""
    return 2 * config.num_macs


def check_memory(
    config: MixerConfig, batch_sizes: Sequence[int], dtypes: Sequence[str], blocks: int = 1
) -> None:
    """Raise ConfigError if a batch can't fit in memory, where MLX would crash on the CPU.

    A lower bound: the output and the widest layer of `blocks` blocks, whose activations are held
    at the same time.
    """
    limit = backend.memory_bytes() / 2**30
    numbers = config.num_tokens * (config.hidden_dim + config.channels_mlp_dim) * blocks
    itemsize = max(4 if dtype == "float32" else 2 for dtype in dtypes)
    least = max(batch_sizes) * numbers * itemsize / 2**30
    if least > limit:
        raise ConfigError(
            f"A batch of {max(batch_sizes)} needs more than the {limit:.3g} GiB of memory, "
            f"{least:,.0f} GiB or more; choose smaller batches (`batch_sizes`)."
        )


def _cast(classifier: Classifier, dtype: str) -> Classifier:
    number: mx.Dtype = getattr(mx, dtype)
    if classifier.model.dtype == number:
        return classifier
    with mx.stream(classifier.device):
        model = cast(classifier.model, number)
        return Classifier(model, classifier.info, classifier.device)


def _forward(classifier: Classifier, pixels: np.ndarray) -> Callable[[], None]:
    batch = list(pixels)

    def run() -> None:
        classifier.predictions(np.stack(batch), k=_TOP)

    return run


PLAIN = Recipe(steps=1)
"""AdamW and clipping, without the regularization and averaging of other recipes."""


def training_jobs(
    classifier: Classifier, recipe: Recipe, batch_sizes: Sequence[int], dtypes: Sequence[str]
) -> list[Job]:
    """A step of `fit`, from uint8 pixels and labels to updated weights.

    The learning rate is zero, so that no run diverges. Decoding and augmentation aren't included.
    The recipe's batch size and dtype are replaced. Raises ConfigError for a batch that can't fit in
    memory.
    """
    config = classifier.config
    held = 1 if recipe.gradient_checkpointing else config.num_blocks
    check_memory(config, [-(-size // recipe.accumulation) for size in batch_sizes], dtypes, held)
    pixels = noise(config, max(batch_sizes))
    labels = (np.arange(max(batch_sizes)) % config.num_classes).astype(np.int32)
    jobs = []
    for dtype in dtypes:
        with mx.stream(classifier.device):
            state = State.start(classifier.model, recipe.replace(dtype=dtype))
            step = make_step(config, state.recipe, classifier.preprocess)
            mx.eval(state.arrays)
        groups = [state.frozen, *state.arrays.values()]
        own = sum(array.nbytes for group in groups for array in group.values())
        for size in batch_sizes:
            run = _training(step, state, pixels[:size], labels[:size])
            jobs.append(Job(dtype, size, 3 * size * forward_flops(config), run, own))
    return jobs


def _training(
    step: Step, state: State, pixels: np.ndarray, labels: np.ndarray
) -> Callable[[], None]:
    def run() -> None:
        state.arrays, report = step(state.arrays, state.frozen, pixels, labels, 0, 0.0)
        mx.eval(state.arrays, report)

    return run
