"""The files of a dataset from the Hugging Face Hub, in its own cache.

Fetched are the Parquet files of the parts that are needed. Where a repository holds none, they are
those that the Hub itself made of it, in its branch CONVERTED; where it made none, the archive, or
the images with their metadata.csv. The list of a repository's files is kept beside the converted
models, so that what was fetched once can be used without the network, and all of it.
"""

import json
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mixer_mlx.data.parquet import group_files
from mixer_mlx.data.table import METADATA
from mixer_mlx.errors import SourceError
from mixer_mlx.images.archives import ARCHIVE_SUFFIXES
from mixer_mlx.images.find import SUFFIXES
from mixer_mlx.runtime.atomic import replacing_file

from . import cache
from .hub_address import COMMIT, HubAddress, cache_folder, check_address
from .hub_errors import may_pass
from .listener import Listener

CONVERTED = "refs/convert/parquet"
"""The branch in which the Hub keeps its own conversion of a dataset."""

Choose = Callable[[Collection[str]], Collection[str | None]]
"""Names of a dataset's parts -> those that are needed. Raises ConfigError."""


@dataclass(frozen=True)
class Listing:
    """The files of a commit, with their sizes in bytes."""

    repo: str
    commit: str
    sizes: dict[str, int]


@dataclass(frozen=True)
class Selection:
    """Files to fetch, and where among them the dataset is: a folder or a file."""

    listing: Listing
    files: list[str]
    path: str


def fetch(address: HubAddress, choose: Choose, listener: Listener) -> Path:
    """Bring the parts of a dataset that `choose` wants to this machine: a folder, or a file.

    `address.file` is a folder or a file of the repository. Raises SourceError, and what `choose`
    raises.
    """
    selection = _select(address, choose)
    listing = selection.listing
    folder = cache_folder() / f"datasets--{listing.repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / listing.commit
    missing = [name for name in selection.files if not (snapshot / name).is_file()]
    if missing:
        total = sum(listing.sizes[name] for name in missing)
        what = f"{len(missing)} file{'s' * (len(missing) > 1)}, {total / 2**20:,.1f} MiB"
        listener.message(f"Fetching hf://datasets/{listing.repo} ({what}).")
        _get_all(listing, missing, total, listener)
    if any("partial-" in name for name in selection.files):
        listener.message(
            f"The Hub converted only the beginning of {listing.repo}; that is all there is."
        )
    return snapshot / selection.path


def _get_all(listing: Listing, names: Iterable[str], total: int, listener: Listener) -> None:
    from . import hub

    done = 0

    def report(now: int, _: int | None) -> None:
        listener.progress(done + now, total)

    for name in names:
        with hub.in_sentences(HubAddress(f"datasets/{listing.repo}", name)):
            hub.get(listing.repo, name, listing.commit, Listener(progress=report), kind="dataset")
        done += listing.sizes[name]


def _select(address: HubAddress, choose: Choose) -> Selection:
    listing = _list(address.repo, address.revision)
    names = _below(listing, address.file)
    if address.file in names:
        return Selection(listing, [address.file], address.file)
    found = _parquet(listing, names, choose)
    if found is None and address.revision is None and (converted := _converted(address.repo)):
        found = _parquet(converted, _below(converted, address.file), choose)
    return found or _as_it_is(listing, names, address.file)


def _as_it_is(listing: Listing, names: Collection[str], folder: str | None) -> Selection:
    """The only archive, or images and what describes them."""
    here = f"hf://datasets/{listing.repo}"
    archives = [name for name in names if name.lower().endswith(ARCHIVE_SUFFIXES)]
    if len(archives) == 1:
        return Selection(listing, archives, archives[0])
    if archives:
        raise SourceError(f"{here} holds several archives; name one, as {here}/{min(archives)}.")
    loose = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if loose:
        metadata = [name for name in names if PurePosixPath(name).name == METADATA]
        return Selection(listing, loose + metadata, folder or ".")
    where = f"{here}/{folder}" if folder else here
    raise SourceError(
        f"{where} holds no Parquet files, no archive and no images; look at its page for where "
        "they are."
    )


def _below(listing: Listing, folder: str | None) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    return [name for name in listing.sizes if name == folder or name.startswith(prefix)]


def _parquet(listing: Listing, names: Collection[str], choose: Choose) -> Selection | None:
    """The Parquet files of the parts that are needed; None where there are no such files."""
    found = group_files(name for name in names if name.endswith(".parquet"))
    if not found:
        return None
    if len(found) > 1:
        folders = ", ".join(sorted(found))
        raise SourceError(
            f"hf://datasets/{listing.repo} holds several datasets ({folders}); name one, as "
            f"hf://datasets/{listing.repo}/{min(found)}."
        )
    ((folder, parts),) = found.items()
    wanted = [name for part in choose(parts) if part is not None for name in parts[part]]
    return Selection(listing, wanted, folder)


def _converted(repo: str) -> Listing | None:
    try:
        return _list(repo, CONVERTED)
    except SourceError as error:
        from huggingface_hub.errors import RevisionNotFoundError

        if isinstance(error.__cause__, RevisionNotFoundError):
            return None
        raise


def _list(repo: str, revision: str | None) -> Listing:
    """Ask the Hub, or where it can't be reached take what it said before."""
    from . import hub

    record = cache.listing(repo, revision or "main")
    if COMMIT.fullmatch(revision or "") and (known := _recorded(repo, record)):
        return known
    with hub.in_sentences(HubAddress(f"datasets/{repo}", "The list of files", revision)):
        try:
            commit, sizes = hub.look_up(repo, revision, kind="dataset")
        except Exception as error:
            if may_pass(error) and (known := _recorded(repo, record)):
                return known
            raise
    for name in sizes:
        check_address(HubAddress(repo, name))
    with suppress(OSError):  # a cache that can only be read
        record.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(record) as temporary:
            temporary.write_text(json.dumps({"commit": commit, "sizes": sizes}), encoding="utf-8")
    return Listing(repo, commit, sizes)


def _recorded(repo: str, record: Path) -> Listing | None:
    try:
        known = json.loads(record.read_text("utf-8"))
        return Listing(repo, known["commit"], known["sizes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
