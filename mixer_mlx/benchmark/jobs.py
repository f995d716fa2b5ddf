"""What a model does for a batch of images, as jobs to measure, and how many FLOPs that is.

FLOPs are two for each multiply-accumulate of the model's linear maps, for one image:

    stem          S * P * P * in * C
    each block    2 * S * C * D_S  (token mixing)  +  2 * S * C * D_C  (channel mixing)
    head          C * classes

Norms, GELUs, biases and skip connections are not counted. Training counts three times as many:
the gradient of a product is two products of its size.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mixer_mlx.checkpoint import ModelInfo
from mixer_mlx.classify import Classifier
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.loader import noise
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime import backend
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import Step, make_step

from .measure import Job

_TOP = 5


def random_classifier(config: MixerConfig, device: mx.Device | None = None) -> Classifier:
    """A Classifier that was never trained: as fast as a trained one, and nothing to download."""
    with mx.stream(device or mx.default_device()):
        mx.random.seed(0)
        pixel = (0.5,) * config.in_channels
        info = ModelInfo(config, Preprocess(config.image_size, mean=pixel, std=pixel))
        return Classifier(MlpMixer(config), info, device)


def forward_jobs(
    classifier: Classifier, batch_sizes: Sequence[int], dtypes: Sequence[str]
) -> list[Job]:
    """What `Classifier.predict` has the device do for a batch, by the same function.

    From uint8 pixels in the CPU's memory to the five most probable classes of each image:
    stacking and copying, normalising, the model, softmax, sorting. Decoding images is not in it.
    Raises ConfigError for a batch that can't fit in memory.
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
    """For one image; see above."""
    return 2 * config.num_macs


def check_memory(
    config: MixerConfig, batch_sizes: Sequence[int], dtypes: Sequence[str], blocks: int = 1
) -> None:
    """Raise ConfigError for what surely exceeds the memory: on the CPU, MLX would crash.

    `blocks` are those whose activations are held at once; counted are a block's output and the
    widest layer inside it.
    """
    limit = backend.memory_bytes() / 2**30
    numbers = config.num_tokens * (config.hidden_dim + config.channels_mlp_dim) * blocks
    itemsize = max(4 if dtype == "float32" else 2 for dtype in dtypes)
    least = max(batch_sizes) * numbers * itemsize / 2**30
    if least > limit:
        raise ConfigError(
            f"A batch of {max(batch_sizes)} needs more than {least:,.0f} GiB, and there are "
            f"{limit:.3g}; choose smaller batches (-b)."
        )


def _cast(classifier: Classifier, dtype: str) -> Classifier:
    number: mx.Dtype = getattr(mx, dtype)
    if classifier.model.dtype == number:
        return classifier
    with mx.stream(classifier.device):
        model = MlpMixer(classifier.config)
        model.update(tree_map(lambda w: w.astype(number), classifier.model.parameters()))
        return Classifier(model, classifier.info, classifier.device)


def _forward(classifier: Classifier, pixels: np.ndarray) -> Callable[[], None]:
    batch = list(pixels)

    def run() -> None:
        classifier.predictions(np.stack(batch), k=_TOP)

    return run


PLAIN = Recipe(steps=1)
"""AdamW and clipping, without the noise and the averages that some recipes add."""


def training_jobs(
    classifier: Classifier, recipe: Recipe, batch_sizes: Sequence[int], dtypes: Sequence[str]
) -> list[Job]:
    """The step that `fit` takes: uint8 pixels and labels to updated weights.

    At a learning rate of zero, so that no run diverges. Decoding and augmenting images is not in
    it. Batch size and dtype of the recipe are replaced. Raises ConfigError for a batch that can't
    fit in memory.
    """
    config = classifier.config
    held = 1 if recipe.gradient_checkpointing else config.num_blocks
    parts = [-(-size // recipe.accumulation) for size in batch_sizes]
    check_memory(config, parts, dtypes, held)
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
