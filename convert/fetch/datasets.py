"""Datasets on this machine, and on the Hugging Face Hub: hf://datasets/user/name[@revision].

From the Hub come the Parquet files of the splits that are needed. If a repository has none, those
are used that the Hub itself made from it, in its branch CONVERTED; else the archive, or the images
with their metadata.csv. The list of a repository's files is kept beside the converted models, so
that a dataset that was fetched once can be used without the network.
"""

import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixer_mlx.data import read
from mixer_mlx.data.dataset import Hold, held_out, split_for_evaluation, splits_for_training
from mixer_mlx.data.folders import METADATA
from mixer_mlx.data.notes import Say
from mixer_mlx.data.parquet import group_files
from mixer_mlx.data.read import Dataset
from mixer_mlx.errors import ConfigError, SourceError
from mixer_mlx.images.archives import ARCHIVE_SUFFIXES
from mixer_mlx.images.find import SUFFIXES
from mixer_mlx.runtime.atomic import replacing_file
from mixer_mlx.runtime.documents import as_dataclass, read_json

from . import cache, hub_address
from .hub_address import COMMIT, HubAddress, check_address
from .listener import SILENT, Listener

# hub is imported where it is used: a dataset on this machine doesn't need the Hub's library.

PREFIX = "hf://datasets/"
CONVERTED = "refs/convert/parquet"
"""The branch in which the Hub keeps its own conversion of a dataset."""

Choose = Callable[[Collection[str]], Collection[str | None]]
"""Names of a dataset's splits -> those that are needed. Raises ConfigError."""


def read_splits(
    data: str | os.PathLike[str],
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    train_split: str | None = None,
    val_split: str | None = None,
    columns: read.Columns | None = None,
    hold: Hold = held_out,
    listener: Listener = SILENT,
    say: Say = lambda _: None,
) -> tuple[Dataset, Dataset]:
    """`mixer_mlx.data.read.read_splits`, also for an address on the Hub. Raises MixerError."""

    def choose(splits: Collection[str]) -> Collection[str | None]:
        return splits_for_training(splits, train_split, val_split, val_fraction, str(data))

    path = locate(data, choose, listener=listener)
    return read.read_splits(
        path,
        val_fraction=val_fraction,
        seed=seed,
        train_split=train_split,
        val_split=val_split,
        columns=columns,
        hold=hold,
        say=_as_asked(say, path, data),
    )


def read_split(
    data: str | os.PathLike[str],
    split: str | None = None,
    *,
    columns: read.Columns | None = None,
    listener: Listener = SILENT,
    say: Say = lambda _: None,
) -> tuple[Dataset, str]:
    """`mixer_mlx.data.read.read_split`, also for an address on the Hub. Raises MixerError."""

    def choose(splits: Collection[str]) -> Collection[str | None]:
        return (split_for_evaluation(splits, split, str(data)),)

    path = locate(data, choose, listener=listener)
    return read.read_split(path, split, columns=columns, say=_as_asked(say, path, data))


def _as_asked(say: Say, path: Path, data: str | os.PathLike[str]) -> Say:
    """`say`, with the address that was asked for in place of the path in the Hub's cache."""
    return lambda sentence: say(sentence.replace(str(path), os.fspath(data)))


def locate(data: str | os.PathLike[str], choose: Choose, *, listener: Listener = SILENT) -> Path:
    """The path of a dataset on this machine; a dataset on the Hub is fetched first.

    Raises SourceError, and what `choose` raises.
    """
    text = os.fspath(data)
    return _fetch(parse(text), choose, listener) if text.startswith("hf://") else Path(text)


def parse(text: str) -> HubAddress:
    """`file` is a folder or a file of the repository. Raises SourceError."""
    try:
        address = text.startswith(PREFIX) and hub_address.parse(f"hf://{text[len(PREFIX) :]}")
    except SourceError:
        address = None
    if not address:
        raise SourceError(
            f"{text} isn't a dataset on the Hub; write hf://datasets/user/name[@revision][/folder]."
        )
    return address


@dataclass(frozen=True)
class _Listing:
    """The files of a commit, with their sizes in bytes."""

    repo: str
    commit: str
    sizes: dict[str, int]

    @property
    def address(self) -> str:
        return PREFIX + self.repo

    def below(self, folder: str | None) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        return [name for name in self.sizes if name == folder or name.startswith(prefix)]


@dataclass(frozen=True)
class _Selection:
    """Files to fetch, and where among them the dataset is: a folder or a file."""

    listing: _Listing
    files: list[str]
    path: str


def _fetch(address: HubAddress, choose: Choose, listener: Listener) -> Path:
    from . import hub

    selection = _select(address, choose)
    listing = selection.listing
    folder = hub.snapshot(listing.repo, listing.commit, kind="dataset")
    missing = [name for name in selection.files if not (folder / name).is_file()]
    if missing:
        total = sum(listing.sizes[name] for name in missing)
        what = f"{len(missing)} file{'s' * (len(missing) > 1)}, {total / 2**20:,.1f} MiB"
        listener.message(f"Fetching {listing.address} ({what}).")
        _get_all(listing, missing, total, listener)
    if any("partial-" in name for name in selection.files):
        listener.message(
            f"The Hub has converted only the beginning of {listing.repo}; the rest is missing."
        )
    return folder / selection.path


def _get_all(listing: _Listing, names: list[str], total: int, listener: Listener) -> None:
    from . import hub

    done = 0
    report = Listener(progress=lambda now, _: listener.progress(done + now, total))
    for name in names:
        with hub.in_sentences(HubAddress(f"datasets/{listing.repo}", name)):
            hub.get(listing.repo, name, listing.commit, report, kind="dataset")
        done += listing.sizes[name]


# Which files


def _select(address: HubAddress, choose: Choose) -> _Selection:
    listing = _list(address.repo, address.revision)
    names = listing.below(address.file)
    if address.file in names:
        return _Selection(listing, [address.file], address.file)
    found = _parquet(listing, names, choose)
    if found is None and address.revision is None and (converted := _converted(address.repo)):
        found = _parquet(converted, converted.below(address.file), choose)
    return found or _as_it_is(listing, names, address.file)


def _parquet(listing: _Listing, names: Collection[str], choose: Choose) -> _Selection | None:
    """The Parquet files of the splits that are needed; None if there are no such files."""
    found = group_files(name for name in names if name.endswith(".parquet"))
    if not found:
        return None
    if len(found) > 1:
        folders = ", ".join(sorted(found))
        raise SourceError(
            f"{listing.address} has several datasets ({folders}); name one, e.g. "
            f"{listing.address}/{min(found)}."
        )
    ((folder, splits),) = found.items()
    wanted = [name for split in choose(splits) if split is not None for name in splits[split]]
    return _Selection(listing, wanted, folder)


def _as_it_is(listing: _Listing, names: Collection[str], folder: str | None) -> _Selection:
    """The only archive, or images and what describes them."""
    here = listing.address
    archives = [name for name in names if name.lower().endswith(ARCHIVE_SUFFIXES)]
    if len(archives) == 1:
        return _Selection(listing, archives, archives[0])
    if archives:
        raise SourceError(f"{here} has several archives; name one, e.g. {here}/{min(archives)}.")
    images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if images:
        metadata = [name for name in names if PurePosixPath(name).name in METADATA]
        return _Selection(listing, images + metadata, folder or ".")
    where = f"{here}/{folder}" if folder else here
    raise SourceError(
        f"{where} has no Parquet files, no archive and no images; look for them on its page, and "
        f"name their folder as {here}/folder."
    )


# What the Hub has


def _converted(repo: str) -> _Listing | None:
    try:
        return _list(repo, CONVERTED)
    except SourceError as error:
        from huggingface_hub.errors import RevisionNotFoundError

        if isinstance(error.__cause__, RevisionNotFoundError):
            return None
        raise


def _list(repo: str, revision: str | None) -> _Listing:
    """Ask the Hub; if it can't be reached, take what it answered before."""
    from . import hub

    record = cache.listing(repo, revision or "main")
    if COMMIT.fullmatch(revision or "") and (known := _recorded(repo, record)):
        return known
    with hub.in_sentences(HubAddress(f"datasets/{repo}", "The list of files", revision)):
        try:
            commit, sizes = hub.look_up(repo, revision, kind="dataset")
        except Exception as error:
            if hub.may_pass(error) and (known := _recorded(repo, record)):
                return known
            raise
    for name in sizes:
        check_address(HubAddress(repo, name))
    with suppress(OSError):  # a cache that can only be read
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(record) as temporary:
            temporary.write_text(json.dumps({"commit": commit, "sizes": sizes}), encoding="utf-8")
    return _Listing(repo, commit, sizes)


def _recorded(repo: str, record: Path) -> _Listing | None:
    try:
        return as_dataclass(_Listing, {"repo": repo, **read_json(record)})
    except ConfigError:
        return None
