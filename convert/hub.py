"""Weights from the Hugging Face Hub, through its own library and into its own cache.

The revision is turned into a commit first, and every file comes from that commit. What the cache
holds is used when the Hub can't be reached, and without asking for a commit that is given in full.

`HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the cache's variables are read at each call; the
library reads most of them once, when it is imported.
"""

import logging
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixer_mlx import atomic
from mixer_mlx.convert.download import Progress, check_url
from mixer_mlx.errors import SourceError

WAITS = (0.5, 1.0, 2.0)
"""Seconds before each new try when the Hub answers that it is busy or broken."""
TIMEOUT = 10.0

_CONFIG = "config.json"
_BEST = "model.safetensors"
_PICKLE = "pytorch_model.bin"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?!.*(?:--|\.\.)){_PART}/{_PART}(?<!\.git)")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9_][A-Za-z0-9_.+/-]*(?<!/)")
_FILE = re.compile(r"(?!(?:.*/)?\.{1,2}(?:/|$))[^/\\\x00-\x1f]+(?:/[^/\\\x00-\x1f]+)*")
# The Hub's own form has the revision after the repository, where its `refs/...` may hold a slash.
_ADDRESS = re.compile(
    r"hf://([^/@]+/[^/@]+)(?:@(refs/[^/@]+/[^/@]+|[^/@]+))?(?:/([^@]+))?(?:@([^@]+))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A place on the Hub; no file means the model as a whole, no revision the main branch."""

    repo: str
    file: str | None = None
    revision: str | None = None


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


def parse(text: str) -> HubAddress | None:
    """`hf://user/repo[@revision][/path/file]`, `hf://user/repo/path/file@revision` or `user/repo`.

    None when `text` is none of them. A local path can look like `user/repo`: check that first.
    Raises SourceError for an `hf://` address that is malformed.
    """
    if not text.startswith("hf://"):
        plain = _REPO.fullmatch(text) and not text.endswith((".npz", ".safetensors"))
        return HubAddress(text) if plain else None
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[2] and match[4]):
        raise SourceError(
            f"{text} is no address on the Hub; write hf://user/repo[/file][@revision]."
        )
    address = HubAddress(match[1], match[3], match[2] or match[4])
    _check(address)
    return address


def fetch(
    repo: str,
    *,
    file: str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """One file of a repository, or the weights and `config.json` of a model, in the Hub's cache.

    `repo` is `user/repo`; `revision` a branch, a tag or a commit. Without `file` the weights are
    `model.safetensors`, else the only `.safetensors`, else the only `.npz`, else
    `pytorch_model.bin`, all at the top of the repository. `progress` is told of the weights alone.
    Raises SourceError, with the Hub library's exception as its cause.
    """
    address = HubAddress(repo, file, revision)
    _check(address)
    check_url(_endpoint())
    from huggingface_hub import errors

    reasons = (errors.HTTPError, OSError, ValueError, TypeError, KeyError)  # type: ignore[attr-defined]
    with _quiet():
        try:
            return _fetch(address, progress)
        except reasons as error:
            raise SourceError(_sentence(address, error)) from error


def _fetch(address: HubAddress, progress: Progress | None) -> Fetched:
    revision = address.revision or "main"
    if _COMMIT.fullmatch(revision) and (cached := _cached(address, complete=True)):
        return cached
    try:
        commit, names = _look_up(address)
    except Exception as error:
        if _may_pass(error) and (cached := _cached(address)):
            return cached
        raise
    wanted = (address.file,) if address.file else choose(address.repo, names)
    paths = [_get(address.repo, name, commit, progress) for name in wanted]
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
        f"{_endpoint()}/{repo}/tree/main and give a file as hf://{repo}/path/file."
    )


def _look_up(address: HubAddress) -> tuple[str, list[str]]:
    """The commit behind a revision, and the names of its files: one request."""
    from huggingface_hub import HfApi, errors

    if _offline():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    api = HfApi(endpoint=_endpoint())
    for wait in (*WAITS, None):
        try:
            info = api.model_info(address.repo, revision=address.revision, timeout=TIMEOUT)
            break
        except errors.HfHubHTTPError as error:
            if wait is None or not _may_pass(error):
                raise
            time.sleep(wait)
    if not _COMMIT.fullmatch(info.sha or "") or info.siblings is None:
        raise ValueError("no commit or no files in the answer")
    return str(info.sha), [file.rfilename for file in info.siblings]


def _get(repo: str, name: str, commit: str, progress: Progress | None) -> Path:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(
        repo,
        name,
        revision=commit,
        cache_dir=_cache(),
        endpoint=_endpoint(),
        tqdm_class=_bar(None if name == _CONFIG else progress),
    )
    return Path(path)


def _bar(progress: Progress | None) -> Any:
    """A class that the Hub's library takes for tqdm's; it draws nothing and calls `progress`."""

    class Bar:
        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.n = total, initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            if progress:
                progress(self.n, self.total)

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
    folder, revision = _repo_folder(address.repo), address.revision or "main"
    if not _COMMIT.fullmatch(revision):
        with suppress(OSError, ValueError):
            revision = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / revision
    if not _COMMIT.fullmatch(revision) or not snapshot.is_dir():
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
    ref = _repo_folder(repo) / "refs" / revision
    with suppress(OSError):  # a cache that can only be read
        ref.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing_file(ref) as temporary:
            temporary.write_text(commit, encoding="utf-8")


def _check(address: HubAddress) -> None:
    """Raise SourceError for a name that the Hub can't have, or that could leave the cache."""
    for name, pattern, kind in (
        (address.repo, _REPO, "repository, it has the form user/repo"),
        (address.revision, _REVISION, "revision, like main or a commit"),
        (address.file, _FILE, "file in a repository, like folder/model.safetensors"),
    ):
        if name is not None and not pattern.fullmatch(name):
            raise SourceError(f"{name!r} can't be the name of a {kind}; check the spelling.")


def _sentence(address: HubAddress, error: BaseException) -> str:
    """What went wrong and what to do, in one sentence."""
    from huggingface_hub import errors

    repo, page = address.repo, f"{_endpoint()}/{address.repo}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return _sentence(address, error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{address.file or 'The model'} of {repo} isn't in the Hub's cache, and HF_HUB_OFFLINE "
            "forbids to fetch it; unset HF_HUB_OFFLINE and run this again."
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated; accept its terms at {page} and set HF_TOKEN to your token."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {address.revision!r}; {page}/refs lists those it has."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repo} has no file {address.file!r} there; {page}/tree/main lists its files."
    if isinstance(error, errors.HfHubHTTPError):
        return _http_sentence(repo, error)
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]
        detail = str(error).partition("\n")[0] or type(error).__name__
        return (
            f"The connection to {_endpoint()} failed ({detail}); check the network and try again."
        )
    if isinstance(error, errors.FileMetadataError) or not isinstance(error, OSError):
        return f"{_endpoint()} doesn't answer as the Hub does ({error!r}); check HF_ENDPOINT."
    if error.errno is None:  # the library's own check of the size
        return f"A file of {repo} came incomplete; run this again."
    return (
        f"{_cache()} can't take the files of {repo}: {error.strerror}; make room there, or set "
        "HF_HOME to a folder that can be written to."
    )


def _http_sentence(repo: str, error: Any) -> str:
    code = error.response.status_code
    if code == 401 and "Invalid credentials" in str(error):
        page = f"{_endpoint()}/settings/tokens"
        return f"The Hub doesn't know the token in HF_TOKEN; make a new one at {page}."
    if code == 401:  # the Hub doesn't say which, to who may not know
        return (
            f"There is no repository {repo} on the Hub, or it is private; check the spelling, or "
            "set HF_TOKEN to a token that may read it."
        )
    if code == 404:
        return f"There is no repository {repo} on the Hub that you may read; check the spelling."
    if code == 403:
        return f"The Hub refuses {repo} to you (403); set HF_TOKEN to a token that may read it."
    if code == 429:
        return "The Hub wants fewer requests (429); wait some minutes, or set HF_TOKEN."
    return f"The Hub fails ({code}) at {repo}; try again later."


def _may_pass(error: Exception) -> bool:
    """Whether the Hub wasn't reached, or could answer otherwise another time."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, (errors.OfflineModeIsEnabled, errors.HTTPError))  # type: ignore[attr-defined]


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    old = os.environ.get("HUGGINGFACE_HUB_CACHE")
    cache = os.environ.get("HF_HUB_CACHE") or old or f"{home}/hub"
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def _repo_folder(repo: str) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}"
