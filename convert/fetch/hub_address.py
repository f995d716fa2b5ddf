"""Addresses on the Hugging Face Hub: what they look like, and which names are refused."""

import re
from dataclasses import dataclass

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

    None for any other text. A local path can look like `user/repo`: check that first. Raises
    SourceError for a malformed `hf://` address.
    """
    if not text.startswith("hf://"):
        plain = _REPO.fullmatch(text) and not text.endswith((".npz", ".safetensors", ".pth", ".pt"))
        return HubAddress(text) if plain else None
    match = _ADDRESS.fullmatch(text)
    if match is None or (match[2] and match[4]):
        raise SourceError(
            f"{text} isn't an address on the Hub; write hf://user/repo[@revision][/file]."
        )
    address = HubAddress(match[1], match[3], match[2] or match[4])
    check_address(address)
    return address


def check_address(address: HubAddress) -> None:
    """Raise SourceError for a name that the Hub can't have, or that could leave the cache."""
    for name, pattern, kind in (
        (address.repo, _REPO, "repository name (user/repo)"),
        (address.revision, _REVISION, "revision (a branch, a tag or a commit)"),
        (address.file, _FILE, "file name in a repository (folder/model.safetensors)"),
    ):
        if name is not None and not pattern.fullmatch(name):
            raise SourceError(f"{name!r} isn't a valid {kind}; check the spelling.")
