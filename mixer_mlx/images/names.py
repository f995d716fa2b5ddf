"""What a name says of a file: an image, clutter of the system, or a file to skip and count."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

_FORMATS = "avif bmp gif heic heif jfif jpe jpeg jpg mpo png tif tiff webp"
SUFFIXES = {f".{name}" for name in _FORMATS.split()}
"""Suffixes of images in folders and archives, in lower or upper case."""

_CLUTTER = {
    *("__macosx", ".ds_store", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", ".ipynb_checkpoints", "__pycache__", ".git"),
}
_SHOWN = 5
"""At most this many suffixes are shown."""

HIDDEN = "hidden"
LINK = "link"
BROKEN_LINK = "broken link"
FOLDER_LINK = "link to a folder"
OUTSIDE = "outside of the class folders"
UNSAFE = "with an absolute path or `..`"
SPECIAL = "neither a file nor a folder"
_SUFFIX = "suffix "


def is_clutter(name: str) -> bool:
    """Whether macOS, Windows, a NAS or a notebook makes a file or folder of this name."""
    return name.lower() in _CLUTTER or name.startswith("._")


def is_image(name: str) -> bool:
    """Whether the name of a file, without its folder, is that of an image to use."""
    return not name.startswith(".") and has_image_suffix(name)


def has_image_suffix(name: str) -> bool:
    """Whether the suffix is an image's."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def reason_to_skip(parts: Sequence[str]) -> str | None:
    """Why the file at a relative path isn't used; "" for clutter, None for an image to use."""
    if any(map(is_clutter, parts)):
        return ""
    if ".." in parts or parts[:1] == ("/",):
        return UNSAFE
    if any(part.startswith(".") for part in parts):
        return HIDDEN if has_image_suffix(parts[-1]) else ""
    return None if has_image_suffix(parts[-1]) else _SUFFIX + PurePosixPath(parts[-1]).suffix


class Skipped(Counter[str]):
    """How many files were skipped, by reason.

    `unknown_encoding` is a name in an archive that may be misread, or "".
    """

    unknown_encoding = ""

    def note(self, reason: str | None, count: int = 1) -> None:
        """Count a file, unless it is clutter or an image."""
        if reason and count:
            self[reason] += count

    def sentence(self) -> str:
        """One line, e.g. "Skipped: 3 hidden files, 40 with other suffixes (.ppm)."; or ""."""
        suffixes = [
            (reason.removeprefix(_SUFFIX), count)
            for reason, count in self.most_common()
            if reason.startswith(_SUFFIX)
        ]
        named = [suffix for suffix, _ in suffixes if suffix]
        parts = [
            *(_counted(self[kind], text) for kind, text in _TEXTS.items() if self[kind]),
            *(
                f"{sum(n for suffix, n in suffixes if suffix):,} with other suffixes "
                f"({', '.join(named[:_SHOWN])}{', ...' * (len(named) > _SHOWN)})"
                for _ in named[:1]
            ),
            *(f"{count:,} without a suffix" for suffix, count in suffixes if not suffix),
        ]
        return f"Skipped: {', '.join(parts)}." if parts else ""


_TEXTS = {
    HIDDEN: "hidden file{s}",
    LINK: "link{s} to what isn't in the archive",
    BROKEN_LINK: "broken link{s}",
    FOLDER_LINK: "link{s} to folders",
    OUTSIDE: "image{s} outside of the class folders",
    UNSAFE: "with an absolute path or `..`",
    SPECIAL: "special file{s}",
}


def _counted(count: int, text: str) -> str:
    return f"{count:,} {text.format(s='s' * (count > 1))}"
