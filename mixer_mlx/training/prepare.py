"""A dataset and a model -> what `fit` needs: the model, batches, validation, and memory."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mixer_mlx import resolution
from mixer_mlx.analysis.evaluate import Metrics, evaluate_images
from mixer_mlx.checkpoint import parameter_shapes
from mixer_mlx.classify import Classifier
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.augment import augmentation
from mixer_mlx.data.loader import (
    Batch,
    DecodedImages,
    EvaluationBatches,
    OnUnreadable,
    TrainingBatches,
    noise,
)
from mixer_mlx.data.mixing import Mixing
from mixer_mlx.data.read import Dataset
from mixer_mlx.errors import ConfigError
from mixer_mlx.features import probe
from mixer_mlx.features.embed import Embedder
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.backend import gpu_is_default
from mixer_mlx.runtime.ranks import ALONE, Ranks
from mixer_mlx.runtime.streams import rounds
from mixer_mlx.runtime.tuning import MAX_TRAINING_PART, TRAINING_MEMORY_FRACTION

from .loop import StepDone, Validate, fit
from .network import prepared, trained_names
from .recipe import Recipe


def new_model(
    config: MixerConfig, preprocess: Preprocess, classes: tuple[str, ...], recipe: Recipe
) -> tuple[MlpMixer, ModelInfo]:
    """A randomly initialised model for these classes; the recipe's seed decides the weights."""
    mx.random.seed(recipe.seed)
    shuffle = recipe.shuffle or config.shuffle
    model = MlpMixer(config.replace(num_classes=len(classes), shuffle=shuffle))
    model.head.bias = mx.full(len(classes), recipe.head_bias)
    mx.eval(model.parameters())
    return model, ModelInfo(model.config, preprocess, classes)


def adapted(
    trained: MlpMixer,
    info: ModelInfo,
    classes: tuple[str, ...],
    recipe: Recipe,
    image_size: tuple[int, int] | None = None,
) -> tuple[MlpMixer, ModelInfo]:
    """A trained model adapted to other classes and perhaps larger images, in float32.

    If the classes are the same, the head is kept, in the new order; otherwise it is replaced by
    zeros. Raises ConfigError unless the image size is a whole multiple of the trained one,
    and for a quantised model.
    """
    trained.require_unquantized("be fine-tuned", info.origin)
    if image_size and image_size != info.config.image_size:
        if recipe.lora_rank:
            raise ConfigError(
                "Adapters are for a model of the same image size; resize it first "
                "(`convert.resize`), and fine-tune the result."
            )
        trained = resolution.resize(trained, image_size)
    shuffle = recipe.shuffle or trained.config.shuffle
    config = trained.config.replace(num_classes=len(classes), shuffle=shuffle)
    model = MlpMixer(config)
    parameters = trained.parameters()
    head = parameters.pop("head", None)
    model.update(parameters)
    if head is not None and sorted(info.labels) == sorted(classes):
        order = mx.array([info.labels.index(name) for name in classes])
        model.update({"head": {name: value[order] for name, value in head.items()}})
    else:
        model.head.bias = mx.full(len(classes), recipe.head_bias)
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    preprocess = dataclasses.replace(info.preprocess, image_size=config.image_size)
    source = {key: value for key, value in info.source.items() if key in _ORIGIN}
    return model, ModelInfo(config, preprocess, classes, {"fine_tuned_from": source})


RIDGE_IMAGES = 20_000
RIDGE_SCORES = 20_000_000
"""Images x classes: the regression has several arrays of that many float64."""


def with_ridge_head(
    model: MlpMixer, info: ModelInfo, images: DecodedImages, batch_size: int
) -> None:
    """Start a new head, in place, as the ridge regression on the features of the training images.

    Training then begins at the few-shot probe's accuracy, and changes the features less than from
    a head of zeros (LP-FT: Kumar et al., arXiv 2202.10054). Without `takes_ridge_head`, the head
    stays as it is.
    """
    classes = len(info.labels)
    if not takes_ridge_head(model, classes):
        return
    most = _ridge_images(classes)
    if most < len(images.dataset):
        rows = np.random.default_rng(0).permutation(len(images.dataset))[:most]
        images = DecodedImages(images.dataset.take(np.sort(rows)), lambda *_: None, memory_bytes=0)
    embedder = Embedder(model, info)
    batches = EvaluationBatches(images, info.preprocess, batch_size)
    found = [(embedder.pixels(pixels), labels) for pixels, labels in batches]
    if not found:
        return  # the first training step says so
    features, labels = map(np.concatenate, zip(*found, strict=True))
    head = probe.calibrated(features, labels, classes)
    model.head.weight = mx.array(head.weight.astype(np.float32))
    model.head.bias = mx.array(head.bias.astype(np.float32))
    mx.eval(model.head.parameters())


def takes_ridge_head(model: MlpMixer, classes: int) -> bool:
    """Whether the head is all zeros, and the classes are few enough for the regression.

    Of many images, as many are used as RIDGE_IMAGES and RIDGE_SCORES allow; these must be at least
    as many as the classes.
    """
    return _ridge_images(classes) >= classes and not model.head.weight.any().item()


def _ridge_images(classes: int) -> int:
    return min(RIDGE_IMAGES, RIDGE_SCORES // classes)


_ORIGIN = ("name", "address", "revision", "license", "sha256", "fine_tuned_from")


def training_batches(
    dataset: Dataset,
    recipe: Recipe,
    preprocess: Preprocess,
    on_unreadable: OnUnreadable,
    ranks: Ranks = ALONE,
) -> TrainingBatches:
    """The batches that `fit` trains on, or this rank's rows of them.

    Raises ConfigError if the batch size isn't a multiple of the number of ranks.
    """
    augmented = augmentation(
        recipe.augmentation,
        preprocess,
        flip=recipe.flip,
        rand_augment=recipe.rand_augment,
        erasing=recipe.erasing,
    )
    mixes = recipe.mixup or recipe.cutmix
    return TrainingBatches(
        DecodedImages(dataset, on_unreadable),
        augmented,
        recipe.batch_size,
        recipe.seed,
        mixing=Mixing(recipe.mixup, recipe.cutmix) if mixes else None,
        balance=recipe.balance,
        ranks=ranks,
    )


def validation(
    dataset: Dataset,
    info: ModelInfo,
    batch_size: int,
    on_unreadable: OnUnreadable,
    ranks: Ranks = ALONE,
) -> Validate:
    """How `fit` validates: by the code of `mixer evaluate`, with images upright."""
    images = DecodedImages(dataset.take(ranks.shard(len(dataset))), on_unreadable)

    def validate(model: MlpMixer) -> Metrics:
        return evaluate_images(Classifier(model, info), images, batch_size, ranks=ranks)

    return validate


@dataclass(frozen=True)
class Estimate:
    """What a run will take, measured on a few steps with random pixels."""

    steps: int
    images_per_second: float
    seconds: float
    peak_memory: int


class _Noise:
    """The batches that `plan` measures."""

    def __init__(self, config: MixerConfig, batch_size: int, steps: int) -> None:
        self.pixels = noise(config, batch_size)
        self.labels = (np.arange(batch_size) % config.num_classes).astype(np.int32)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter([(self.pixels, self.labels)] * (self.steps - start))


def plan(model: MlpMixer, preprocess: Preprocess, recipe: Recipe, total_steps: int) -> Estimate:
    """Measure a few real steps on a copy of the model; takes their time and memory.

    Validation isn't included, nor is decoding, which matters if it is slower than the model.
    """
    copy = MlpMixer(model.config)
    copy.update(model.parameters())
    steps = 4
    short = recipe.replace(steps=steps, save_every=None, warmup=0)
    mx.reset_peak_memory()
    batches = _Noise(model.config, recipe.batch_size, steps)
    events = fit(copy, batches, None, short, preprocess=preprocess)
    rates = [event.images_per_second for event in events if isinstance(event, StepDone)]
    rate = max(rates[1:])
    seconds = total_steps * recipe.batch_size / rate
    return Estimate(total_steps, rate, seconds, mx.get_peak_memory())


def estimated_bytes(config: MixerConfig, recipe: Recipe) -> float:
    """The peak memory of a training step; above the measured one, usually by less than a half.

    For its gradient, a block keeps the inputs and outputs of its norms and its activations.
    The factors for temporary arrays were measured on MLX's CPU backend.
    """
    S, C = config.num_tokens, config.hidden_dim
    inside = _kept_inside(config)
    size = -(-recipe.batch_size // recipe.accumulation)
    parts = rounds(config, size, MAX_TRAINING_PART)[0]
    if recipe.gradient_checkpointing:  # each block keeps its input, and a few at a time the rest
        kept = 1.0 * config.num_blocks * S * C + (7 if len(parts) == 1 else 4) * inside
    else:
        kept = (1.2 * config.num_blocks + 5) * (S * C + inside)
    _, at_once = parts[-1]
    activations = at_once * kept * (4 if recipe.dtype == "float32" else 2)
    moments = 1 if recipe.optimizer == "sgd" else 2
    # Weights, gradients, moments, and new arrays while the old ones are still there.
    copies = 3 + moments + (recipe.ema_decay is not None) + 2 * (recipe.accumulation > 1)
    copies += recipe.best_by == "halfway"  # the start
    copies += gpu_is_default()  # gradients, in their packing
    frozen = 1 if recipe.dtype == "float32" else 1.5  # with a copy in half precision
    trained = _trained_parameters(config, recipe)
    return activations + 4 * (copies * trained + frozen * max(0, config.num_parameters - trained))


def _trained_parameters(config: MixerConfig, recipe: Recipe) -> int:
    shapes = parameter_shapes(prepared(MlpMixer(config), recipe))
    return sum(math.prod(shapes[name]) for name in trained_names(config, recipe, list(shapes)))


def _kept_inside(config: MixerConfig) -> int:
    """Numbers per image that a block keeps besides its output."""
    S, C = config.num_tokens, config.hidden_dim
    tokens, channels = config.tokens_mlp_dim * C, S * config.channels_mlp_dim
    others = {"resmlp": 5 * S * C, "gmlp": S * C + 2 * channels}  # with LayerScale, with the gate
    return others.get(config.model_type, 3 * S * C) + 2 * tokens + 2 * channels


def fitted(config: MixerConfig, recipe: Recipe, memory_bytes: float) -> Recipe:
    """The recipe with enough `accumulation` to stay under TRAINING_MEMORY_FRACTION of the memory.

    The updates are the same. A recipe that already accumulates is unchanged; one that can't fit
    gets parts of one image.
    """
    if recipe.accumulation > 1:
        return recipe
    limit = TRAINING_MEMORY_FRACTION * memory_bytes
    while estimated_bytes(config, recipe) > limit and recipe.accumulation < recipe.batch_size:
        recipe = recipe.replace(accumulation=min(2 * recipe.accumulation, recipe.batch_size))
    return recipe
