"""Weights from the Hugging Face Hub, through its own library and into its own cache.

The revision is turned into a commit first, and every file comes from that commit. What the cache
holds is used when the Hub can't be reached, and without asking for a commit that is given in full.
"""

import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer_mlx.errors import SourceError
from mixer_mlx.runtime import atomic

from .hub_address import (
    COMMIT,
    HubAddress,
    cache_folder,
    check_address,
    endpoint,
    offline,
    parse,
    repo_folder,
)
from .hub_errors import may_pass, sentence
from .listener import SILENT, Listener
from .web import check_url

__all__ = ["Fetched", "HubAddress", "choose", "fetch", "get", "in_sentences", "look_up", "parse"]

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each new try when the Hub answers that it is busy or broken."""
TIMEOUT = 10.0

_CONFIG = "config.json"
_BEST = "model.safetensors"
_PICKLE = "pytorch_model.bin"


@dataclass(frozen=True)
class Fetched:
    """Files of one commit that lie in the Hub's cache.

    `path` is the file asked for, or the folder of `files`: the weights, and before them
    `config.json` where there is one. The folder may hold what was fetched at other times too.
    `revision` is the commit, 40 hexadecimal digits.
    """

    path: Path
    repo: str
    revision: str
    files: tuple[str, ...]


def fetch(
    repo: str,
    *,
    file: str | None = None,
    revision: str | None = None,
    listener: Listener = SILENT,
) -> Fetched:
    """One file of a repository, or the weights and `config.json` of a model, in the Hub's cache.

    `repo` is `user/repo`; `revision` a branch, a tag or a commit. Without `file` the weights are
    `model.safetensors`, else the only `.safetensors`, else the only `.npz`, else
    `pytorch_model.bin`, all at the top of the repository. the listener hears of the bytes of the weights alone.
    Raises SourceError, with the Hub library's exception as its cause.
    """
    address = HubAddress(repo, file, revision)
    check_address(address)
    with in_sentences(address):
        return _fetch(address, listener)


@contextmanager
def in_sentences(address: HubAddress) -> Iterator[None]:
    """What the Hub's library raises as SourceError about `address`, and nothing from its log."""
    check_url(endpoint())
    from huggingface_hub import errors

    reasons = (errors.HTTPError, OSError, ValueError, TypeError, KeyError)  # type: ignore[attr-defined]
    with _quiet():
        try:
            yield
        except reasons as error:
            raise SourceError(sentence(address, error)) from error


def _fetch(address: HubAddress, listener: Listener) -> Fetched:
    revision = address.revision or "main"
    if COMMIT.fullmatch(revision) and (cached := _cached(address, complete=True)):
        return cached
    try:
        commit, names = look_up(address.repo, address.revision)
    except Exception as error:
        if may_pass(error) and (cached := _cached(address)):
            return cached
        raise
    wanted = (address.file,) if address.file else choose(address.repo, names)
    paths = [
        get(address.repo, name, commit, SILENT if name == _CONFIG else listener) for name in wanted
    ]
    if revision != commit:
        _remember(address.repo, revision, commit)
    path = paths[-1] if address.file else paths[-1].parent
    return Fetched(path, address.repo, commit, wanted)


def choose(repo: str, names: Collection[str]) -> tuple[str, ...]:
    """Which files of a repository make the model: `config.json` if there, and last the weights."""
    config = (_CONFIG,) if _CONFIG in names else ()
    if _BEST in names:
        return (*config, _BEST)
    for suffix in (".safetensors", ".npz"):
        found = sorted(name for name in names if name.endswith(suffix) and "/" not in name)
        if len(found) == 1:
            return (*config, found[0])
        if found:
            raise SourceError(
                f"{repo} holds {len(found)} files that could be the weights; give one, like "
                f"hf://{repo}/{found[0]}."
            )
    if _PICKLE in names:
        return (*config, _PICKLE)
    raise SourceError(
        f"{repo} holds no weights (.safetensors or .npz) at its top; look at "
        f"{endpoint()}/{repo}/tree/main and give a file as hf://{repo}/path/file."
    )


def look_up(repo: str, revision: str | None, kind: str = "model") -> tuple[str, dict[str, int]]:
    """The commit behind a revision, and its files with their sizes: one request.

    `kind` is "model" or "dataset"; sizes are asked for and known of a dataset alone, else 0. Raises
    what the Hub's library raises.
    """
    from huggingface_hub import HfApi, errors

    if offline():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    api = HfApi(endpoint=endpoint())
    info: Any
    for wait in (*WAITS, None):
        try:
            if kind == "dataset":
                info = api.dataset_info(
                    repo, revision=revision, timeout=TIMEOUT, files_metadata=True
                )
            else:
                info = api.model_info(repo, revision=revision, timeout=TIMEOUT)
            break
        except errors.HfHubHTTPError as error:
            if wait is None or not may_pass(error):
                raise
            time.sleep(wait)
    if not COMMIT.fullmatch(info.sha or "") or info.siblings is None:
        raise ValueError("no commit or no files in the answer")
    return str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings}


def get(repo: str, name: str, commit: str, listener: Listener, kind: str = "model") -> Path:
    """A file of a commit in the Hub's cache, from where it is taken if it is there.

    Raises what the Hub's library raises.
    """
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(
        repo,
        name,
        repo_type=kind,
        revision=commit,
        cache_dir=cache_folder(),
        endpoint=endpoint(),
        tqdm_class=_bar(listener),
    )
    return Path(path)


def _bar(listener: Listener) -> Any:
    """A class that the Hub's library takes for tqdm's; it draws nothing and calls `listener.progress`."""

    class Bar:
        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.n = total, initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            listener.progress(self.n, self.total)

        def ignore(self, *_: object, **__: object) -> None:
            pass

        close = refresh = set_postfix_str = ignore
        update_transfer = set_transfer_postfix_str = ignore  # bytes that `update` counts as well

    return Bar


@contextmanager
def _quiet() -> Iterator[None]:
    """The Hub's library logs each retry and some advice to stderr; not unless it was asked to."""
    from huggingface_hub import logging as hub_logging

    level = hub_logging.get_verbosity()
    if not os.environ.get("HF_HUB_VERBOSITY") and not os.environ.get("HF_DEBUG"):
        hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def _cached(address: HubAddress, *, complete: bool = False) -> Fetched | None:
    """What the cache holds of an address, or None; read as the Hub documents its layout.

    A repository's names aren't cached, so the weights are chosen among the files that are there.
    With `complete` only what no other file could outdo counts.
    """
    folder, revision = repo_folder(address.repo), address.revision or "main"
    if not COMMIT.fullmatch(revision):
        with suppress(OSError, ValueError):
            revision = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / revision
    if not COMMIT.fullmatch(revision) or not snapshot.is_dir():
        return None
    if address.file:
        path = snapshot / address.file
        found = Fetched(path, address.repo, revision, (address.file,))
        return found if path.is_file() else None
    names = {path.name for path in snapshot.iterdir() if path.is_file()}
    if complete and not names >= {_CONFIG, _BEST}:
        return None
    with suppress(SourceError):
        return Fetched(snapshot, address.repo, revision, choose(address.repo, names))
    return None


def _remember(repo: str, revision: str, commit: str) -> None:
    """Note in the cache what a branch or tag was, for the time when the Hub can't be reached."""
    ref = repo_folder(repo) / "refs" / revision
    with suppress(OSError):  # a cache that can only be read
        ref.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing_file(ref) as temporary:
            temporary.write_text(commit, encoding="utf-8")
