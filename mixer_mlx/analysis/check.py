"""Find problems in a dataset before training on it.

`scan` decodes every image once and keeps about 300 bytes of each; `find` evaluates them.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from PIL import Image

from mixer_mlx.data.columns import Columns
from mixer_mlx.data.dataset import family
from mixer_mlx.data.notes import Notes, Say, listed
from mixer_mlx.data.read import Data, Dataset, Entry, find_splits
from mixer_mlx.errors import ImageError
from mixer_mlx.images.decode import LazyImage, opened, rgb
from mixer_mlx.images.hashing import NEAR, members, near_identical, pixel_digest, reduced
from mixer_mlx.images.pillow import quietly
from mixer_mlx.images.thumbnail import open_thumbnail
from mixer_mlx.runtime.threads import in_threads, workers

from .sheets import Tile, grouped_sheet

FEW = 10
"""A class with fewer images is reported."""
UNEVEN = 10
"""So is a class with more than this many times the images of another."""
NARROW = 3
"""And an image of a larger aspect ratio: a square crop would lose two thirds of it."""
_USUAL = 0.9
"""If at least this fraction of the images have the same size, the others are reported."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding. `harmful`: it makes training fail, or validation misleading."""

    text: str
    harmful: bool = False


KINDS = {
    "unreadable": Kind("unreadable images", harmful=True),
    "two_labels": Kind("identical images in different classes", harmful=True),
    "near_two_labels": Kind("near-identical images in different classes", harmful=True),
    "leak": Kind("identical images in different splits", harmful=True),
    "near_leak": Kind("near-identical images in different splits", harmful=True),
    "unknown_class": Kind("classes without training images", harmful=True),
    "one_class": Kind("only one class", harmful=True),
    "duplicate": Kind("duplicate images"),
    "near_duplicate": Kind("near-duplicate images"),
    "alike_two_labels": Kind("images alike in their features, in different classes"),
    "alike_leak": Kind("images alike in their features, in different splits"),
    "alike_duplicate": Kind("images alike in their features"),
    "doubtful_label": Kind("labels in doubt"),
    "unsure": Kind("images between two classes"),
    "tiny": Kind("images smaller than the model's input"),
    "narrow": Kind(f"images with an aspect ratio above {NARROW}"),
    "odd_size": Kind("images of an unusual size"),
    "absent_class": Kind("classes with training images only"),
    "few": Kind(f"classes with fewer than {FEW} images"),
    "uneven": Kind("imbalanced classes"),
}


@dataclass(frozen=True)
class Finding:
    """A possible problem: its kind (a key of KINDS), the images' indices, and a detail in words.

    `facts` are what the detail says, and more of it, for programs.
    """

    kind: str
    images: tuple[int, ...] = ()
    detail: str = ""
    facts: Mapping[str, str | float] = field(default_factory=dict)


class ImageSummary(NamedTuple):
    """What is kept of an image.

    `stored` is "colour", "grey", "CMYK" or "alpha" (with transparency). `file` and `pixels` are
    checksums; `grey` is the image of `hashing.reduced`, (8, 9), uint8, as bytes.
    """

    width: int
    height: int
    stored: str
    file: bytes
    pixels: bytes
    grey: bytes


class Scan:
    """A dataset's splits, as from `read_all_splits`, and summaries of its images.

    Indices run through all splits: `entries[i]` is in `split_of[i]` and of class `class_of[i]`;
    `summaries[i]` is an ImageError if it can't be read.
    """

    def __init__(self, splits: Mapping[str, Dataset]) -> None:
        self.splits = splits
        self.entries: list[Entry] = []
        self.split_of: list[str] = []
        self.class_of: list[str] = []
        self.summaries: list[ImageSummary | ImageError] = []
        for name, dataset in splits.items():
            self.entries += dataset.paths
            self.split_of += [name] * len(dataset)
            classes = dataset.names()
            self.class_of += [classes[label] for label in dataset.labels]

    def readable(self) -> Iterator[tuple[int, ImageSummary]]:
        """Indices and summaries of the readable images."""
        for index, seen in enumerate(self.summaries):
            if isinstance(seen, ImageSummary):
                yield index, seen


def read_all_splits(
    root: Data, columns: Columns | None = None, say: Say = lambda _: None
) -> dict[str, Dataset]:
    """All splits of a dataset by name, training first; "" for a dataset without splits.

    `say` gets how it was read, and what was left out. Raises ConfigError.
    """
    notes = Notes()
    found = find_splits(root, columns or Columns(), (), notes)
    names = sorted(found, key=lambda name: family(name) != "train")
    splits = {name: found[name]() for name in names}
    use = "no splits" if names == [""] else ", ".join(names)
    for sentence in notes.sentences(str(root), use):
        say(sentence)
    return splits


def scan(
    splits: Mapping[str, Dataset], tick: Callable[[int, int], None] = lambda done, failed: None
) -> Scan:
    """Decode every image, in threads; `tick` gets the numbers of images done and failed."""
    found = Scan(splits)
    failed = 0
    for seen in in_threads(summarize, found.entries, ahead=8 * workers()):
        failed += isinstance(seen, ImageError)
        found.summaries.append(seen)
        tick(len(found.summaries), failed)
    return found


def summarize(entry: Entry) -> ImageSummary | ImageError:
    """Decode an image in full, upright, and keep what identifies it."""
    try:
        file = entry.open() if isinstance(entry, LazyImage) else entry
        with opened(file) as header, quietly("compared", "shrink it"):
            stored = _stored(header)  # before loading the pixels, which can change the mode
            image = rgb(header)
            pixels, grey = pixel_digest(image), reduced(image).tobytes()
        return ImageSummary(*image.size, stored, _file_digest(file), pixels, grey)
    except ImageError as error:
        return ImageError(str(error))  # without the traceback, which would keep the image alive


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
    """The findings for a dataset, in the order of KINDS.

    Images are near-identical if their hashes differ in at most `near` bits; `image_size` is the
    model's (height, width).
    """
    errors = enumerate(scan.summaries)
    findings = [
        *(Finding("unreadable", (i,), str(e)) for i, e in errors if isinstance(e, ImageError)),
        *_repeated(scan),
        *_alike(scan, near),
        *_sizes(scan, image_size),
        *_compared_classes(scan.splits),
        *class_findings(next(iter(scan.splits.values())).counts()),
    ]
    return in_order(findings)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by kind, in the order of KINDS; those of a kind stay as they are."""
    order = list(KINDS)
    return sorted(findings, key=lambda finding: order.index(finding.kind))


def class_findings(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Findings from the numbers of training images by class: too few, or imbalanced."""
    if few := sorted((count, name) for name, count in counts.items() if count < FEW):
        names = listed([f"{name} ({count})" for count, name in few])
        yield Finding("few", detail=names)
    least, most = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
    if counts[most] > UNEVEN * counts[least]:
        yield Finding(
            "uneven", detail=f"{most} has {counts[most]:,} images, {least} has {counts[least]:,}"
        )


def _repeated(scan: Scan) -> Iterator[Finding]:
    """Images with identical pixels."""
    readable = list(scan.readable())
    for group in members(seen.pixels for _, seen in readable):
        files = {readable[i][1].file for i in group}
        same = "the same file" if len(files) == 1 else "the same pixels"
        yield from related(scan, "", [readable[i][0] for i in group], same)


def _alike(scan: Scan, near: int) -> Iterator[Finding]:
    """Images with different pixels that look alike, each along with its identical copies."""
    readable = list(scan.readable())
    for group in near_identical([(seen.pixels, seen.grey) for _, seen in readable], near):
        yield from related(scan, "near_", [readable[number][0] for number in group])


def related(
    scan: Scan,
    prefix: str,
    group: list[int],
    detail: str = "",
    facts: Mapping[str, str | float] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Findings for a group of (near-)identical images, by their classes and splits."""
    in_classes = len({scan.class_of[i] for i in group}) > 1
    in_splits = len({scan.split_of[i] for i in group}) > 1
    if in_classes:
        yield Finding(f"{prefix}two_labels", tuple(group), detail, facts)
    if in_splits:
        yield Finding(f"{prefix}leak", tuple(group), detail, facts)
    if not in_classes and not in_splits:
        yield Finding(f"{prefix}duplicate", tuple(group), detail, facts)


def _sizes(scan: Scan, image_size: tuple[int, int]) -> Iterator[Finding]:
    sizes = Counter((seen.width, seen.height) for _, seen in scan.readable())
    usual, times = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    for index, seen in scan.readable():
        size = f"{seen.width}x{seen.height}"
        if seen.height < image_size[0] or seen.width < image_size[1]:
            yield Finding("tiny", (index,), size)
        if max(seen.width, seen.height) > NARROW * min(seen.width, seen.height):
            yield Finding("narrow", (index,), size)
        if times >= _USUAL * sizes.total() and (seen.width, seen.height) != usual:
            yield Finding("odd_size", (index,), f"{size}, not {usual[0]}x{usual[1]}")


def _compared_classes(splits: Mapping[str, Dataset]) -> Iterator[Finding]:
    (_, train), *others = splits.items()
    known = set(train.present())
    if len(known) == 1:
        yield Finding("one_class", detail=min(known))
    for name, dataset in others:
        found = set(dataset.present())
        if unknown := sorted(found - known):
            yield Finding("unknown_class", detail=f"{name} has {listed(unknown)}")
        if absent := sorted(known - found):
            yield Finding("absent_class", detail=f"{name} lacks {listed(absent)}")


_MAX_DRAWN = 20
"""The number of findings drawn of each kind."""


def draw_findings(scan: Scan, findings: Iterable[Finding]) -> Image.Image | None:
    """An RGB page of the first findings of each kind; None if none has images."""
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
        f"the first {_MAX_DRAWN} of {len(found):,}" if len(found) > _MAX_DRAWN else f"{len(found)}"
    )
    groups = in_threads(
        lambda one: [_tile(scan, one, i) for i in one.images[:10]], found[:_MAX_DRAWN], workers()
    )
    return f"{KINDS[kind].text}: {shown}", list(groups)


def _tile(scan: Scan, finding: Finding, index: int) -> Tile:
    where = "/".join(filter(None, [scan.split_of[index], scan.class_of[index]]))
    if finding.kind == "doubtful_label":
        where = f"{scan.class_of[index]}: {finding.facts['looks_like']}?"
    elif finding.kind == "unsure":
        where = finding.detail
    entry = scan.entries[index]
    return Tile(open_thumbnail(entry), str(entry).rpartition("/")[2], where)
