"""A run's pages: its model card, in which no name can change the layout, and its report."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mixer_mlx import adapters, checkpoint
from mixer_mlx.analysis.evaluate import Metrics, Outcome, evaluate
from mixer_mlx.analysis.heatmap import maps_of_mistakes
from mixer_mlx.analysis.report import Maps, Report, describe, readable
from mixer_mlx.analysis.report import write as write_page
from mixer_mlx.calibration import calibrate
from mixer_mlx.classify import Classifier
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.dataset import Dataset, Entry
from mixer_mlx.data.loader import Batch, DecodedImages, EvaluationBatches
from mixer_mlx.errors import ConfigError, TrainingError
from mixer_mlx.features.few_shot import ShotResult
from mixer_mlx.labels import distinct
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import read_json

from .recipe import Recipe
from .run_log import Best

REPORT_FILE, CURVE_FILE = "report.html", "learning-curve.json"


def card(
    *,
    name: str,
    command: str,
    origin: str,
    config: MixerConfig,
    recipe_name: str,
    recipe: Recipe,
    counts: Mapping[str, int],
    accuracy: str,
) -> str:
    """The model, its data (`counts` are training images per class), its recipe and its accuracy."""
    classes = "\n".join(f"- {code(label)}: {count}" for label, count in counts.items())
    return (
        f"# {plain(name)}\n\n{A_MODEL[config.model_type]} made by `mixer {command}`: images of "
        f"{config.image_size[0]} x {config.image_size[1]}, patches of {config.patch_size}, "
        f"{config.num_parameters:,} parameters. It started from {plain(origin)}.\n\n"
        f"{accuracy}\n\nTrained on {sum(counts.values())} images, per class:\n\n{classes}\n\n"
        f"Recipe {code(recipe_name)}:\n\n```json\n{json.dumps(recipe.to_dict(), indent=2)}\n```\n"
    )


def validated(best: Best | None, images: int) -> str:
    """The accuracy of the best weights on that many validation images, as the card has it."""
    results = f"top-1 {best.accuracy}; `{json.dumps(best.metrics)}`" if best else "none"
    return f"On the {images} validation images, in `best/`: {results} (fractions; loss in nats)."


A_MODEL = {
    "mlp_mixer": "An MLP-Mixer (arXiv 2105.01601)",
    "resmlp": "A ResMLP (arXiv 2105.03404)",
    "gmlp": "A gMLP (arXiv 2105.08050)",
    "gmixer": "A gMixer (of timm)",
}


def plain(text: str) -> str:
    """A text in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(_one_line(text), quote=False))


def code(text: str) -> str:
    """A text as a code span, which may hold anything but a longer run of backticks."""
    text = _one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


class Judged:
    """A run's best model and its logits for all validation images, which are decoded again.

    `logits` (N, classes), float32, without a temperature, and `labels` (N,). `base` is the model
    that adapters in `folder` were trained from. `info` has the temperature that the model has
    already. Raises MixerError.
    """

    def __init__(self, folder: Path, val: Dataset, batch_size: int, base: MlpMixer | None) -> None:
        self.folder = folder
        self.info = checkpoint.read_info(folder)
        if adapters.is_adapters(folder):
            if base is None:
                raise ConfigError(f"{folder} holds adapters; give `base`, their model.")
            self.model = adapters.load(folder, base, self.info)
        else:
            self.model = checkpoint.load(folder, info=self.info)
        # Unreadable images were reported during validation.
        self.images = DecodedImages(val, lambda *_: None, memory_bytes=0)
        forward = Classifier(self.model, self.info.replace(calibration=None)).forward
        batches = EvaluationBatches(self.images, self.info.preprocess, batch_size)
        found = [(np.array(forward(pixels)), labels) for pixels, labels in batches]
        if not found:
            raise ConfigError("None of the validation images can be read; run `mixer check`.")
        self.logits, self.labels = map(np.concatenate, zip(*found, strict=True))

    def calibrate(self) -> None:
        """Store the temperature that these logits need in the model's config.json."""
        self.info = self.info.replace(calibration=calibrate(self.logits, self.labels))
        checkpoint.write_info(self.folder, self.info)

    def results(self) -> "Results":
        """What the report shows of them, with maps for the worst mistakes."""
        entries = readable(self.images)
        unreadable = len(self.images.unreadable)
        found = Results(self.info, entries, self.logits, self.labels, unreadable)
        maps = maps_of_mistakes(Classifier(self.model, self.info), entries, found.outcomes())
        return replace(found, maps=maps)


@dataclass(frozen=True)
class Results:
    """Logits (N, classes), without a temperature, and labels (N,) of the images `entries`.

    `info` is the model's whose temperature is used. `unreadable` images aren't among them.
    """

    info: ModelInfo
    entries: Sequence[Entry]
    logits: NDArray[np.float32]
    labels: NDArray[np.int32]
    unreadable: int = 0
    maps: Maps = field(default_factory=dict)

    def metrics(self) -> Metrics:
        """As in the log: without the temperature."""
        return evaluate(lambda _: mx.array(self.logits), [self._batch()])

    def outcomes(self) -> list[Outcome]:
        """With the temperature, one per image."""
        found: list[Outcome] = []
        logits = mx.array(self.logits) / self.info.temperature
        evaluate(lambda _: logits, [self._batch()], outcomes=found)
        return found

    def _batch(self) -> Batch:
        """Stands for the images."""
        return np.zeros((len(self.logits), 1, 1, 1), np.uint8), self.labels


def write_report(
    folder: Path,
    results: Results,
    recipe: Recipe,
    facts: Sequence[tuple[str, str]],
    cost: Sequence[tuple[str, str]],
    out: Path | None = None,
) -> None:
    """Write the page about a run's results, to `out` or into its folder. Raises MixerError."""
    curves = folder / "curves.png"
    described = describe(results.info, results.metrics(), results.unreadable)
    page = Report(
        title=folder.absolute().name,
        facts=[*described, *facts],
        labels=distinct(results.info.labels),
        entries=results.entries,
        outcomes=results.outcomes(),
        curves=curves.read_bytes() if curves.exists() else None,
        details=[("Recipe", json.dumps(recipe.to_dict(), indent=2))],
        maps=results.maps,
        calibration=results.info.calibration,
        fitted_here=True,
        cost=cost,
        curve=read_curve(folder),
    )
    write_page(out or folder / REPORT_FILE, page)


def write_curve(folder: Path, curve: Sequence[ShotResult]) -> None:
    """Keep the learning curve for the report."""
    lines = [asdict(one) for one in curve]
    with replacing_file(folder / CURVE_FILE) as temporary:
        temporary.write_text(json.dumps({"curve": lines}, indent=2) + "\n", "utf-8")


def read_curve(folder: Path) -> list[ShotResult]:
    """The learning curve that a run has kept, if it has. Raises TrainingError."""
    path = folder / CURVE_FILE
    if not path.is_file():
        return []
    try:
        lines: Any = read_json(path)["curve"]
        return [ShotResult(**{**one, "accuracies": tuple(one["accuracies"])}) for one in lines]
    except (ConfigError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged; remove it.") from error
