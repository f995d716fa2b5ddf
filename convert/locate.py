"""A model's name, address or path -> a native folder, or foreign weights, on this machine.

mixer_b16_224.sam                     a published model, from the catalogue
user/repo, hf://user/repo[@revision][/file]
https://host/file.npz
a path                                (a name wins: write ./name for the path; the folder of a
                                      training run means its best/)
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from mixer_mlx import catalog, checkpoint
from mixer_mlx.catalog import CatalogEntry
from mixer_mlx.config import find_variant
from mixer_mlx.errors import ConversionError, SourceError
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import backend

from .fetch import hub_address
from .fetch.listener import SILENT, Listener
from .importer import NOTHING, Imported, import_model
from .timm_config import Settings

# cache, download and hub are imported where they are used: a model on this machine needs none of
# them, and they would add a tenth of a prediction's time.
if TYPE_CHECKING:
    from .fetch.download import Fetched

BUCKET = "https://storage.googleapis.com/mixer_models"
"""Google's files; `MIXER_MLX_BUCKET` overrides it."""


@dataclass(frozen=True)
class Address:
    """Where a model is: at `path`, or remote, with its address as `text`.

    `entry` is its entry in the catalogue, if it has one.
    """

    text: str
    path: Path | None = None
    entry: CatalogEntry | None = None

    @property
    def settings(self) -> Settings:
        """What the catalogue knows of the model."""
        entry = self.entry
        if entry is None or self.path is not None:
            return NOTHING
        preprocess = entry.preprocess.to_dict()
        del preprocess["image_size"]
        return Settings(
            image_size=entry.config.image_size,
            hidden_act=entry.config.hidden_act,
            labels=entry.labels,
            preprocess=preprocess,
            source={"name": entry.name, "license": entry.licence},
        )


def resolve(model: str | os.PathLike[str]) -> Address:
    """Tell names, addresses and paths apart, without the network. Raises SourceError."""
    text = os.fspath(model)
    if entry := catalog.CATALOG.get(text):
        if entry.source is None:
            return Address(text, catalog.BUILT_IN_FOLDER, entry)
        return Address(_source_address(entry.source), entry=entry)
    if text.startswith(("http://", "https://", "hf://")):
        hub_address.parse(text)  # raises for a malformed hf:// address
        return Address(text)
    path = Path(text)
    if os.path.isfile(path / checkpoint.RUN_FILE):
        if not os.path.isdir(path / "best"):
            raise SourceError(
                f"The run in {text} has no best model yet; wait for its first validation."
            )
        return Address(text, path / "best")
    if os.path.exists(path):  # raises nothing where a folder may not be read
        return Address(text, path)
    _refuse_architecture(text)
    if hub_address.parse(text):
        _refuse_local(text)
        return Address(f"hf://{text}")
    near = difflib.get_close_matches(text, catalog.CATALOG, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise SourceError(
        f"Unknown model {text}: it isn't a file, a folder or an address; {meant}"
        "`CATALOG` lists the published models."
    )


def _refuse_architecture(text: str) -> None:
    """Raise SourceError for "B/16", which could be the name of a repository on the Hub."""
    if (variant := find_variant(text)) is None:
        return
    entries = catalog.CATALOG.values()
    found = [entry.name for entry in entries if entry.config.variant_name == variant]
    published = f"published models: {', '.join(found)}" if found else "it has no published model"
    raise SourceError(
        f"{text} is an architecture, not a model; {published}. To train or time one: "
        f"`MixerConfig.variant({variant!r})`."
    )


def _refuse_local(text: str) -> None:
    """Raise SourceError for a path that is missing, in place of looking for it on the Hub."""
    parent, name = os.path.split(text)
    if not os.path.isdir(parent):
        return
    here = os.listdir(parent) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(name, here, n=1)
    meant = f"use {os.path.join(parent, near[0])}" if near else "check the path"
    raise SourceError(
        f"{text} doesn't exist; {meant}, or write hf://{text} for a repository on the Hub."
    )


def _source_address(source: str) -> str:
    if source.startswith("hf://"):
        return source
    return f"{os.environ.get('MIXER_MLX_BUCKET') or BUCKET}/{source}"


def fetch(address: Address, *, listener: Listener = SILENT) -> "Fetched":
    """Bring a remote address to this machine. Raises SourceError."""
    about = ""
    if entry := address.entry:
        about = f" ({entry.download_bytes / 2**20:.0f} MiB, licence {entry.licence})"
    listener.message(f"Fetching {address.text}{about}.")
    if place := hub_address.parse(address.text):
        from .fetch import hub

        return hub.fetch(place.repo, file=place.file, revision=place.revision, listener=listener)
    from .fetch import cache, download

    return download.fetch(address.text, cache.downloads(address.text), listener=listener)


def ensure(
    address: Address,
    dtype: str,
    *,
    listener: Listener = SILENT,
) -> Path:
    """The native folder of a remote address: from the cache, or fetched and converted.

    What the cache holds is used without asking the network for something newer.
    """
    from .fetch import cache

    if found := cache.find(address.text, dtype):
        return found
    with cache.lock(address.text):
        if found := cache.find(address.text, dtype):  # another process was faster
            return found
        fetched = fetch(address, listener=listener)
        chosen = backend.dtype(dtype, backend.device("cpu"))
        imported = import_fetched(address, fetched, dtype=chosen)
        for sentence in imported.assumed:
            listener.message(f"Assumed: {sentence}.")
        return cache.store(address.text, dtype, fetched.revision, imported.model, imported.info)


def import_fetched(
    address: Address, fetched: "Fetched", *, dtype: mx.Dtype | None, settings: Settings = NOTHING
) -> Imported:
    """Import what was fetched; `settings` override the catalogue's. Raises MixerError.

    The weights of a published model must have the architecture in the catalogue.
    """
    source = {"address": address.text, "revision": fetched.revision}
    if fetched.licence and address.entry is None:
        source["license"] = fetched.licence
    if dtype is not None:
        source["dtype"] = backend.dtype_name(dtype)
    known = address.settings.updated(Settings(source=source)).updated(settings)
    imported = import_model(fetched.path, dtype=dtype, settings=known)
    entry = address.entry
    if entry and imported.info.config.replace(hidden_act="gelu") != entry.config.replace(
        hidden_act="gelu"
    ):
        raise ConversionError(
            f"{address.text} holds other weights than those of {entry.name}; use its address in "
            "place of the name."
        )
    return imported


def name_of(model: str | os.PathLike[str]) -> str:
    """What tells others where a model is: its name or address, and of a path only the last part."""
    text = os.fspath(model)
    return text if resolve(model).path is None or text in catalog.CATALOG else Path(text).name


def found(address: Address) -> Path | None:
    """The converted model of a remote address in the cache, or None."""
    from .fetch import cache

    return cache.find(address.text)


def is_here(model: str) -> bool:
    """Whether a model can be loaded without the network."""
    address = resolve(model)
    return address.path is not None or found(address) is not None


def describe(address: Address) -> ModelInfo:
    """What is known of a remote address without fetching it. Raises SourceError."""
    if here := found(address):
        return checkpoint.read_info(here)
    if address.entry is None:
        raise SourceError(f"{address.text} hasn't been fetched yet; run `load({address.text!r})`.")
    settings = address.settings
    source = {**settings.source, "address": address.text}
    return ModelInfo(address.entry.config, address.entry.preprocess, settings.labels, source)
