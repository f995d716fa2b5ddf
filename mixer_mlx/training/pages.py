"""A run's pages: its model card, in which no name can change the layout, and its report."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mixer_mlx import adapters, checkpoint
from mixer_mlx.analysis.evaluate import Outcome, evaluate
from mixer_mlx.analysis.heatmap import maps_of_mistakes
from mixer_mlx.analysis.report import Report, describe, readable
from mixer_mlx.analysis.report import write as write_page
from mixer_mlx.calibration import calibrate
from mixer_mlx.classify import Classifier
from mixer_mlx.config import MixerConfig
from mixer_mlx.data.dataset import Dataset
from mixer_mlx.data.loader import DecodedImages, EvaluationBatches
from mixer_mlx.errors import ConfigError
from mixer_mlx.labels import distinct
from mixer_mlx.model import MlpMixer

from .recipe import Recipe
from .run_log import Best

REPORT_FILE = "report.html"


def card(
    *,
    name: str,
    command: str,
    origin: str,
    config: MixerConfig,
    recipe_name: str,
    recipe: Recipe,
    counts: Mapping[str, int],
    validation_images: int,
    best: Best | None,
) -> str:
    """The model, its data (`counts` are training images per class), its recipe and its accuracy."""
    results = f"top-1 {best.accuracy}; `{json.dumps(best.metrics)}`" if best else "none"
    classes = "\n".join(f"- {code(label)}: {count}" for label, count in counts.items())
    return (
        f"# {plain(name)}\n\n{A_MODEL[config.model_type]} made by `mixer {command}`: images of "
        f"{config.image_size[0]} x {config.image_size[1]}, patches of {config.patch_size}, "
        f"{config.num_parameters:,} parameters. It started from {plain(origin)}.\n\nOn the "
        f"{validation_images} validation images, in `best/`: {results} (fractions; loss in "
        f"nats).\n\nTrained on {sum(counts.values())} images, per class:\n\n{classes}\n\nRecipe "
        f"{code(recipe_name)}:\n\n```json\n{json.dumps(recipe.to_dict(), indent=2)}\n```\n"
    )


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
    that adapters in `folder` were trained from. Raises MixerError.
    """

    def __init__(self, folder: Path, val: Dataset, batch_size: int, base: MlpMixer) -> None:
        self.folder = folder
        self.info = checkpoint.read_info(folder).replace(calibration=None)
        if adapters.is_adapters(folder):
            self.model = adapters.load(folder, base, self.info)
        else:
            self.model = checkpoint.load(folder, info=self.info)
        # Unreadable images were reported during validation.
        self.images = DecodedImages(val, lambda *_: None, memory_bytes=0)
        forward = Classifier(self.model, self.info).forward
        batches = EvaluationBatches(self.images, self.info.preprocess, batch_size)
        found = [(np.array(forward(pixels)), labels) for pixels, labels in batches]
        if not found:
            raise ConfigError("None of the validation images can be read; run `mixer check`.")
        self.logits, self.labels = map(np.concatenate, zip(*found, strict=True))

    def calibrate(self) -> None:
        """Store the temperature that these logits need in the model's config.json."""
        self.info = self.info.replace(calibration=calibrate(self.logits, self.labels))
        checkpoint.write_info(self.folder, self.info)


def write_report(
    folder: Path, judged: Judged, recipe: Recipe, facts: Sequence[tuple[str, str]]
) -> None:
    """Write the page about the best model's result on each validation image. Raises MixerError."""
    info, images = judged.info, judged.images
    classifier = Classifier(judged.model, info)
    outcomes: list[Outcome] = []
    logits = mx.array(judged.logits)
    batch = np.zeros((len(logits), 1, 1, 1), np.uint8), judged.labels  # stands for those images
    metrics = evaluate(lambda _: logits, [batch])  # as in the log
    evaluate(lambda _: logits / info.temperature, [batch], outcomes=outcomes)
    curves = folder / "curves.png"
    entries = readable(images)
    page = Report(
        title=folder.absolute().name,
        facts=[*describe(info, metrics, images), *facts],
        labels=distinct(info.labels),
        entries=entries,
        outcomes=outcomes,
        curves=curves.read_bytes() if curves.exists() else None,
        details=[("Recipe", json.dumps(recipe.to_dict(), indent=2))],
        maps=maps_of_mistakes(classifier, entries, outcomes),
        calibration=info.calibration,
        fitted_here=True,
    )
    write_page(folder / REPORT_FILE, page)
