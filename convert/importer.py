"""A path -> a native model in memory, and what is known of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from mixer_mlx import adapters, checkpoint
from mixer_mlx.catalog import IMAGENET_MEAN, IMAGENET_STD
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConversionError, SourceError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import worker

from .timm_config import Settings, read_settings

if TYPE_CHECKING:  # a native folder needs neither
    from .plan import Plan
    from .weights.source import Source

NOTHING = Settings()


@dataclass(frozen=True)
class Imported:
    """A model in memory, what is known of it, and what had to be assumed, one phrase each."""

    model: MlpMixer
    info: ModelInfo
    assumed: tuple[str, ...] = ()


@worker.outlives_threads
def import_model(
    path: str | Path,
    *,
    dtype: mx.Dtype | None = None,
    settings: Settings = NOTHING,
    open_base: Callable[[Path], MlpMixer] | None = None,
) -> Imported:
    """Load a native folder, a foreign weights file, or a folder like a timm repository.

    `dtype` None keeps the stored one. `settings` override those of the folder. `open_base` opens
    the model that a folder of adapters was trained from; without it, that is an error.
    Raises SourceError, ConversionError or CheckpointError before memory is taken.
    """
    path = Path(path)
    with _reading(path), _unchanged(path):
        if open_base and adapters.is_adapters(path):
            info = _changed(checkpoint.read_info(path), settings)
            return Imported(adapters.load(path, open_base(path), info, dtype), info)
        if checkpoint.is_native(path):
            info = _changed(checkpoint.read_info(path), settings)
            return Imported(checkpoint.load(path, dtype, info), info)
        source, plan, info, assumed = _inspect(path, settings)
        model = checkpoint.fill(MlpMixer(plan.config), plan.apply(source.read()), dtype)
        return Imported(model, info, assumed)


def read_info(path: str | Path, settings: Settings = NOTHING) -> tuple[ModelInfo, tuple[str, ...]]:
    """What `import_model` would find and assume, without reading a tensor."""
    path = Path(path)
    with _reading(path):
        if checkpoint.is_native(path):
            return _changed(checkpoint.read_info(path), settings), ()
        _, _, info, assumed = _inspect(path, settings)
        return info, assumed


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{error.filename or path} can't be read ({error.strerror or error}); "
            "check its permissions."
        ) from error


@contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    """Raise SourceError if a model was replaced meanwhile: its files might not belong together."""
    before = _identity(path)
    yield
    if _identity(path) != before:
        raise SourceError(f"{path} was replaced while it was read; run this again.")


def _identity(path: Path) -> list[tuple[int, int, int]]:
    """What changes with the content of a file, or of a folder's config and weights."""
    names = {checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE, *adapters.FILES}
    files = (path, *(path / name for name in sorted(names)))
    found = [file.stat() for file in files if file.is_file()]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]


def _inspect(path: Path, settings: Settings) -> "tuple[Source, Plan, ModelInfo, tuple[str, ...]]":
    from .plan import make_plan
    from .weights.source import open_source

    source = open_source(path)
    settings = read_settings(source.settings).updated(settings)
    plan = make_plan(source, settings)
    preprocess, assumed = _preprocess(plan.config, settings)
    provenance = {
        **settings.source,
        "file": source.path.name,
        "layout": plan.layout.name,
        "sha256": source.sha256(),
        "converted_by": f"mixer-mlx {version('mixer-mlx')}",
    }
    assumptions = (*source.notes, *plan.assumed, *assumed)
    if assumptions:
        provenance["assumed"] = list(assumptions)
    info = ModelInfo(plan.config, preprocess, settings.labels, provenance)
    return source, plan, info, assumptions


def _changed(info: ModelInfo, settings: Settings) -> ModelInfo:
    """What a native folder says, overridden by the user's settings."""
    if settings.image_size not in (None, info.config.image_size):
        raise ConversionError(
            "A native model keeps its image size when it is converted; leave out `image_size`, or "
            "use `convert.resize`."
        )
    act = settings.hidden_act or info.config.hidden_act
    return info.replace(
        config=info.config.replace(hidden_act=act),
        preprocess=Preprocess.from_dict({**info.preprocess.to_dict(), **settings.preprocess}),
        labels=settings.labels or info.labels,
        source={**info.source, **settings.source},
    )


def _preprocess(config: MixerConfig, settings: Settings) -> tuple[Preprocess, list[str]]:
    """The preprocessing that the source names, completed by timm's for the published weights."""
    mean = std = (0.5,) * config.in_channels
    if config.model_type in ("resmlp", "gmixer") and config.in_channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    defaults: dict[str, object] = {
        "resize_mode": "shorter",
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": mean,
        "std": std,
    }
    known = dict(settings.preprocess)
    values = {**defaults, **known, "image_size": config.image_size}
    missing = [f"{key} {_plain(value)}" for key, value in defaults.items() if key not in known]
    assumed = [f"preprocessing: {', '.join(missing)}"] if missing else []
    return Preprocess.from_dict(values), assumed


def _plain(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
