"""The card of an uploaded model: README.md, in which no foreign name can change the layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mixer_mlx import checkpoint
from mixer_mlx.catalog import CATALOG
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.training.pages import A_MODEL, code, plain
from mixer_mlx.training.run_log import LOG_FILE, best_of

MAX_CLASSES = 1000
"""More names than these are left out of a card."""


@dataclass(frozen=True)
class Figure:
    """A measured accuracy: top-1 from 0 to 1, on so many images of a dataset, and by whom."""

    dataset: str
    split: str
    top1: float
    images: int | None
    by: str


def published_figures(info: ModelInfo) -> list[Figure]:
    """The catalogue's, of a published model that nothing was changed in."""
    entry = CATALOG.get(str(info.source.get("name")))
    if entry is None or entry.top1 is None or info.quantization or entry.config != info.config:
        return []
    built_in = entry.source is None
    dataset, split, images = (
        ("CIFAR-10", "test", 10_000) if built_in else ("ImageNet-1k", "validation", 50_000)
    )
    return [Figure(dataset, split, entry.top1 / 100, images, entry.accuracy_source or "")]


def run_figures(folder: Path) -> list[Figure]:
    """That of the best model in the folder of a training run; of another folder none."""
    if not (folder / checkpoint.RUN_FILE).is_file() or not (best := best_of(folder / LOG_FILE)):
        return []
    images = int(best.metrics["images"])
    return [Figure("own images", "validation", best.metrics["top1"], images, "mixer-mlx")]


def base_model(info: ModelInfo) -> str | None:
    """The repository on the Hub that the weights come from, "user/repo", or None."""
    source: Mapping[str, object] = info.source
    while isinstance(older := source.get("fine_tuned_from"), Mapping):
        source = older
    entry = CATALOG.get(str(source.get("name")))
    address = str(entry.source if entry else source.get("address"))
    if not address.startswith("hf://"):
        return None
    return address.removeprefix("hf://").partition("@")[0]


def licence(info: ModelInfo) -> str | None:
    """The licence of the weights or of those that they were trained from, as the Hub writes it."""
    source: Mapping[str, object] = info.source
    while "license" not in source and isinstance(older := source.get("fine_tuned_from"), Mapping):
        source = older
    found = source.get("license")
    return str(found).lower() if found else None


def body(info: ModelInfo, repo: str, *, timm: bool, figures: Sequence[Figure]) -> str:
    """The card's text in Markdown, below its metadata."""
    parts = [
        f"# {plain(repo.partition('/')[2])}",
        _what(info),
        _use(info, repo, timm=timm),
        _accuracy(figures),
        _classes(info.labels),
        _preprocessing(info),
        f"Uploaded with mixer-mlx {version('mixer-mlx')}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(info: ModelInfo) -> str:
    config = info.config
    height, width = config.image_size
    text = (
        f"{A_MODEL[config.model_type]} for images of {height} x {width} (height x width), with "
        f"patches of {config.patch_size}, {config.num_parameters:,} parameters and "
        f"{config.num_classes:,} classes."
    )
    if origin := base_model(info) or info.source.get("name"):
        text += f" It comes from {plain(str(origin))}."
    if info.quantization:
        text += f" Its weights are quantised: {info.quantization}."
    return text


def _use(info: ModelInfo, repo: str, *, timm: bool) -> str:
    lines = ["## Use", "", "With mixer-mlx:", "", f"    mixer predict photo.jpg -m {repo}"]
    if timm:
        lines += ["", "With timm and transformers:", "", "```python", "import timm", ""]
        lines += [f'model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()', "```"]
    if timm and info.config.num_classes:
        lines += ["", "```python", "from transformers import pipeline", ""]
        lines += [f'print(pipeline("image-classification", "{repo}")("photo.jpg"))', "```"]
    return "\n".join(lines)


def _accuracy(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    rows = [
        f"| {plain(figure.dataset)} | {figure.split} | "
        f"{'' if figure.images is None else f'{figure.images:,}'} | {figure.top1:.2%} | "
        f"{plain(figure.by)} |"
        for figure in figures
    ]
    head = ["| data | split | images | top-1 | measured by |", "|---|---|---:|---:|---|"]
    return "\n".join(["## Accuracy", "", *head, *rows])


def _classes(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    shown = [f"- {code(label)}" for label in labels[:MAX_CLASSES]]
    more = len(labels) - len(shown)
    rest = [f"- and {more:,} more, in config.json"] if more else []
    return "\n".join(["## Classes", "", *shown, *rest])


def _preprocessing(info: ModelInfo) -> str:
    preprocess = info.preprocess
    mean, std = (
        ", ".join(f"{x:g}" for x in values) for values in (preprocess.mean, preprocess.std)
    )
    how = {"shorter": "shorter side resized", "squash": "both sides resized"}
    return (
        f"## Preprocessing\n\n{how[preprocess.resize_mode].capitalize()} "
        f"({preprocess.interpolation}), the centre cut out ({preprocess.crop_pct:g} of it); pixels "
        f"in 0..1, minus {mean}, divided by {std}."
    )
