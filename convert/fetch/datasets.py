"""Datasets on this machine, and on the Hugging Face Hub: hf://datasets/user/name[@revision]."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mixer_mlx.data import read
from mixer_mlx.data.dataset import split_for_evaluation, splits_for_training
from mixer_mlx.data.read import Dataset
from mixer_mlx.errors import SourceError

from ..locate import Talk, silent
from . import hub_address
from .dataset_hub import Choose, fetch
from .hub_address import HubAddress

if TYPE_CHECKING:
    from .download import Progress

PREFIX = "hf://datasets/"


def read_splits(
    data: str | os.PathLike[str],
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    train_split: str | None = None,
    val_split: str | None = None,
    columns: read.Columns | None = None,
    talk: Talk = silent,
    progress: "Progress | None" = None,
) -> tuple[Dataset, Dataset]:
    """`mixer_mlx.data.read.read_splits`, for an address on the Hub too. Raises MixerError."""

    def choose(parts: Collection[str]) -> Collection[str | None]:
        return splits_for_training(parts, train_split, val_split, val_fraction, str(data))

    path = locate(data, choose, talk=talk, progress=progress)
    return read.read_splits(
        path,
        val_fraction=val_fraction,
        seed=seed,
        train_split=train_split,
        val_split=val_split,
        columns=columns,
    )


def read_split(
    data: str | os.PathLike[str],
    part: str | None = None,
    *,
    columns: read.Columns | None = None,
    talk: Talk = silent,
    progress: "Progress | None" = None,
) -> tuple[Dataset, str]:
    """`mixer_mlx.data.read.read_split`, for an address on the Hub too. Raises MixerError."""

    def choose(parts: Collection[str]) -> Collection[str | None]:
        return (split_for_evaluation(parts, part, str(data)),)

    path = locate(data, choose, talk=talk, progress=progress)
    return read.read_split(path, part, columns=columns)


def locate(
    data: str | os.PathLike[str],
    choose: Choose,
    *,
    talk: Talk = silent,
    progress: "Progress | None" = None,
) -> Path:
    """The path of a dataset on this machine; what is on the Hub is fetched first.

    Raises SourceError, and what `choose` raises.
    """
    text = os.fspath(data)
    if not text.startswith("hf://"):
        return Path(text)
    return fetch(parse(text), choose, talk, progress)


def parse(text: str) -> HubAddress:
    """`file` is a folder or a file of the repository. Raises SourceError."""
    try:
        address = text.startswith(PREFIX) and hub_address.parse(f"hf://{text[len(PREFIX) :]}")
    except SourceError:
        address = None
    if not address:
        raise SourceError(
            f"{text} is no dataset on the Hub; write hf://datasets/user/name[@revision][/folder]."
        )
    return address
