"""Why a model chose a class: maps of how much each patch of an image speaks for it.

A Mixer sees an image as patches and mixes all of them in every block, so a map has one number per
patch, and it comes from hiding patches or from gradients at the input, not from tokens inside.
"Hidden" means painted in the image's mean colour.

    rise       RISE (arXiv 1806.07421): random masks; the probability with a patch shown, less the
               probability with it hidden
    occlusion  the mean drop in probability over the squares of 3 x 3 patches that hide a patch
    gradient   integrated gradients (arXiv 1703.01365), from the mean colour to the image

Every map is judged by the deletion and insertion scores of the first paper.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx.checks import check_choice, check_whole
from mixer_mlx.choices import ExplainMethod
from mixer_mlx.classify import Classifier
from mixer_mlx.errors import ConfigError
from mixer_mlx.images.decode import ImageInput
from mixer_mlx.images.preprocess import normalized
from mixer_mlx.model import MlpMixer
from mixer_mlx.quantization import cast
from mixer_mlx.results import Prediction
from mixer_mlx.runtime.streams import one_core_each, rounds, streams
from mixer_mlx.runtime.tuning import MAX_TRAINING_PART

MASKS = 64
GRADIENT_STEPS = 16
OCCLUDED = 3
"""The side of the squares of `occlusion`, in patches."""

SCORE_STEPS = 32
"""At most so many steps from the image to nothing, or back; each takes several patches."""
RANDOM_ORDERS = 2

Map = NDArray[np.float32]
"""One number per patch, (H/P, W/P)."""
Shown = NDArray[np.bool_]
"""Which patches are shown, (N, H/P, W/P)."""


@dataclass(frozen=True)
class Scores:
    """Mean probabilities of the class, 0 to 1, while patches are taken away or put back.

    `deletion` hides the patches with the highest numbers first: lower is better. `insertion` begins
    with all hidden and shows these first: higher is better.
    """

    insertion: float
    deletion: float

    @property
    def difference(self) -> float:
        """`insertion` less `deletion`, which is 0 on average for a map that knows nothing."""
        return self.insertion - self.deletion


@dataclass(frozen=True)
class Explanation:
    """A map for one class of one image.

    `pixels` is the model's input, uint8 (H, W, channels), and `top` its five most probable classes.
    A number of `map` is a change of the class's probability, positive for patches that speak for
    it. `random` has the mean scores of random orders.
    """

    pixels: NDArray[np.uint8]
    prediction: Prediction
    top: tuple[Prediction, ...]
    method: ExplainMethod
    map: Map
    scores: Scores
    random: Scores


@dataclass(frozen=True)
class Explainer:
    """A classifier, and how to explain it.

    `masks` is the number of forward passes of "rise"; `seed` draws its masks, and the random orders
    that scores are compared with; `steps` is the number of points of "gradient". Raises ConfigError
    for another method.
    """

    classifier: Classifier
    method: ExplainMethod = "rise"
    masks: int = MASKS
    seed: int = 0
    batch_size: int = 32
    steps: int = GRADIENT_STEPS

    def __post_init__(self) -> None:
        check_choice("method", self.method, ExplainMethod)
        check_whole("masks", self.masks, 2, 1_000_000)
        check_whole("steps", self.steps, 1, 1_000_000)
        check_whole("batch_size", self.batch_size, 1, 1_000_000)

    def __call__(
        self, image: ImageInput, index: int | None = None, *, exact: bool = False
    ) -> Explanation:
        """Explain one class of an image, by default the most probable one.

        `index` is that of an output. Raises ImageError for an unreadable image, and ConfigError for
        an output that the model doesn't have.
        """
        pixels = self.classifier.preprocess(image, exact=exact)
        found = self.classifier.predictions(pixels[None], k=self.classifier.config.num_classes)[0]
        if index is not None and not 0 <= index < len(found):
            raise ConfigError(f"The model has no class {index}; expected 0 to {len(found) - 1}.")
        chosen = found[0] if index is None else next(p for p in found if p.index == index)
        values = self.map(pixels, chosen.index)
        rng = np.random.default_rng(self.seed)
        size = values.size
        orders = [np.argsort(-values, axis=None, kind="stable")]
        orders += [rng.permutation(size) for _ in range(RANDOM_ORDERS)]
        ours, *others = (self._scores(pixels, chosen.index, order) for order in orders)
        chance = Scores(
            float(np.mean([score.insertion for score in others])),
            float(np.mean([score.deletion for score in others])),
        )
        return Explanation(pixels, chosen, found[:5], self.method, values, ours, chance)

    def map(self, pixels: NDArray[np.uint8], index: int) -> Map:
        """The map alone: pixels from `preprocess`, (H, W, channels), and an output's index."""
        return _METHODS[self.method](self, pixels, index).astype(np.float32)

    def grid(self) -> tuple[int, int]:
        """The patches of an image, (H/P, W/P)."""
        (H, W), P = self.classifier.config.image_size, self.classifier.config.patch_size
        return H // P, W // P

    def probabilities(
        self, pixels: NDArray[np.uint8], index: int, shown: Shown
    ) -> NDArray[np.float64]:
        """The class's probability with these patches shown and the others hidden, (N,)."""
        P = self.classifier.config.patch_size
        blank = mean_colour(pixels)
        found = []
        for start in range(0, len(shown), self.batch_size):
            masks = shown[start : start + self.batch_size].repeat(P, axis=1).repeat(P, axis=2)
            images = np.where(masks[..., None], pixels, blank)
            rows = mx.softmax(self.classifier.forward(images), axis=-1)
            found.append(np.array(rows[:, index], np.float64))
        return np.concatenate(found)

    def _scores(self, pixels: NDArray[np.uint8], index: int, order: NDArray[np.intp]) -> Scores:
        """The areas under the curves, by the trapezoidal rule."""
        size = len(order)
        counts = np.unique(np.linspace(0, size, min(size, SCORE_STEPS) + 1).round().astype(int))
        rank = np.empty(size, np.intp)
        rank[order] = np.arange(size)
        first = rank.reshape(self.grid()) < counts[:, None, None]  # the first 0, 1, 2, ... patches
        found = self.probabilities(pixels, index, np.concatenate([first, ~first]))
        inserted, deleted = np.split(found, 2)
        share = counts / size
        return Scores(
            float(np.trapezoid(inserted, share)),
            float(np.trapezoid(deleted, share)),
        )


def mean_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colour of hidden patches: (H, W, channels) -> (channels,)."""
    return np.round(pixels.mean(axis=(0, 1))).astype(np.uint8)


def rise(explainer: Explainer, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float64]:
    """The probability with a patch shown, less that with it hidden, on average over masks."""
    shown = random_masks(explainer.masks, explainer.grid(), explainer.seed)
    found = explainer.probabilities(pixels, index, shown)
    weights = shown.reshape(len(shown), -1).astype(np.float64)
    with_it = found @ weights / np.maximum(weights.sum(axis=0), 1)
    without = found @ (1 - weights) / np.maximum((1 - weights).sum(axis=0), 1)
    return (with_it - without).reshape(explainer.grid())


def random_masks(count: int, grid: tuple[int, int], seed: int) -> Shown:
    """Smooth random masks, each followed by its opposite, so that every patch is shown in a half.

    A grid of random numbers, half as fine as the patches, is enlarged, shifted by a random part of
    a cell, and cut at its median, so that a mask hides half of the patches in connected areas.
    """
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(-(-count // 2)):
        mask = _smooth_noise(rng, grid)
        shown = mask > np.median(mask)
        masks += [shown, ~shown]
    return np.stack(masks)[:count]


CELL = 2.0
"""The side of a mask's random cells, in patches."""


def _smooth_noise(rng: np.random.Generator, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Random numbers of cells of CELL x CELL patches, between which is interpolated."""
    coarse = rng.random([int(np.ceil(side / CELL)) + 2 for side in grid])
    rows, columns = (np.arange(side) / CELL + rng.random() for side in grid)
    return _interpolated(_interpolated(coarse, rows).T, columns).T


def _interpolated(values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows between those of `values`, linearly."""
    low = at.astype(int)
    part = (at - low)[:, None]
    return values[low] * (1 - part) + values[low + 1] * part


def occlusion(explainer: Explainer, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float64]:
    """The mean drop in probability over the squares, centred on each patch, that hide a patch."""
    h, w = explainer.grid()
    reach = OCCLUDED // 2
    hidden = np.zeros((h * w, h, w), bool)
    for number, (y, x) in enumerate(np.ndindex(h, w)):
        hidden[number, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    shown = np.concatenate([np.ones((1, h, w), bool), ~hidden])
    whole, *without = explainer.probabilities(pixels, index, shown)
    drops = whole - np.array(without)
    weights = hidden.reshape(h * w, -1).astype(np.float64)
    return (drops @ weights / weights.sum(axis=0)).reshape(h, w)


def gradient(explainer: Explainer, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float64]:
    """Integrated gradients of the probability, summed over each patch.

    The numbers add up to the probability of the image less that of the mean colour, but for the
    error of so few points of the path.
    """
    classifier, steps = explainer.classifier, explainer.steps
    model, preprocess = _in_float32(classifier.model), classifier.preprocess
    temperature = classifier.info.temperature

    def probability(images: mx.array) -> mx.array:
        return mx.softmax(model(images) / temperature, axis=-1)[:, index].sum()

    with mx.stream(classifier.device):
        mean, std = mx.array(preprocess.mean), mx.array(preprocess.std)
        image = normalized(mx.array(pixels), mean, std)
        blank = normalized(mx.array(mean_colour(pixels)), mean, std)
        points = (mx.arange(steps) + 0.5) / steps
        path = blank + points[:, None, None, None] * (image - blank)
        mx.eval(path, model.parameters())  # before other streams use them
        slopes = _in_parts(mx.grad(probability), model, path)
        (h, w), P = explainer.grid(), classifier.config.patch_size
        each = (slopes.mean(axis=0) * (image - blank)).reshape(h, P, w, P, -1)
        return np.array(each.sum(axis=(1, 3, 4)), np.float64)


def _in_parts(slope: Callable[[mx.array], mx.array], model: MlpMixer, path: mx.array) -> mx.array:
    """The gradients at all points, on several streams where that is faster, see `streams`."""
    found: list[mx.array] = []
    for parts in rounds(model.config, len(path), MAX_TRAINING_PART):
        turn = []
        with one_core_each(len(parts)):
            for stream, (start, end) in zip(streams(len(parts)), parts, strict=True):
                with mx.stream(stream):
                    turn.append(slope(path[start:end]))
            mx.eval(turn)
        found += turn
    return mx.concatenate(found)


def _in_float32(model: MlpMixer) -> MlpMixer:
    """The model itself, or a copy: gradients of probabilities are too small for float16."""
    return model if model.dtype == mx.float32 else cast(model, mx.float32)


_METHODS: dict[str, Callable[[Explainer, NDArray[np.uint8], int], NDArray[np.float64]]] = {
    "rise": rise,
    "occlusion": occlusion,
    "gradient": gradient,
}
