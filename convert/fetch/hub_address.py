"""Where something is on the Hugging Face Hub, and where the Hub and its cache are.

The environment (`HF_ENDPOINT`, `HF_HUB_OFFLINE` and the cache's variables) is read at each call;
the Hub's library reads most of it once, when it is imported.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mixer_mlx.errors import SourceError

COMMIT = re.compile(r"[0-9a-f]{40}")
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
    check_address(address)
    return address


def check_address(address: HubAddress) -> None:
    """Raise SourceError for a name that the Hub can't have, or that could leave the cache."""
    for name, pattern, kind in (
        (address.repo, _REPO, "repository, it has the form user/repo"),
        (address.revision, _REVISION, "revision, like main or a commit"),
        (address.file, _FILE, "file in a repository, like folder/model.safetensors"),
    ):
        if name is not None and not pattern.fullmatch(name):
            raise SourceError(f"{name!r} can't be the name of a {kind}; check the spelling.")


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    old = os.environ.get("HUGGINGFACE_HUB_CACHE")
    cache = os.environ.get("HF_HUB_CACHE") or old or f"{home}/hub"
    return Path(os.path.expandvars(os.path.expanduser(cache)))


def repo_folder(repo: str) -> Path:
    return cache_folder() / f"models--{repo.replace('/', '--')}"
