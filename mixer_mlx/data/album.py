"""A folder of classes that grows: DIR/<class>/<images>, every change on disk at once.

Nothing is deleted: an image that is taken back lies in DIR/.removed/<class>/ afterwards. Names come
from strangers, so a class is a folder that lies directly in DIR and isn't a link, and its name is
checked as a folder's name before anything else looks at it.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.decode import opened, rgb
from mixer_mlx.images.find import images_below
from mixer_mlx.images.names import is_clutter
from mixer_mlx.labels import canonical
from mixer_mlx.runtime.atomic import written_file
from mixer_mlx.runtime.documents import parse_json, read_text
from mixer_mlx.runtime.files import MAX_NAME_BYTES

REMOVED = ".removed"
CONFIRMED_FILE = ".confirmed.json"
"""Images whose class somebody confirmed: a list of <class>/<image>."""
MAX_CLASSES = 1_000
MAX_IMAGES = 50_000
"""Of all classes together."""

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
_FORBIDDEN = '/\\:*?"<>|'
"""Separators, and what some file systems don't allow."""


def check_class_name(name: str) -> str:
    """The name of a class in NFC, if it can be that of a folder on every file system.

    Raises ConfigError.
    """
    name = canonical(name)
    bad = [char for char in name if char in _FORBIDDEN or unicodedata.category(char)[0] == "C"]
    if not name or bad:
        raise ConfigError(
            f"{name!r} can't be a class: it needs a name without {' '.join(_FORBIDDEN)} and "
            "control characters."
        )
    if name != name.strip() or name.startswith(".") or name.endswith(".") or is_clutter(name):
        raise ConfigError(
            f"{name!r} can't be a class: a folder's name neither begins nor ends with a dot or a "
            "space, and isn't one that systems use."
        )
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise ConfigError(f"The name {name[:40]}... is too long; use {MAX_NAME_BYTES} bytes.")
    return name


class Album:
    """The classes in a folder, which is made if its parent exists. Raises ConfigError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._undo: list[tuple[Path, Path]] = []  # where an image is, and where it was
        self._confirmed = _read_confirmed(folder / CONFIRMED_FILE)
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {folder} can't be made: {error.strerror}.") from error
        for name in self.classes():
            if any(map(os.path.isdir, _entries(folder / name))):
                raise ConfigError(
                    f"{folder / name} isn't a class; expected one folder per class, with the "
                    f"images directly in it: {folder}/<class>/*.jpg."
                )

    def classes(self) -> list[str]:
        """Names of the classes, sorted as `fine-tune` sorts them."""
        found = (entry.name for entry in os.scandir(self.folder) if _is_class(entry))
        return sorted(found, key=canonical)

    def images(self) -> Iterator[Path]:
        """All images, class by class; links aren't followed."""
        for name in self.classes():
            found = map(Path, images_below(str(self.folder / name)))
            yield from (path for path in found if not path.is_symlink())

    def class_of(self, image: Path) -> str:
        """The class of an image in the album."""
        return image.relative_to(self.folder).parts[0]

    def make(self, name: str) -> str:
        """Make a class; returns its name. Raises ConfigError."""
        name = check_class_name(name)
        existing = self.classes()
        self._check_free(name, existing)
        if len(existing) >= MAX_CLASSES:
            raise ConfigError(f"There are {MAX_CLASSES:,} classes already; use fewer.")
        try:
            (self.folder / name).mkdir()
        except OSError as error:
            raise ConfigError(f"{self.folder / name} can't be made: {error.strerror}.") from error
        return name

    def rename(self, old: str, new: str) -> str:
        """Rename a class and its folder; returns the name. Raises ConfigError."""
        self._check_class(old)
        new = check_class_name(new)
        self._check_free(new, [name for name in self.classes() if name != old])
        if new != old:
            try:
                (self.folder / old).rename(self.folder / new)
            except OSError as error:
                raise ConfigError(f"{old} can't be renamed: {error.strerror}.") from error
            # What was taken back stays below the old name, and returns to the new one.
            self._undo = [(now, self._renamed(was, old, new)) for now, was in self._undo]
            self._undo = [(self._renamed(now, old, new), was) for now, was in self._undo]
            paths = [self._renamed(self.folder / name, old, new) for name in self._confirmed]
            self._confirmed = {self._key(path) for path in paths}
            self._write_confirmed()
        return new

    def add(self, name: str, data: bytes) -> Path | None:
        """Write an image's file into a class, under a name made of its content.

        Returns its path, or None if the class has it already. Raises ImageError for what can't be
        decoded, and ConfigError.
        """
        self._check_class(name)
        with opened(data) as image:
            kind = image.format or ""
            rgb(image)
        digest = hashlib.sha256(data).hexdigest()[:16]
        path = self.folder / name / f"{digest}{_SUFFIXES.get(kind, f'.{kind.lower()}')}"
        if path.exists():
            return None
        with written_file(path, ConfigError) as temporary:
            temporary.write_bytes(data)
        return path

    def remove(self, image: Path) -> None:
        """Take an image back: move it to `.removed`. Raises ConfigError if it isn't there."""
        self._move(image, self.folder / REMOVED / self.class_of(image))

    def relabel(self, image: Path, name: str) -> Path:
        """Move an image to another class; returns its path. Raises ConfigError."""
        self._check_class(name)
        moved = image if self.class_of(image) == name else self._move(image, self.folder / name)
        self.confirm(moved)
        return moved

    def confirm(self, image: Path) -> None:
        """Note, for good, that somebody looked at an image and its class is right."""
        self._confirmed.add(self._key(image))
        self._write_confirmed()

    def is_confirmed(self, image: Path) -> bool:
        """Whether somebody did."""
        return self._key(image) in self._confirmed

    def _key(self, image: Path) -> str:
        return image.relative_to(self.folder).as_posix()

    def _write_confirmed(self) -> None:
        with written_file(self.folder / CONFIRMED_FILE, ConfigError) as temporary:
            temporary.write_text(json.dumps(sorted(self._confirmed)), "ascii")

    def undo(self) -> tuple[Path, Path] | None:
        """Take the last `remove` or `relabel` back: where the image was, and where it is.

        None if there is nothing to take back. Raises ConfigError.
        """
        if not self._undo:
            return None
        now, was = self._undo.pop()
        self._check_class(self.class_of(was))
        back = self._moved(now, was.parent, was.name)
        return now, back

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return bool(self._undo)

    def _move(self, image: Path, folder: Path) -> Path:
        target = self._moved(image, folder, image.name)
        self._undo.append((target, image))
        return target

    def _moved(self, image: Path, folder: Path, name: str) -> Path:
        if folder.is_symlink() or folder.parent.is_symlink():
            raise ConfigError(f"{folder} is a link; nothing is moved there.")
        folder.mkdir(parents=True, exist_ok=True)
        target = _free(folder / name)
        try:
            image.rename(target)
        except OSError as error:
            raise ConfigError(f"{image} can't be moved: {error.strerror}.") from error
        return target

    def _renamed(self, path: Path, old: str, new: str) -> Path:
        return self.folder / new / path.name if path.parent == self.folder / old else path

    def _check_class(self, name: str) -> None:
        if name not in self.classes():
            raise ConfigError(f"There is no class {name!r}; make it first.")

    def _check_free(self, name: str, others: list[str]) -> None:
        if any(name.casefold() == canonical(other).casefold() for other in others):
            raise ConfigError(f"There is a class {name!r} already; choose another name.")
        if os.path.lexists(self.folder / name) and name.casefold() not in map(
            str.casefold, self.classes()
        ):
            raise ConfigError(f"{self.folder / name} is no folder of images; choose another name.")


def _read_confirmed(path: Path) -> set[str]:
    """The names in the file; none if it is missing or damaged, as they can be confirmed again."""
    with suppress(ConfigError, OSError):
        values = parse_json(read_text(path))
        if isinstance(values, list):
            return {value for value in values if isinstance(value, str)}
    return set()


def _is_class(entry: "os.DirEntry[str]") -> bool:
    hidden = entry.name.startswith(".") or is_clutter(entry.name)
    return not hidden and entry.is_dir(follow_symlinks=False)


def _entries(folder: Path) -> list[str]:
    return [entry.path for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _free(path: Path) -> Path:
    """The path, or with a number if there is a file of that name."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
