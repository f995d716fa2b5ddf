"""Weights from the Hugging Face Hub, through its own library and into its own cache.

The revision is resolved to a commit first, and every file comes from that commit. What the cache
holds is used if the Hub can't be reached, and without a request if the commit is given in full.
"""

import logging
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, hf_hub_download, snapshot_download
from huggingface_hub import logging as hub_logging
from huggingface_hub.file_download import repo_folder_name

from mixer_mlx.errors import SourceError
from mixer_mlx.runtime import atomic
from mixer_mlx.runtime.macos import is_added

from .download import Fetched
from .hub_address import COMMIT, HubAddress, check_address
from .listener import SILENT, Listener
from .web import check_url

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each retry when the Hub answers that it is busy or broken."""
TIMEOUT = 10.0

_CONFIG = "config.json"
_BEST = "model.safetensors"
_PICKLE = "pytorch_model.bin"
ODD_ANSWERS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, RecursionError, MemoryError),
)
HTTP_ERROR: Any = errors.HTTPError  # type: ignore[attr-defined]  # that of the library's client


def fetch(
    repo: str,
    *,
    file: str | None = None,
    revision: str | None = None,
    listener: Listener = SILENT,
) -> Fetched:
    """One file of a repository, or a model's weights and `config.json`, in the Hub's cache.

    `repo` is `user/repo`; `revision` a branch, a tag or a commit. Without `file` the weights are
    `model.safetensors`, else the only `.safetensors`, else the only `.npz`, else
    `pytorch_model.bin`, all in the top folder. The listener gets the progress of the weights only.
    Raises SourceError, with the Hub library's exception as its cause.
    """
    address = HubAddress(repo, file, revision)
    check_address(address)
    with in_sentences(address):
        return _fetch(address, listener)


def _fetch(address: HubAddress, listener: Listener) -> Fetched:
    repo, revision = address.repo, address.revision or constants.DEFAULT_REVISION
    if COMMIT.fullmatch(revision) and (cached := _cached(address, complete=True)):
        return cached
    try:
        info = repo_info(repo, address.revision)
        commit, names = _contents(info)
    except Exception as error:
        if may_pass(error) and (cached := _cached(address)):
            return cached
        raise
    wanted = (address.file,) if address.file else choose(repo, names)
    if (licence := _licence(info)) and _limits(licence):
        listener.message(f"The licence of {repo}, {licence}, may not allow your use; read it.")
    for name in wanted:
        get(repo, name, commit, SILENT if name == _CONFIG else listener)
    folder = snapshot(repo, commit)
    if revision != commit:
        _remember(folder, revision)
    return Fetched(folder / (address.file or ""), commit, wanted, licence)


def choose(repo: str, names: Collection[str]) -> tuple[str, ...]:
    """Which files of a repository make the model: `config.json` if it exists, last the weights."""
    config = (_CONFIG,) if _CONFIG in names else ()
    if _BEST in names:
        return (*config, _BEST)
    own = [name for name in names if "/" not in name and not is_added(name)]
    for suffix in (".safetensors", ".npz"):
        found = sorted(name for name in own if name.endswith(suffix))
        if len(found) == 1:
            return (*config, found[0])
        if found:
            raise SourceError(
                f"{repo} has {len(found)} files that could be the weights; name one, e.g. "
                f"hf://{repo}/{found[0]}."
            )
    if _PICKLE in names:
        return (*config, _PICKLE)
    raise SourceError(
        f"{repo} has no weights (.safetensors or .npz) in its top folder; choose a file at "
        f"{constants.ENDPOINT}/{repo}/tree/main and name it as hf://{repo}/path/file."
    )


def look_up(repo: str, revision: str | None, kind: str = "model") -> tuple[str, dict[str, int]]:
    """The commit behind a revision, and the sizes of its files in bytes (of a model 0).

    `kind` is "model" or "dataset". One request; raises what the Hub's library raises.
    """
    return _contents(repo_info(repo, revision, kind))


def repo_info(repo: str, revision: str | None, kind: str = "model") -> Any:
    """What the Hub's library knows of a repository, by one request."""
    for wait in (*WAITS, None):
        try:
            return HfApi().repo_info(
                repo,
                repo_type=kind,
                revision=revision,
                timeout=TIMEOUT,
                files_metadata=kind == "dataset",
            )
        except errors.HfHubHTTPError as error:
            if wait is None or not may_pass(error):
                raise
            time.sleep(wait)
    raise AssertionError


def _contents(info: Any) -> tuple[str, dict[str, int]]:
    if not COMMIT.fullmatch(info.sha or "") or info.siblings is None:
        raise ValueError("no commit or no files in the answer")
    return str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings}


def _licence(info: Any) -> str | None:
    """The licence on a repository's card, e.g. "apache-2.0"."""
    tags = info.tags if isinstance(info.tags, list) else []
    return next((tag[len("license:") :] for tag in tags if str(tag).startswith("license:")), None)


def _limits(licence: str) -> bool:
    """Whether a licence, by its name on the Hub, forbids some uses, e.g. commercial ones."""
    words = re.split("[^a-z]+", licence.lower())
    return bool({"nc", "noncommercial", "research", "other", "unknown"} & set(words))


def get(repo: str, name: str, commit: str, listener: Listener, kind: str = "model") -> None:
    """Bring a file of a commit into the Hub's cache, unless it is there.

    Raises what the Hub's library raises.
    """
    hf_hub_download(repo, name, repo_type=kind, revision=commit, tqdm_class=_bar(listener))


def snapshot(repo: str, commit: str, kind: str = "model") -> Path:
    """The folder of the Hub's cache for the files of a commit."""
    folder = repo_folder_name(repo_id=repo, repo_type=kind)
    return Path(constants.HF_HUB_CACHE, folder, "snapshots", commit)


def _bar(listener: Listener) -> Any:
    """Stands in for tqdm's class in the Hub's library; draws nothing and calls the listener."""

    class TqdmBar:
        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.n = total, initial

        def __enter__(self) -> "TqdmBar":
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

    return TqdmBar


def _cached(address: HubAddress, *, complete: bool = False) -> Fetched | None:
    """What the cache holds of an address, or None.

    The weights are chosen among the files that are there; with `complete`, only those count that
    no other file of the repository could replace.
    """
    try:
        folder = Path(
            snapshot_download(
                address.repo, revision=address.revision, local_files_only=True, allow_patterns=[]
            )
        )
    except OSError:
        return None
    if address.file:
        path = folder / address.file
        return Fetched(path, folder.name, (address.file,)) if path.is_file() else None
    names = {path.name for path in folder.iterdir() if path.is_file()}
    if complete and not names >= {_CONFIG, _BEST}:
        return None
    with suppress(SourceError):
        return Fetched(folder, folder.name, choose(address.repo, names))
    return None


def _remember(folder: Path, revision: str) -> None:
    """Record in the cache the commit of a branch or tag, for when the Hub can't be reached."""
    ref = folder.parents[1] / "refs" / revision
    with suppress(OSError):  # a cache that can only be read
        ref.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing_file(ref) as temporary:
            temporary.write_text(folder.name, encoding="utf-8")


# Errors


@contextmanager
def in_sentences(address: HubAddress) -> Iterator[None]:
    """Turn what the Hub's library raises into SourceErrors about `address`, and mute its log."""
    check_url(constants.ENDPOINT)
    with quiet():
        try:
            yield
        except (HTTP_ERROR, *ODD_ANSWERS) as error:
            raise SourceError(_sentence(address, error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep retries and advice off stderr, unless the user asked for the Hub library's log."""
    level = hub_logging.get_verbosity()
    if not os.environ.get("HF_HUB_VERBOSITY") and not constants.HF_DEBUG:
        hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def may_pass(error: Exception) -> bool:
    """Whether the Hub wasn't reached, or could answer otherwise another time."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (errors.OfflineModeIsEnabled, HTTP_ERROR))


def _sentence(address: HubAddress, error: BaseException) -> str:
    """What went wrong and what to do, in one sentence."""
    repo, page = address.repo, f"{constants.ENDPOINT}/{address.repo}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return _sentence(address, error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{address.file or 'The model'} of {repo} isn't in the Hub's cache, and HF_HUB_OFFLINE "
            "forbids downloads; unset HF_HUB_OFFLINE and run this again."
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated; accept its terms at {page} and set HF_TOKEN to your token."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {address.revision!r}; choose one listed at {page}/refs."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repo} has no file {address.file!r}; choose one listed at {page}/tree/main."
    if isinstance(error, errors.HfHubHTTPError):
        return _http_sentence(repo, error)
    if isinstance(error, HTTP_ERROR):
        detail = str(error).partition("\n")[0] or type(error).__name__
        return (
            f"The connection to {constants.ENDPOINT} failed ({detail}); check the network and try "
            "again."
        )
    if isinstance(error, errors.FileMetadataError) or not isinstance(error, OSError):
        return f"{constants.ENDPOINT} didn't answer like the Hub ({error!r}); check HF_ENDPOINT."
    if error.errno is None:  # the library's own check of the size
        return f"A file of {repo} arrived incomplete; run this again."
    return (
        f"The files of {repo} can't be stored in {constants.HF_HUB_CACHE} ({error.strerror}); free "
        "some space there, or set HF_HOME to a folder that you can write to."
    )


def _http_sentence(repo: str, error: Any) -> str:
    code = error.response.status_code
    if code == 401 and "Invalid credentials" in str(error):
        page = f"{constants.ENDPOINT}/settings/tokens"
        return f"The Hub doesn't accept the token in HF_TOKEN; create a new one at {page}."
    if code == 401:  # without a token, the Hub doesn't say which
        return (
            f"There is no repository {repo} on the Hub, or it is private; check the spelling, or "
            "set HF_TOKEN to a token that may read it."
        )
    if code == 404:
        return f"There is no repository {repo} on the Hub that you may read; check the spelling."
    if code == 403:
        return f"The Hub denies access to {repo} (403); set HF_TOKEN to a token that may read it."
    if code == 429:
        return "The Hub is limiting requests (429); wait a few minutes, or set HF_TOKEN."
    return f"The Hub failed to serve {repo} ({code}); try again later."
