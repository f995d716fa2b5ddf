"""What macOS adds to folders, and what it keeps programs from reading."""

import errno
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

_ORIGINALS = {
    ".photoslibrary": "originals",
    ".photolibrary": "Masters",
    ".migratedphotolibrary": "Masters",
    ".aplibrary": "Masters",
}
"""Libraries of Photos, iPhoto and Aperture -> the folder in them with the user's own files."""

_BUNDLES = (
    *(".app", ".fcpbundle", ".imovielibrary", ".lrdata", ".musiclibrary", ".theater"),
    ".tvlibrary",
)
"""Folders that the Finder shows as one file, with images of their program's in them."""


def is_added(name: str) -> bool:
    """Whether macOS makes files of this name in any folder, whenever it likes.

    `.DS_Store` holds the Finder's view of a folder; `._NAME` the attributes of NAME, on disks that
    can't store them.
    """
    return name == ".DS_Store" or name.startswith("._")


def entries(folder: Path) -> list[Path]:
    """What a folder contains, without what macOS adds. Raises OSError."""
    return [path for path in folder.iterdir() if not is_added(path.name)]


def own_folders(parent: str, names: Iterable[str]) -> list[str]:
    """Those folders in `parent` that may hold images of the user's, not a program's.

    A RuntimeWarning says what is passed over.
    """
    originals = _ORIGINALS.get(os.path.splitext(parent.rstrip("/"))[1].lower())
    names = list(names)
    if originals in names:
        warnings.warn(
            f"Of {parent} only `{originals}` is read, not the smaller copies beside it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return [originals]
    own = [name for name in names if not name.lower().endswith(_BUNDLES)]
    if len(own) < len(names):
        warnings.warn(
            "Applications and libraries of films and music are passed over; name one to read it.",
            RuntimeWarning,
            stacklevel=2,
        )
    return own


def refusal(error: PermissionError) -> str:
    """What forbids reading a file or folder, and the next step, as a sentence."""
    if sys.platform == "darwin" and error.errno == errno.EPERM:
        return (
            "macOS doesn't let this program read it; allow your terminal in System Settings > "
            "Privacy & Security > Files and Folders (or Full Disk Access)."
        )
    return "You may not read the file; change its permissions."
