"""Training steps as jobs to measure."""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mixer_mlx.classify import Classifier
from mixer_mlx.data.loader import noise
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import Step, make_step

from .jobs import check_memory, forward_flops
from .measure import Job

PLAIN = Recipe(steps=1)
"""AdamW and clipping, without the noise and the averages that some recipes add."""


def training_jobs(
    classifier: Classifier, recipe: Recipe, batch_sizes: Sequence[int], dtypes: Sequence[str]
) -> list[Job]:
    """The step that `fit` takes: uint8 pixels and labels to updated weights.

    At a learning rate of zero, so that no run diverges. Decoding and augmenting pictures is not in
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
