"""What is wrong with a dataset, found before anybody trains on it.

`scan` decodes every image once and keeps some 300 bytes of each; `find` draws the conclusions.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from mixer_mlx.data.columns import Columns
from mixer_mlx.data.dataset import TRAIN
from mixer_mlx.data.read import Data, Dataset, Entry, find_splits
from mixer_mlx.errors import ImageError
from mixer_mlx.images.decode import LazyImage, opened, rgb
from mixer_mlx.images.pillow import quietly
from mixer_mlx.runtime.threads import THREADS, in_threads

from .hashing import FLAT, NEAR, groups_alike, members, pixel_digest, reduced
from .sheets import SIDE, Tile, grouped_sheet, thumbnail

FEW = 10
"""A class with fewer images than that is reported."""
UNEVEN = 10
"""So is a class with more than so many times the images of another."""
NARROW = 3
"""And an image more than so many times as long as wide: cutting it square loses two thirds."""
_MOST = 0.9
"""Where so many images share one size, those of another are reported."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding. `harmful`: it makes a run fail, or its validation a lie."""

    text: str
    harmful: bool = False


KINDS = {
    "unreadable": Kind("can't be read", harmful=True),
    "two_labels": Kind("the same image in several classes", harmful=True),
    "near_two_labels": Kind("nearly the same image in several classes", harmful=True),
    "leak": Kind("the same image in several of train, val and test", harmful=True),
    "near_leak": Kind("nearly the same image in several of train, val and test", harmful=True),
    "unknown_class": Kind("classes that the training images lack", harmful=True),
    "one_class": Kind("a single class, and it takes two to tell apart", harmful=True),
    "duplicate": Kind("the same image several times"),
    "near_duplicate": Kind("nearly the same image several times"),
    "tiny": Kind("smaller than the model's images"),
    "narrow": Kind(f"more than {NARROW} times as long as wide"),
    "odd_size": Kind("of another size than nearly all"),
    "absent_class": Kind("classes that only the training images have"),
    "few": Kind(f"classes of fewer than {FEW} images"),
    "uneven": Kind("classes of very different sizes"),
}


@dataclass(frozen=True)
class Finding:
    """Something to look at: its kind (of KINDS), the images by index, and more in words."""

    kind: str
    images: tuple[int, ...] = ()
    detail: str = ""


class Look(NamedTuple):
    """What is kept of an image.

    `stored` is "colour", "grey", "CMYK" or "alpha" (that is, with transparent parts). `file` and
    `pixels` are checksums; `grey` is what `hashing.reduced` gives, (8, 9), uint8, as bytes.
    """

    width: int
    height: int
    stored: str
    file: bytes
    pixels: bytes
    grey: bytes


class Scan:
    """A dataset's parts, as `read_all_splits` gives them, and what its images look like.

    Images are counted through all parts: `entries[i]` is in `split_of[i]` and shows the class
    `class_of[i]`; `looks[i]` is an ImageError if it can't be read.
    """

    def __init__(self, parts: Mapping[str, Dataset]) -> None:
        self.parts = parts
        self.entries: list[Entry] = []
        self.split_of: list[str] = []
        self.class_of: list[str] = []
        self.looks: list[Look | ImageError] = []
        for name, dataset in parts.items():
            self.entries += dataset.paths
            self.split_of += [name] * len(dataset)
            self.class_of += [dataset.classes[label] for label in dataset.labels]

    def readable(self) -> Iterator[tuple[int, Look]]:
        """The images that can be read, by index."""
        for index, seen in enumerate(self.looks):
            if isinstance(seen, Look):
                yield index, seen


def read_all_splits(root: Data, columns: Columns | None = None) -> dict[str, Dataset]:
    """All parts of a dataset by name, that for training first; "" is one without parts.

    Raises ConfigError.
    """
    found = find_splits(root, columns or Columns(), ())
    names = sorted(found, key=lambda name: name.lower() not in TRAIN)
    return {name: found[name]() for name in names}


def scan(
    parts: Mapping[str, Dataset], tick: Callable[[int, int], None] = lambda done, failed: None
) -> Scan:
    """Decode every image, in threads; `tick` is told how many are done, and how many failed."""
    found = Scan(parts)
    failed = 0
    for seen in in_threads(look, found.entries, ahead=8 * THREADS):
        failed += isinstance(seen, ImageError)
        found.looks.append(seen)
        tick(len(found.looks), failed)
    return found


def look(entry: Entry) -> Look | ImageError:
    """Decode an image in full, upright, and keep what it takes to find it again."""
    try:
        file = entry.open() if isinstance(entry, LazyImage) else entry
        with opened(file) as header, quietly("compared", "shrink it"):
            stored = _stored(header)  # before the pixels are loaded, which can change the mode
            image = rgb(header)
            pixels, grey = pixel_digest(image), reduced(image).tobytes()
        return Look(*image.size, stored, _file_digest(file), pixels, grey)
    except ImageError as error:
        return ImageError(str(error))  # without the traceback, which holds the image


def _stored(header: Image.Image) -> str:
    if header.has_transparency_data:
        return "alpha"
    if header.mode == "CMYK":
        return "CMYK"
    return "grey" if header.mode[0] in "1LIF" and header.mode != "LAB" else "colour"


def _file_digest(file: Path | BinaryIO) -> bytes:
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as again:
            again.seek(0)
            digest = hashlib.blake2b(digest_size=16)
            while chunk := again.read(2**20):
                digest.update(chunk)
            return digest.digest()
    except OSError as error:
        raise ImageError(f"The file can't be read again ({error.strerror}); retry.") from error


def find(scan: Scan, *, near: int = NEAR, image_size: tuple[int, int] = (32, 32)) -> list[Finding]:
    """All that is to be said of a dataset, in the order of KINDS.

    Images whose hashes differ in at most `near` bits are nearly the same; `image_size` is
    (height, width) of the model's images.
    """
    errors = enumerate(scan.looks)
    findings = [
        *(Finding("unreadable", (i,), str(e)) for i, e in errors if isinstance(e, ImageError)),
        *_repeated(scan),
        *_alike(scan, near),
        *_sizes(scan, image_size),
        *_compared_classes(scan.parts),
        *class_findings(next(iter(scan.parts.values())).counts()),
    ]
    order = list(KINDS)
    return sorted(findings, key=lambda finding: order.index(finding.kind))


def class_findings(counts: Mapping[str, int]) -> Iterator[Finding]:
    """What the numbers of training images by class tell: too few, or very uneven."""
    if few := sorted((count, name) for name, count in counts.items() if count < FEW):
        names = _listed([f"{name} ({count})" for count, name in few])
        yield Finding("few", detail=names)
    least, most = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[most] > UNEVEN * counts[least]:
        yield Finding(
            "uneven", detail=f"{most} has {counts[most]:,} images, {least} has {counts[least]:,}"
        )


def _repeated(scan: Scan) -> Iterator[Finding]:
    """Images with equal pixels."""
    readable = list(scan.readable())
    for group in members(seen.pixels for _, seen in readable):
        files = {readable[i][1].file for i in group}
        same = "the same file" if len(files) == 1 else "the same pixels"
        yield from _related(scan, "", [readable[i][0] for i in group], same)


def _alike(scan: Scan, near: int) -> Iterator[Finding]:
    """Images with different pixels that look alike; those equal to one of them come with it."""
    copies: dict[bytes, list[int]] = {}
    greys: list[bytes] = []
    for index, seen in scan.readable():
        if max(seen.grey) - min(seen.grey) >= FLAT:
            if seen.pixels not in copies:
                greys.append(seen.grey)
            copies.setdefault(seen.pixels, []).append(index)
    distinct = list(copies.values())
    stacked = np.frombuffer(b"".join(greys), np.uint8).reshape(-1, 8, 9)
    for group in groups_alike(stacked, near):
        together = sorted(index for number in group for index in distinct[number])
        yield from _related(scan, "near_", together)


def _related(scan: Scan, prefix: str, group: list[int], detail: str = "") -> Iterator[Finding]:
    """Say what is wrong with having these images, which are the same, where they are."""
    in_classes = len({scan.class_of[i] for i in group}) > 1
    in_parts = len({scan.split_of[i] for i in group}) > 1
    if in_classes:
        yield Finding(f"{prefix}two_labels", tuple(group), detail)
    if in_parts:
        yield Finding(f"{prefix}leak", tuple(group), detail)
    if not in_classes and not in_parts:
        yield Finding(f"{prefix}duplicate", tuple(group), detail)


def _sizes(scan: Scan, image_size: tuple[int, int]) -> Iterator[Finding]:
    sizes = Counter((seen.width, seen.height) for _, seen in scan.readable())
    usual, times = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    for index, seen in scan.readable():
        size = f"{seen.width}x{seen.height}"
        if seen.height < image_size[0] or seen.width < image_size[1]:
            yield Finding("tiny", (index,), size)
        if max(seen.width, seen.height) > NARROW * min(seen.width, seen.height):
            yield Finding("narrow", (index,), size)
        if times >= _MOST * sizes.total() and (seen.width, seen.height) != usual:
            yield Finding("odd_size", (index,), f"{size}, not {usual[0]}x{usual[1]}")


def _compared_classes(parts: Mapping[str, Dataset]) -> Iterator[Finding]:
    (_, train), *others = parts.items()
    known = set(train.present())
    if len(known) == 1:
        yield Finding("one_class", detail=min(known))
    for name, dataset in others:
        found = set(dataset.present())
        if unknown := sorted(found - known):
            yield Finding("unknown_class", detail=f"{name} has {_listed(unknown)}")
        if absent := sorted(known - found):
            yield Finding("absent_class", detail=f"{name} lacks {_listed(absent)}")


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


MOST_DRAWN = 20
"""So many findings of a kind are drawn."""


def draw_findings(scan: Scan, findings: Iterable[Finding]) -> Image.Image | None:
    """An RGB page with the first findings of each kind; None if no image is concerned."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.images:
            by_kind.setdefault(finding.kind, []).append(finding)
    sections = [_section(scan, kind, found) for kind, found in by_kind.items()]
    return grouped_sheet(sections) if sections else None


def _section(
    scan: Scan, kind: str, found: Sequence[Finding]
) -> tuple[str, Sequence[Sequence[Tile]]]:
    shown = (
        f"the first {MOST_DRAWN} of {len(found):,}" if len(found) > MOST_DRAWN else f"{len(found)}"
    )
    groups = in_threads(
        lambda one: [_tile(scan, i) for i in one.images[:10]], found[:MOST_DRAWN], THREADS
    )
    return f"{KINDS[kind].text}: {shown}", list(groups)


def _tile(scan: Scan, index: int) -> Tile:
    where = "/".join(filter(None, [scan.split_of[index], scan.class_of[index]]))
    entry = scan.entries[index]
    name = str(entry).rpartition("/")[2]
    try:
        with opened(entry, at_least=SIDE) as file:
            return Tile(thumbnail(rgb(file)), name, where)
    except ImageError:
        return Tile(None, name, where)
