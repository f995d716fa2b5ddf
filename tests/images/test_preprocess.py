"""Decoding and preprocessing, against plain Pillow, values worked out by hand, hostile files."""

import base64
import gc
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.images import decode as decode_module
from mixer_mlx.images import formats as formats_module
from mixer_mlx.images import pillow as quiet_module
from mixer_mlx.images import preprocess as image_module
from mixer_mlx.images.decode import decode, to_rgb
from mixer_mlx.images.formats import MAX_PIXELS
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.runtime.tuning import decode_bytes

WHITE = (255, 255, 255)


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No test here may leave a byte on stdout or stderr, written by Python or by C."""
    yield
    assert capfd.readouterr() == ("", "")


def noise(width: int = 24, height: int = 16) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """A PNG by hand: a grey header, then the chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [(b"IHDR", header), *chunks]:
        crc = zlib.crc32(kind + content)
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
    return data


# Three ways of TIFFs to write to stderr: a Python warning, a log line, and libtiff by itself.
RAW_TIFF = saved(noise(), "TIFF", compression="raw")
WARNING_TIFF = replaced(RAW_TIFF, struct.pack("<HHI", 284, 3, 1), struct.pack("<HHI", 284, 3, 255))
LOGGING_TIFF = replaced(
    RAW_TIFF, struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 100)
)
_DEFLATED = saved(noise(), "TIFF", compression="tiff_adobe_deflate")
SPEAKING_TIFF = _DEFLATED[:100] + bytes([_DEFLATED[100] ^ 255]) + _DEFLATED[101:]

HOSTILE = {
    "empty": b"",
    "text": b"not an image\n" * 9,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "cut jpeg": saved(noise(), "JPEG")[:-300],
    "cut png": saved(noise(), "PNG")[:-300],
    "cut bmp": saved(noise(), "BMP")[:-300],
    "cut gif": saved(noise(), "GIF")[:300],
    "cut tiff": _DEFLATED[:200],
    "only magic": b"\xff\xd8\xff",
    "logging tiff": LOGGING_TIFF,
    "speaking tiff": SPEAKING_TIFF,
    "huge": png(60_000, 60_000, (b"IDAT", b"")),
    "no pixels": png(1, 0, (b"IDAT", b"")),
    "riff": b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 99,
    "heic": b"\0\0\0\x18ftypheic" + b"\0" * 99,
    "avif": b"\0\0\0\x18ftypavif" + b"\0" * 99,
}


# Files


def open_files() -> int:
    gc.collect()  # what earlier tests left open
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(HOSTILE[name])
    files = open_files()
    for source in (path, str(path), io.BytesIO(HOSTILE[name])):
        with pytest.raises(ImageError, match=r"^The .+; .+\.$") as caught:
            decode(source)
        assert "\n" not in str(caught.value)
    assert open_files() == files


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.png").symlink_to("nowhere")
    files = open_files()
    with pytest.raises(ImageError, match="no such file; check"):
        decode(tmp_path / "cat.png")
    with pytest.raises(ImageError, match="a link to a file that doesn't exist"):
        decode(tmp_path / "link.png")
    for path in (tmp_path, "/dev/null"):
        with pytest.raises(ImageError, match="is a folder, a pipe or a device"):
            decode(path)
    assert open_files() == files
    with pytest.raises(ImageError, match="can't be opened"):
        decode("cat\0.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path may have 100 characters only
        server.bind("socket.png")
        with pytest.raises(ImageError, match="can't be opened"):
            decode("socket.png")


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    errors: list[str] = []

    def run() -> None:
        try:
            decode(tmp_path / "fifo.png")
        except ImageError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert errors == ["The path is a folder, a pipe or a device; give a file."]


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT RUN: root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(saved(noise(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="may not read the file"):
        decode(path)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "named_wrongly.txt"
    path.write_bytes(saved(noise(), file_format))
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    with path.open("rb") as file:
        file.seek(5)
        for source in (path, file):
            decoded = decode(source)
            assert decoded.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(decoded), expected)
        assert not file.closed


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_first_of_several(file_format: str) -> None:
    first, second = Image.new("RGB", (9, 7), (255, 0, 0)), Image.new("RGB", (9, 7), (0, 0, 255))
    data = saved(first, file_format, save_all=True, append_images=[second])
    red, _, blue = decode(io.BytesIO(data)).getpixel((4, 3))
    assert red > 250
    assert blue < 5


def test_a_broken_index_of_images_does_not_lose_the_first() -> None:
    data = saved(noise(), "MPO", save_all=True, append_images=[noise()])
    start = data.index(b"MPF\0") + 4
    broken = data[:start] + b"\xff" * 60 + data[start + 60 :]
    assert decode(io.BytesIO(broken)).tobytes() == decode(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("size", [(20_000, 10_000), (16_384, 16_384)])
def test_200_megapixels_pass(size: tuple[int, int]) -> None:
    padding = (b"teSt", bytes(2**15))  # as long as one could be that is whole
    big = png(*size, padding, (b"IDAT", zlib.compress(b"")), depth=1)
    with pytest.raises(ImageError, match="truncated"):  # so its size was no reason
        decode(io.BytesIO(big))


@pytest.mark.parametrize("size", [(60_000, 60_000), (16_385, 16_384)])
def test_more_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels; .* to {MAX_PIXELS:,} "):
        decode(io.BytesIO(png(*size, (b"IDAT", b""))))


@pytest.mark.parametrize(
    "error",
    [
        *(AssertionError, AttributeError, EOFError, IndexError, KeyError, MemoryError, OSError),
        *(OverflowError, RuntimeError, SyntaxError, TypeError, ValueError, ZeroDivisionError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning, struct.error, zlib.error),
    ],
)
def test_what_pillow_may_raise(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error("two\nlines")

    monkeypatch.setattr(formats_module, "_READERS", [(re.compile(b"GIF"), fails)])
    with pytest.raises(
        ImageError, match=r"^The[^\n]+two(?: |\\n)lines|too little memory"
    ) as caught:
        decode(io.BytesIO(b"GIF"))
    assert isinstance(caught.value.__cause__, error)


def test_tiff_of_either_kind_and_order() -> None:
    big = saved(noise(), "TIFF", big_tiff=True)
    assert big.startswith(b"II+")
    assert decode(io.BytesIO(big)).tobytes() == noise().tobytes()
    grey = Image.new("I;16B", (2, 2), 257)
    grey.putpixel((1, 1), 65_535)
    motorola = saved(grey, "TIFF")
    assert motorola.startswith(b"MM\0*")
    assert decode(io.BytesIO(motorola)).getpixel((0, 0)) == (1, 1, 1)


def test_without_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [entry for entry in formats_module._READERS if entry[1].format != "WEBP"]
    monkeypatch.setattr(formats_module, "_READERS", readers)
    with pytest.raises(ImageError, match="save it as one of JPEG, PNG, GIF, BMP, TIFF, AVIF"):
        decode(io.BytesIO(saved(noise(), "WEBP")))


def rle_bmp(width: int, height: int) -> bytes:
    """A black BMP: three rows of one run each, which is enough for images of three rows."""
    palette, pixels = bytes(4 * 256), bytes([width % 256, 0, 0, 0]) * 3 + b"\0\1"
    offset = 54 + len(palette)
    header = struct.pack("<2sIII", b"BM", offset + len(pixels), 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return header + info + palette + pixels


def test_run_length_encoded_bmps_are_refused_when_large() -> None:
    assert decode(io.BytesIO(rle_bmp(4, 3))).size == (4, 3)
    with pytest.raises(ImageError, match=r"run-length encoded BMP of 4097x4096 pixels; .* PNG\.$"):
        decode(io.BytesIO(rle_bmp(4097, 4096)))


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAA"
    "AAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAFwAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAAB"
    "AABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADw"
    "NgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAA"
    "AAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcA"
    "AAADAAAAABAAAAIAAAAAH////wAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWB"
    "AgMFhAAAAGRtZGF0AAAAWCgBrwng40ecVP/5he//ak7L2iOJVAj/aGDvKff/jtUG+EnHEqIIAc4YSXn6CzlBFzdMt7"
    "F3fb8/d0KQkkktkIncjXxq1XYmyu0cZAUZ2Eg+gAJMwUGZp6A="
)  # 48 x 32 pixels, the left half (200, 30, 40), the right one (20, 60, 220)


@pytest.mark.parametrize("package", ["pillow_heif", "pi_heif"])
def test_heic(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"NOT RUN: needs {package}")
    other = {"pillow_heif": "pi_heif", "pi_heif": "pillow_heif"}[package]
    monkeypatch.setitem(sys.modules, other, None)
    decoded = np.asarray(decode(io.BytesIO(HEIC))).astype(int)
    assert decoded.shape == (32, 48, 3)
    assert abs(decoded[4:28, 4:20] - (200, 30, 40)).max() < 12  # the left half was red
    assert abs(decoded[4:28, 28:44] - (20, 60, 220)).max() < 12


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"])
def test_heic_without_pillow_heif(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pillow_heif", "pi_heif"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError, match=r"pip install 'mixer-mlx\[heif\]'"):
        decode(io.BytesIO(HEIC[:8] + brand + HEIC[12:]))


def test_brands_tell_avif_from_heic() -> None:
    data = saved(noise(), "AVIF")
    assert data[8:12] == b"avif"
    assert data.index(b"avif", 12) < 64
    decoded = decode(io.BytesIO(data[:8] + b"mif1" + data[12:]))
    assert decoded.tobytes() == decode(io.BytesIO(data)).tobytes()


# Reduced JPEGs


def photo(cat: Path, *options: object) -> bytes:
    """1600 x 1200 pixels as sharp as the example is: the photograph beside its mirror images."""
    with Image.open(cat) as image:
        tile = np.asarray(image.convert("RGB"))
    tile = np.concatenate([tile, tile[:, ::-1]], 1)
    tile = np.concatenate([tile, tile[::-1]], 0)
    return saved(Image.fromarray(np.tile(tile, (2, 2, 1))[:1200, :1600]), "JPEG", **dict(options))


def smooth() -> bytes:
    y, x = np.mgrid[0:1200, 0:1600]
    pixels = np.dstack([x * 255 / 1600, y * 255 / 1200, (x + y) * 255 / 2800])
    return saved(Image.fromarray(pixels.astype(np.uint8)), "JPEG", quality=90)


@pytest.mark.parametrize(("size", "scale"), [(109, 2), (54, 4), (27, 8)])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_reduced_jpegs_stay_within_3(
    size: int,
    scale: int,
    subsampling: int,
    interpolation: str,
    cat: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    fit = Preprocess._fit

    def spy(self: Preprocess, image: Image.Image, *, exact: bool) -> Image.Image:
        sizes.append(image.size)
        return fit(self, image, exact=exact)

    monkeypatch.setattr(Preprocess, "_fit", spy)
    preprocess = Preprocess((size, size), crop_pct=1.0, interpolation=interpolation)
    for data in (photo(cat, ("quality", 90), ("subsampling", subsampling)), smooth()):
        with Image.open(io.BytesIO(data)) as image:
            full = preprocess(image.convert("RGB"), exact=True).astype(int)
        reduced = preprocess(io.BytesIO(data))
        assert sizes[-2:] == [(1600, 1200), (1600 // scale, 1200 // scale)]
        assert abs(reduced - full).max() <= 3
        np.testing.assert_array_equal(preprocess(io.BytesIO(data), exact=True), full)
        assert sizes[-1] == (1600, 1200)


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((64, 48), None, (64, 48)),
        ((64, 48), 6, (8, 6)),
        ((64, 48), 7, (16, 12)),
        ((64, 48), 12, (16, 12)),
        ((64, 48), 13, (32, 24)),
        ((64, 48), 24, (32, 24)),
        ((64, 48), 25, (64, 48)),
        ((48, 64), 13, (24, 32)),
        ((66, 48), 6, (33, 24)),  # an eighth would cut a pixel in four
        ((65, 48), 6, (65, 48)),
    ],
)
def test_how_far_a_jpeg_is_reduced(
    size: tuple[int, int], at_least: int | None, expected: tuple[int, int]
) -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = saved(Image.new(mode, size), "JPEG")
        assert decode(io.BytesIO(data), at_least=at_least).size == expected
        assert decode(io.BytesIO(data), at_least=at_least, exact=True).size == size
    data = saved(Image.new("RGB", size), "PNG")
    assert decode(io.BytesIO(data), at_least=at_least).size == size


def test_huge_jpegs_are_refused_at_any_scale() -> None:
    data = bytearray(saved(noise(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 65_496, 65_496)
    with pytest.raises(ImageError, match="65496x65496 pixels"):
        decode(io.BytesIO(data), at_least=100)


def test_a_image_that_is_given_is_not_changed() -> None:
    data = saved(Image.new("RGB", (640, 480)), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        Preprocess((8, 8))(image)
        assert image.size == (640, 480)


# Memory


def test_memory_is_lent_to_threads() -> None:
    budget, most, lock = decode_module._Budget(100), [0, 0], threading.Lock()

    def run(size: int) -> None:
        for _ in range(200):
            with budget.reserved(size):
                with lock:
                    most[0] += min(size, 100)
                    most[1] = max(most)
                with lock:
                    most[0] -= min(size, 100)

    threads = [threading.Thread(target=run, args=(size,)) for size in (30, 40, 60, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most[0] == 0
    assert 60 <= most[1] <= 100
    with pytest.raises(RuntimeError), budget.reserved(100):
        raise RuntimeError
    with budget.reserved(100):  # it was given back
        pass


def test_room_grows_with_the_machine() -> None:
    """24-megapixel HEICs at once: one in a small container, and work for every core of a Mac."""
    photo = 8 * 24_500_000
    assert [decode_bytes(gib * 2**30) // photo for gib in (1, 8, 16, 24, 64)] == [1, 10, 21, 32, 43]


@pytest.mark.parametrize(("file_format", "per_pixel"), [("PNG", 4), ("TIFF", 8), ("WEBP", 16)])
def test_at_most_as_many_are_decoded_as_have_room(
    file_format: str, per_pixel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for two of 24 x 16 pixels, and eight threads that want it."""
    monkeypatch.setattr(decode_module, "_BUDGET", decode_module._Budget(2 * per_pixel * 24 * 16))
    data, lock, inside, most = saved(noise(), file_format), threading.Lock(), [], []
    to_rgb = decode_module.to_rgb

    def counted(image: Image.Image) -> Image.Image:
        with lock:
            inside.append(image)
            most.append(len(inside))
        time.sleep(0.01)
        made = to_rgb(image)
        with lock:
            inside.pop()
        return made

    monkeypatch.setattr(decode_module, "to_rgb", counted)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 24))
    assert max(most) == 2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_large_images_are_averaged_within_1(interpolation: str, cat: Path) -> None:
    """Those 16 times as large or more, unless `exact`."""
    preprocess = Preprocess((32, 32), interpolation=interpolation)  # type: ignore[arg-type]
    with Image.open(cat) as image:
        photo = image.convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
    full, averaged = (preprocess(photo, exact=exact).astype(int) for exact in (True, False))
    plain = photo.resize((48, 36), Image.Resampling[interpolation.upper()]).crop((8, 2, 40, 34))
    np.testing.assert_array_equal(full, np.asarray(plain))
    assert 0 < abs(averaged - full).max() <= 1


def test_decoding_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = decode_module._Budget(4 * 24 * 16)
    monkeypatch.setattr(decode_module, "_BUDGET", budget)
    done = threading.Event()

    def run() -> None:
        decode(io.BytesIO(saved(noise(), "PNG")))
        done.set()

    with budget.reserved(1):
        thread = threading.Thread(target=run)
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(60)
    thread.join()


# Orientation


def test_exact_leaves_the_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for file_format in ("JPEG", "PNG", "WEBP"):
        data = saved(noise(), file_format, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
            straight = Preprocess((16, 24), "squash", 1.0)
            np.testing.assert_array_equal(straight(image, exact=True), expected)
        exact = decode(io.BytesIO(data), exact=True)
        np.testing.assert_array_equal(np.asarray(exact), expected)
        np.testing.assert_array_equal(straight(io.BytesIO(data), exact=True), expected)
        np.testing.assert_array_equal(straight(exact), expected)  # nor later


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_pillows(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(noise(), file_format, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(data))), expected)


def test_orientation_6_puts_the_left_on_top() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.uint8([[[255, 0, 0], [0, 0, 255]]]))
    data = saved(image, "PNG", exif=exif)
    upright = [[[255, 0, 0]], [[0, 0, 255]]]
    assert np.asarray(decode(io.BytesIO(data))).tolist() == upright
    # The same for an image opened elsewhere, and only once for one that we decoded.
    straight = Preprocess((2, 1), "squash", 1.0)
    assert straight(Image.open(io.BytesIO(data))).tolist() == upright
    assert straight(decode(io.BytesIO(data))).tolist() == upright


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "tail", [b"", b"garbage", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff"]
)
def test_broken_exif_does_not_lose_the_image(file_format: str, tail: bytes) -> None:
    plain = decode(io.BytesIO(saved(noise(), file_format)))
    broken = decode(io.BytesIO(saved(noise(), file_format, exif=b"Exif\0\0" + tail)))
    assert broken.tobytes() == plain.tobytes()


# Modes


def palette(mode: str, *colours: int) -> Image.Image:
    image = Image.new("P", (1, 1), 1)
    image.putpalette(colours, mode)
    return image


def with_transparency(image: Image.Image, value: object) -> Image.Image:
    image.info["transparency"] = value
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (1, 1), 128), (128, 128, 128)),
        (Image.new("1", (1, 1), 1), WHITE),
        (Image.new("CMYK", (1, 1), (0, 0, 0, 0)), WHITE),
        (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), (0, 255, 255)),
        (Image.new("CMYK", (1, 1), (0, 0, 0, 255)), (0, 0, 0)),
        (Image.new("YCbCr", (1, 1), (77, 128, 128)), (77, 77, 77)),
        (Image.new("HSV", (1, 1), (0, 255, 255)), (255, 0, 0)),
        (Image.new("LAB", (1, 1), (255, 128, 128)), WHITE),
        (palette("RGB", 9, 9, 9, 10, 20, 30), (10, 20, 30)),
        # transparent, opaque and half transparent over white: v * a / 255 + 255 - a
        (Image.new("RGBA", (1, 1), (10, 20, 30, 0)), WHITE),
        (Image.new("RGBA", (1, 1), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (1, 1), (0, 255, 51, 100)), (155, 255, 175)),
        (Image.new("LA", (1, 1), (100, 0)), WHITE),
        (Image.new("LA", (1, 1), (51, 100)), (175, 175, 175)),
        (Image.new("La", (1, 1), (20, 100)), (175, 175, 175)),
        (Image.new("RGBa", (1, 1), (20, 0, 100, 100)), (175, 155, 255)),
        (Image.merge("PA", [palette("RGB", *range(6)), Image.new("L", (1, 1), 0)]), WHITE),
        (palette("RGBA", 9, 9, 9, 9, 51, 51, 51, 100), (175, 175, 175)),
        (with_transparency(palette("RGB", 9, 9, 9, 1, 2, 3), 1), WHITE),
        (with_transparency(palette("RGB", 9, 9, 9, 1, 2, 3), 0), (1, 2, 3)),
        (with_transparency(palette("RGB", 9, 9, 9, 51, 51, 51), b"\xff\x64"), (175, 175, 175)),
        (with_transparency(Image.new("L", (1, 1), 7), 7), WHITE),
        (with_transparency(Image.new("L", (1, 1), 7), 8), (7, 7, 7)),
        (with_transparency(Image.new("1", (1, 1), 0), 0), WHITE),
        (with_transparency(Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 3)), WHITE),
        (with_transparency(Image.new("RGB", (1, 1), (1, 2, 3)), (1, 2, 4)), (1, 2, 3)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_to_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    before = image.tobytes(), dict(image.info)
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    np.testing.assert_allclose(rgb.getpixel((0, 0)), expected, atol=1 if image.mode == "LAB" else 0)
    assert (image.tobytes(), image.info) == before


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_16_bits_are_divided_by_257(mode: str) -> None:
    values = [0, 128, 129, 257, 32_767, 65_535] + ([-5, 70_000] if mode == "I" else [])
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    grey = [0, 0, 1, 1, 127, 255] + ([0, 255] if mode == "I" else [])
    assert np.asarray(to_rgb(image)).tolist() == [[[v, v, v] for v in grey]]
    for x, value in enumerate(values[:6]):  # 0 and 65535 too
        image.info["transparency"] = value
        white = [255 if other == x else v for other, v in enumerate(grey)]
        white[6:] = [white[0], white[5]] if mode == "I" else []  # clipped, so the same values
        assert np.asarray(to_rgb(image)).tolist() == [[[v, v, v] for v in white]]
    assert to_rgb(image).info == {}


def test_16_bit_files() -> None:
    values = np.uint16([[0, 257, 65_535]])
    for data in (saved(Image.fromarray(values), "PNG"), saved(Image.fromarray(values), "TIFF")):
        assert np.asarray(decode(io.BytesIO(data)))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0, 63, 255], [0, 63, 255]),  # as the same numbers in 8 bits
        ([300, 599, 1200], [19, 37, 75]),  # of 12 bits: v * 255 / 4095
        ([0, 4095, 4096], [0, 16, 16]),  # of 16: v / 257
        ([-128, 0, 127], [0, 128, 255]),
        ([-1024, 0, 3071], [0, 64, 255]),  # Hounsfield units: (v + 1024) * 255 / 4095
        ([-2000, 0, 4095], [65, 128, 255]),  # of 13 bits: (v + 4096) * 255 / 8191
        ([-32_768, 0, 32_767], [0, 128, 255]),
    ],
)
def test_16_bits_that_hold_less(values: list[int], grey: list[int]) -> None:
    """By the definition of a linear scale from the narrowest range that holds all values."""
    narrow = not {4096, 32_767} & set(values)
    warned = pytest.warns(UserWarning, match="16-bit images") if narrow else nullcontext()
    array = np.array([values], np.int16)
    with warned:
        assert np.asarray(decode(io.BytesIO(tiff(array))))[0, :, 0].tolist() == grey
    if min(values) >= 0:
        with pytest.warns(UserWarning, match="16-bit") if narrow else nullcontext():
            data = saved(Image.fromarray(array.astype(np.uint16)), "PNG")
            assert np.asarray(decode(io.BytesIO(data)))[0, :, 0].tolist() == grey


def tiff(pixels: np.ndarray, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip, by the specification; 0 stands for WhiteIsZero."""
    height, width = pixels.shape
    bits, signed = 8 * pixels.itemsize, 2 if pixels.dtype.kind == "i" else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8}
    tags |= {277: 1, 278: height, 279: pixels.nbytes, 339: signed}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    head = b"II*\0" + struct.pack("<I", 8 + pixels.nbytes)
    return head + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + directory


def test_white_is_zero_with_16_bits_as_with_8() -> None:
    for values in ([0, 51, 255], [0, 204, 255]):
        expected = [255 - value for value in values]
        for dtype, factor in ((np.uint8, 1), (np.uint16, 257)):
            array = factor * np.array([values], dtype)
            found = decode(io.BytesIO(tiff(array, photometric=0)))
            assert np.asarray(found)[0, :, 0].tolist() == expected, dtype


def test_deep_colours_that_would_be_black_are_reported() -> None:
    """PNGs by the specification: RGB and grey with alpha, 16 bits, one row."""
    for kind, narrow, wide in ((2, [0, 9, 4095], [0, 9, 4096]), (4, [4095, 65_535], [4096, 0])):
        header = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
        for values in (narrow, wide):
            body = zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values))
            chunks = (b"IHDR" + header, b"IDAT" + body, b"IEND")
            png = b"\x89PNG\r\n\x1a\n" + b"".join(
                struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
                for chunk in chunks
            )
            with pytest.warns(UserWarning, match="black") if values == narrow else nullcontext():
                decode(io.BytesIO(png))


def test_a_range_is_reported_once() -> None:
    data = saved(Image.fromarray(np.uint16([[0, 255]])), "PNG")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            decode(io.BytesIO(data))
    assert [str(warning.message)[:48] for warning in caught] == [
        "16-bit images with values within 0 to 255 are sc"
    ]


def test_what_has_no_rgb() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        to_rgb(Image.new("F", (1, 1)))
    with pytest.raises(ImageError, match="0x5 pixels"):
        to_rgb(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="can't be decoded"):
        to_rgb(with_transparency(palette("RGB", 1, 2, 3, 4, 5, 6), "red"))
    with pytest.raises(ImageError, match="truncated"):
        to_rgb(Image.open(io.BytesIO(HOSTILE["cut png"])))


# Silence


def libtiff_handler() -> int | None:
    handler = quiet_module._QUIET._set_libtiff_handler(None)
    quiet_module._QUIET._set_libtiff_handler(handler)
    return handler


def test_eight_threads_decode_what_warns() -> None:
    with Image.open(io.BytesIO(RAW_TIFF)) as opened:
        expected = opened.tobytes()
    with pytest.warns(UserWarning, match="tag 284 had too many"):
        Image.open(io.BytesIO(WARNING_TIFF)).load()
    before, handler = list(warnings.filters), libtiff_handler()
    assert handler is not None
    assert before[0][0] == "error"  # pyproject.toml: one warning too many would be an ImageError
    barrier, right = threading.Barrier(8), []

    def run() -> None:
        barrier.wait()
        for _ in range(50):
            right.append(decode(io.BytesIO(WARNING_TIFF)).tobytes() == expected)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 400
    assert list(warnings.filters) == before
    assert libtiff_handler() == handler
    assert quiet_module._QUIET._changed == []
    with pytest.warns(UserWarning, match="tag 284 had too many"):
        Image.open(io.BytesIO(WARNING_TIFF)).load()


def test_filters_that_others_change_meanwhile() -> None:
    quiet, before, inner = quiet_module._QUIET, list(warnings.filters), warnings.catch_warnings()
    with quiet:
        inner.__enter__()  # takes a copy, with ours in it
    assert quiet._filter not in warnings.filters
    inner.__exit__()
    assert list(warnings.filters) == before
    with quiet:
        inner = warnings.catch_warnings()
        inner.__enter__()
        warnings.simplefilter("error")
        with quiet:  # ours must be in front again
            warnings.warn_explicit("x", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
    assert quiet._filter not in warnings.filters
    inner.__exit__()
    assert list(warnings.filters) == before


def test_silence_without_any_logging_or_filters(tmp_path: Path) -> None:
    """In a process of its own, as pytest has handlers and filters that hide what is said."""
    names = ("logging tiff", "speaking tiff", "cut jpeg", "huge", "cut png")
    for name in names:
        (tmp_path / name).write_bytes(HOSTILE[name])
    (tmp_path / "warning tiff").write_bytes(WARNING_TIFF)
    code = (
        "import sys\n"
        "from mixer_mlx.images.decode import ImageError, decode\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        print(decode(path).size)\n"
        "    except ImageError:\n"
        "        print('ImageError')\n"
    )
    paths = [str(tmp_path / name) for name in (*names, "warning tiff")]
    filters = ("-W", "always::UserWarning", "-W", "always::ResourceWarning")
    command = [sys.executable, *filters, "-c", code, *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == ["ImageError"] * 5 + ["(24, 16)"]
    assert result.stderr == ""


# Preprocess


def cases() -> dict[str, dict[str, object]]:
    with np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz") as golden:
        settings: dict[str, dict[str, object]] = json.loads(str(golden["settings"]))
    return settings


@pytest.mark.parametrize(("name", "settings"), cases().items())
def test_pixels_are_timms(name: str, settings: dict[str, object], golden: Path) -> None:
    with np.load(golden / "preprocess.npz") as arrays:
        pixels, expected = arrays[f"{name}.input"], arrays[f"{name}.expected"]
    preprocess = Preprocess.from_dict(settings)
    for image in (pixels, Image.fromarray(pixels)):
        result = preprocess(image)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable
        np.testing.assert_array_equal(result, expected)


def test_a_file_a_image_and_an_array_are_the_same(cat: Path) -> None:
    preprocess = Preprocess((64, 64))
    expected = preprocess(np.asarray(Image.open(cat).convert("RGB")))
    for image in (cat, str(cat), Image.open(cat), decode(cat)):
        np.testing.assert_array_equal(preprocess(image), expected)


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [((3000, 20), (33600, 224), (16688, 0)), ((20, 3000), (224, 33600), (0, 16688)),
     ((1, 1), (224, 224), (0, 0))],
)  # fmt: skip
def test_odd_shapes_are_plain_pillow(
    size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    image, (left, top) = noise(*size), corner
    box = (left, top, left + 224, top + 224)
    expected = np.asarray(image.resize(resized, Image.Resampling.BICUBIC).crop(box))
    np.testing.assert_array_equal(Preprocess((224, 224), crop_pct=1.0)(image), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(640, 31), (31, 640), (500, 470), (90, 100)])
@pytest.mark.parametrize("mode", ["shorter", "squash"])
def test_a_region_alone_gives_the_same_pixels(
    size: tuple[int, int], mode: str, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = Preprocess((48, 64), mode, 0.5, interpolation)
    whole = preprocess(noise(*size)).astype(int)
    monkeypatch.setattr(image_module, "_HUGE_PIXELS", 0)
    monkeypatch.setattr(image_module, "_HUGE_RATIO", 0)
    np.testing.assert_allclose(preprocess(noise(*size)), whole, atol=1)


@pytest.mark.parametrize("length", [100_000, 20_000_000])
@pytest.mark.parametrize("turned", [False, True])
def test_a_thread_of_a_image_takes_little_memory(
    length: int, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, resize = [], Image.Image.resize

    def spy(
        self: Image.Image, size: tuple[int, int], *rest: object, **named: object
    ) -> Image.Image:
        sizes.append(size[0] * size[1])
        return resize(self, size, *rest, **named)  # type: ignore[arg-type]

    half = np.zeros((1, length, 3), np.uint8)
    half[:, length // 2 :] = 255
    # 100 pixels are enough to show what the middle must look like.
    expected = Image.fromarray(half[:, length // 2 - 50 : length // 2 + 50])
    expected = expected.resize((25_600, 256), Image.Resampling.BICUBIC)
    expected = np.asarray(expected.crop((12_688, 16, 12_912, 240)))
    monkeypatch.setattr(Image.Image, "resize", spy)
    pixels = Preprocess((224, 224))(half.swapaxes(0, 1) if turned else half)
    np.testing.assert_allclose(pixels.swapaxes(0, 1) if turned else pixels, expected, atol=1)
    assert sizes == [224 * 224]


@pytest.mark.parametrize("size", [(1, 2**20), (2**20, 1)])
def test_squashing_a_thread_takes_little_memory(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_module, "_HUGE_PIXELS", 2**20)
    sizes, resize = [], Image.Image.resize

    def spy(
        self: Image.Image, size: tuple[int, int], *rest: object, **named: object
    ) -> Image.Image:
        sizes.append(max(size[0] * self.height, size[0] * size[1]))  # rows first, as Pillow 12 does
        return resize(self, size, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    assert Preprocess((32, 32), "squash", 1.0)(Image.new("RGB", size, (1, 2, 3))).max() == 3
    assert max(sizes) <= 2**20


def test_arrays() -> None:
    straight = Preprocess((2, 3), "squash", 1.0)
    grey = np.uint8([[0, 7, 255], [1, 2, 3]])
    colours = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    alpha = np.dstack([colours, np.full((2, 3), 255, np.uint8)])
    alpha[0, 0, 3] = 0
    np.testing.assert_array_equal(straight(grey), np.dstack([grey] * 3))
    np.testing.assert_array_equal(straight(grey[..., None]), np.dstack([grey] * 3))
    np.testing.assert_array_equal(straight(colours), colours)
    np.testing.assert_array_equal(straight(colours[::-1, ::-1]), colours[::-1, ::-1])
    expected = colours.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(straight(alpha), expected)
    one = Preprocess((2, 3), "squash", 1.0, mean=(0.5,), std=(0.5,))
    assert one.in_channels == 1
    np.testing.assert_array_equal(one(grey), grey[..., None])
    red = np.uint8([[[200, 0, 0]] * 3] * 2)
    np.testing.assert_array_equal(one(red), np.full((2, 3, 1), 60))  # 0.299 * 200


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2, 2), bool),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.array(None),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_arrays_that_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError) as caught:
        Preprocess((2, 2))(image)
    assert f"{image.dtype} {image.shape}" in str(caught.value)


@pytest.mark.parametrize("image", [None, 3, {}, [[0]]])
def test_other_things_are_refused(image: object) -> None:
    with pytest.raises(ImageError, match=f"not {type(image).__name__}"):
        Preprocess((2, 2))(image)  # type: ignore[arg-type]


def test_normalize() -> None:
    pixels = np.uint8([[[0, 51, 255]]])
    half = Preprocess((1, 1)).normalize(pixels)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, [[[-1, -0.6, 1]]], rtol=1e-6)
    same = Preprocess((1, 1), mean=(0, 0, 0), std=(1, 1, 1)).normalize(pixels)
    np.testing.assert_allclose(same, [[[0, 0.2, 1]]], rtol=1e-6)
    imagenet = Preprocess((1, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = [-0.485 / 0.229, -0.256 / 0.224, 0.594 / 0.225]
    np.testing.assert_allclose(imagenet.normalize(pixels)[0, 0], expected, rtol=1e-6)
    for wrong in (pixels[..., :1], pixels.astype(np.float32)):
        with pytest.raises(ImageError, match="uint8 with 3 channels last"):
            imagenet.normalize(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", value) for value in (224, [224], (0, 9), (16385, 9), (1.0, 9), (True, 9))]
    + [("resize_mode", value) for value in ("center", None, ["squash"])]
    + [("interpolation", value) for value in ("nearest", 3)]
    + [("crop_pct", value) for value in (0, -1, 1.01, float("nan"), 10**400, "1", True)]
    + [("mean", value) for value in (0.5, (), (0, 0), (0, 0, 10**400), (0, 0, "0"), (0, 0, True))]
    + [("std", value) for value in ((1, 1, 0), (1, 1, -1), (1, 1, float("inf")), [1], "111")],
)
def test_settings_that_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{field} .*;|^mean has 3 numbers and std 1"):
        Preprocess(**{"image_size": (2, 2), field: value})  # type: ignore[arg-type]


def test_dict() -> None:
    values = {
        "image_size": [192, 256],
        "resize_mode": "squash",
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    preprocess = Preprocess.from_dict({**values, "crop_pct": 1, "mean": [0, 0, 0]})
    assert preprocess == Preprocess((192, 256), "squash", 1.0, "bilinear", (0, 0, 0), (1, 1, 1))
    assert json.dumps(preprocess.to_dict()) == json.dumps(values)
    assert hash(preprocess) == hash(Preprocess.from_dict(values))
    with pytest.raises(ConfigError, match="unknown keys: crop"):
        Preprocess.from_dict({**values, "crop": 1})
    del values["std"]
    with pytest.raises(ConfigError, match="lacks std"):
        Preprocess.from_dict(values)
