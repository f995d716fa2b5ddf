"""What macOS adds to folders, and what it keeps programs from reading."""

from pathlib import Path


def is_added(name: str) -> bool:
    """Whether macOS makes files of this name in any folder, whenever it likes.

    `.DS_Store` holds the Finder's view of a folder; `._NAME` the attributes of NAME, on disks that
    can't store them.
    """
    return name == ".DS_Store" or name.startswith("._")


def entries(folder: Path) -> list[Path]:
    """What a folder contains, without what macOS adds. Raises OSError."""
    return [path for path in folder.iterdir() if not is_added(path.name)]
