"""`--sort-into`: copy or link images into one folder per class.

Nothing is ever moved, deleted or overwritten. If a name is taken, the new file gets a number
(`cat-2.jpg`), unless the file there has the same content: then there is nothing to do.
"""

import errno
import hashlib
import os
import shutil
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BufferedReader, BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mixer_mlx.errors import ImageError, MixerError
from mixer_mlx.runtime.files import beside, open_regular

from ..terminal import output

if TYPE_CHECKING:
    from mixer_mlx import Result
    from mixer_mlx.images.decode import LazyImage

    Original = Path | LazyImage

UNSURE = "unsure"
_MAX_BYTES = 100
_CHUNK = 2**20
_OF_THE_DISK = {errno.EDQUOT, errno.ENOSPC, errno.EROFS}
"""Errors after which no other image could be written either."""


def folder_names(labels: Sequence[str]) -> list[str]:
    """A safe, unique folder name for each class.

    Characters that some file systems don't allow become `_`, control and direction characters
    escapes; dots and spaces at the ends are removed, long names cut. A name that a file system
    might confuse with an earlier one, or with `unsure`, gets its class index: `crane-517`.
    """
    taken = {UNSURE}
    names = []
    for index, label in enumerate(labels):
        name = _safe(label) or f"class {index}"
        if _key(name) in taken:
            name = f"{name}-{index}"
        while _key(name) in taken:
            name += "_"
        taken.add(_key(name))
        names.append(name)
    return names


def _safe(label: str) -> str:
    text = output.printable(unicodedata.normalize("NFC", label))
    text = "".join("_" if char in '/\\:*?"<>|' else char for char in text)
    return text.strip(". ").encode()[:_MAX_BYTES].decode("utf-8", "ignore").rstrip(". ")


def _key(name: str) -> str:
    """Equal for names that a case-insensitive disk, such as macOS's, takes for the same."""
    return unicodedata.normalize("NFD", name).casefold()


def name_key(folder: Path) -> Callable[[str], str]:
    """A function that is equal for names that the folder's disk takes for the same.

    Nothing is written: the disk shows how it compares names by what is there already.
    """
    if _ignores_case(folder):
        return _key
    return partial(unicodedata.normalize, "NFD") if sys.platform == "darwin" else str


def _ignores_case(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    for path in _known_names(folder.resolve()):
        other = path.with_name(path.name.swapcase())
        if path.name.isascii() and other != path:
            return other.exists() and other.samefile(path)
    return sys.platform == "darwin"


def _known_names(folder: Path) -> Iterator[Path]:
    """Existing paths whose last name lies on the folder's disk."""
    with suppress(OSError):
        yield from folder.iterdir()
    if not folder.is_mount():
        yield folder


@dataclass
class Sorter:
    """Sorts the images of results; `folders` has a name per class, `dry_run` only prints.

    Links have absolute targets. Images in archives can be copied, not linked.
    """

    root: Path
    folders: Sequence[str]
    link: bool = False
    dry_run: bool = False
    quiet: bool = False
    _done: int = 0
    _left_out: int = 0
    failed: int = 0
    _planned: dict[Path, "Original"] = field(default_factory=dict)
    _namesakes: dict[Path, "_Namesakes"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._name_key = name_key(self.root) if self.dry_run else str

    def add(self, result: "Result") -> None:
        """Put an image into the folder of its class; one that can't be read is skipped.

        An image that can't be copied or linked is reported and counted. Raises MixerError if the
        disk is full or can't be written.
        """
        if result.error is not None:
            return
        source = self._source(result.image)
        if source is None:
            self._left_out += 1
            return
        best = result.predictions[0].index if result.predictions else None
        folder = UNSURE if best is None else self.folders[best]
        target = None
        try:
            self._make(self.root / folder)
            target = self._place(source, self.root / folder)
        except ImageError:  # the archive no longer has it
            self._left_out += 1
        except OSError as error:
            if error.errno in _OF_THE_DISK:
                raise MixerError(
                    f"{source} can't be put into {self.root / folder}: {error.strerror}. "
                    "Sorted images stay, and running the same command again skips them."
                ) from error
            self.failed += 1
            output.say(f"{source} can't be put into {self.root / folder}: {error.strerror}.")
        if target is not None:
            self._done += 1

    def finish(self) -> None:
        """Report what was done."""
        if self._left_out:
            output.say(
                f"Skipped as not files of their own: {_images(self._left_out)}; "
                + ("without --link they are copied." if self.link else "save them as files first.")
            )
        if not self.quiet and not self.dry_run:
            verb = "Linked" if self.link else "Copied"
            output.say(f"{verb} {_images(self._done)} into {self.root}.")

    def _source(self, image: object) -> "Original | None":
        from mixer_mlx.images.decode import LazyImage

        if isinstance(image, str | os.PathLike):
            return Path(image)
        return image if isinstance(image, LazyImage) and not self.link else None

    def _make(self, folder: Path) -> None:
        """Make the folder of a class. Raises MixerError."""
        if self.dry_run:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MixerError(
                f"The folder {folder} can't be made: {error.strerror}; choose another place for "
                "--sort-into."
            ) from error

    def _place(self, source: "Original", folder: Path) -> Path | None:
        """Where the image was put; None if it was there before."""
        base = PurePosixPath(str(source)).name
        name = source if isinstance(source, Path) else Path(_safe(base) or "image")
        content = _Content(source)
        family = folder / self._name_key(name.name)
        if family not in self._namesakes and self._create(content, folder / name.name):
            return folder / name.name
        others = self._namesakes.setdefault(family, _Namesakes(self.link))
        while (there := others.find(content)) is None:
            number = others.count = others.count + 1
            target = folder / name.name
            if number > 1:  # a name that gets too long is cut
                target = beside(folder / name.stem, f"-{number}{name.suffix}")
            made = self._create(content, target)
            key = target.with_name(self._name_key(target.name))
            others.add(target, content if made else _Content(self._planned.get(key, target)))
            if made:
                return target
        if not self.quiet:
            output.say(f"{source} is already there as {there}.")
        return None

    def _create(self, content: "_Content", target: Path) -> bool:
        """Copy or link, unless the name is taken."""
        key = target.with_name(self._name_key(target.name))
        if key in self._planned or os.path.lexists(target):
            return False
        if self.dry_run:
            self._planned[key] = content.source
            verb = "link" if self.link else "copy"
            print(f"{verb} {output.printable(content.source)} -> {output.printable(target)}")
            return True
        try:
            if self.link:
                target.symlink_to(_absolute(content.source))
            else:
                _copy(content, target)
        except FileExistsError:
            return False
        return True


class _Content:
    """An image's file, read from an archive or hashed at most once."""

    def __init__(self, source: "Original") -> None:
        self.source = source
        self._bytes: bytes | None = None

    def open(self) -> BufferedReader | BytesIO:
        if isinstance(self.source, Path):
            return open_regular(self.source)
        self._bytes = self.source.read() if self._bytes is None else self._bytes
        return BytesIO(self._bytes)

    @cached_property
    def size(self) -> int:
        with self.open() as file:
            return file.seek(0, os.SEEK_END)

    @cached_property
    def digest(self) -> bytes:
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").digest()

    def drop(self) -> None:
        """Keep no bytes of the file."""
        self._bytes = None


@dataclass
class _Namesakes:
    """The `count` files of one name in a folder, `cat.jpg`, `cat-2.jpg`, ..., by their content.

    So each is read once, however many there are, and only if another has its size.
    """

    link: bool
    count: int = 0
    _links: dict[str, Path] = field(default_factory=dict)
    _unread: dict[int, list[tuple[Path, _Content]]] = field(default_factory=dict)
    _digests: dict[bytes, Path] = field(default_factory=dict)

    def add(self, target: Path, content: _Content) -> None:
        """Note a file and its content, or what a link leads to; passes over what can't be read."""
        with suppress(OSError, ImageError):
            if self.link:
                is_target = content.source == target
                to = os.readlink(target) if is_target else str(_absolute(content.source))
                self._links.setdefault(to, target)
            else:
                self._unread.setdefault(content.size, []).append((target, content))
        content.drop()

    def find(self, content: _Content) -> Path | None:
        """The file that has this content, or is a link to it. Raises OSError and ImageError."""
        if self.link:
            return self._links.get(str(_absolute(content.source)))
        if content.size not in self._unread:
            return None
        for target, other in self._unread[content.size]:
            with suppress(OSError, ImageError):
                self._digests.setdefault(other.digest, target)
                other.drop()
        self._unread[content.size].clear()
        return self._digests.get(content.digest)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _absolute(source: "Original") -> Path:
    """The path with its folder resolved; a file that is a link stays the link."""
    path = Path(str(source))
    return Path(os.path.realpath(path.parent), path.name)


def _copy(content: _Content, target: Path) -> None:
    """Copy a file whole or not at all, with its times. Raises FileExistsError, never replaces.

    Not its flags and attributes, as `shutil.copy2` does: macOS lets nobody rename a locked file,
    and SMB disks refuse them.
    """
    temporary = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        with content.open() as file, temporary.open("xb") as copy:  # never through a link
            shutil.copyfileobj(file, copy, _CHUNK)
        if isinstance(content.source, Path):
            with suppress(OSError):
                status = content.source.stat()
                os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise FileExistsError(target) from None
            temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
