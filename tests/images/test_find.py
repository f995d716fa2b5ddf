"""Which images are meant by names, and what comes out of archives, hostile ones too."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixer_mlx.errors import ImageError
from mixer_mlx.images import archives, stored, tars
from mixer_mlx.images.decode import LazyImage, decode
from mixer_mlx.images.find import find_images, read_names
from mixer_mlx.images.names import LINK, Skipped

_FILE = io.BytesIO()
Image.new("RGB", (3, 2), (9, 8, 7)).save(_FILE, "PNG")
PNG = _FILE.getvalue()


def names(*given: object, **options: object) -> list[str]:
    return [str(image) for image in find_images(map(str, given), **options)]  # type: ignore[arg-type]


def made(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return folder


# Names


def test_files_are_given_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(tmp_path, "a.png", "notes.txt"))
    assert names("./a.png", "a.png", "notes.txt", "nowhere.png") == [
        *("./a.png", "a.png", "notes.txt", "nowhere.png")
    ]


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    made(tmp_path, "b.PNG", "a/z.jpeg", "a/c.heic", "d.png", "a/b/e.webp", "notes.txt", "x.zip")
    made(tmp_path, ".hidden.png", "._b.png", ".DS_Store", ".git/x.png", "a/._z.jpeg")
    (tmp_path / "link").symlink_to(tmp_path)
    expected = ("b.PNG", "d.png", "a/c.heic", "a/z.jpeg", "a/b/e.webp")
    assert names(tmp_path) == [f"{tmp_path}/{name}" for name in expected]
    assert names(f"{tmp_path}/") == [f"{tmp_path}/{name}" for name in expected]


def test_patterns_that_the_shell_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(tmp_path, "b.jpg", "a.jpg", "c.png", "sub/d.jpg", "sub/e.txt"))
    assert names("*.jpg") == ["a.jpg", "b.jpg"]
    assert names("?.jpg", "[c-z].png") == ["a.jpg", "b.jpg", "c.png"]
    assert names("**/*.jpg") == ["a.jpg", "b.jpg", "sub/d.jpg"]
    assert names("**") == ["a.jpg", "b.jpg", "c.png", "sub/d.jpg", "sub/e.txt"]
    assert names("s*") == ["sub/d.jpg"]
    assert names("*.gif") == ["*.gif"]


def test_deep_patterns_search_what_a_folder_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made(tmp_path, "a/x.jpg", "a/b/x.jpg", "a/b/y.jpg", "a/.h/x.jpg", "a/.x.jpg"))
    made(tmp_path, "c/b/x.jpg", "My.photoslibrary/originals/x.jpg", "My.photoslibrary/r/x.jpg")
    (tmp_path / "one").symlink_to(".")  # with glob, two such links make 2**40 paths
    (tmp_path / "two").symlink_to(".")
    with pytest.warns(RuntimeWarning, match="only `originals` is read"):
        found = names("**/x.jpg")
    inner = ["My.photoslibrary/originals/x.jpg", "a/b/x.jpg", "a/x.jpg", "c/b/x.jpg"]
    assert found == inner
    assert names("a/**/b/*.jpg") == ["a/b/x.jpg", "a/b/y.jpg"]
    assert names("[ac]/**/x.*") == ["a/b/x.jpg", "a/x.jpg", "c/b/x.jpg"]
    assert names(f"{tmp_path}/a/**") == [f"{tmp_path}/a/{n}.jpg" for n in ("b/x", "b/y", "x")]
    assert names("a/**/.x.jpg") == ["a/.x.jpg"]


def test_folders_a_thousand_deep(tmp_path: Path) -> None:
    folders = [str(tmp_path) + "/d" * depth for depth in range(1, 1101)]
    for folder in folders:
        os.mkdir(folder)
    image = f"{folders[-1]}/x.png"
    Path(image).touch()
    assert names(tmp_path) == [image]
    os.remove(image)
    for folder in reversed(folders):  # pytest's own way to remove them is recursive
        os.rmdir(folder)


def test_a_file_wins_over_the_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(tmp_path, "a[1].jpg", "a1.jpg", "[x]/b.png"))
    assert names("a[1].jpg") == ["a[1].jpg"]
    assert names("[x]") == ["[x]/b.png"]
    assert names("[x]/b.png") == ["[x]/b.png"]


def test_lists(tmp_path: Path) -> None:
    made(tmp_path, "a/b.png")
    lines = f"*.jpg\n{tmp_path}/a\r\n\n-\nlast\xff.png".encode("latin-1")
    listed = read_names(io.BytesIO(lines))
    expected = ["*.jpg", f"{tmp_path}/a/b.png", "-", "last\udcff.png", "after"]
    assert names("-", "after", listed=listed) == expected
    assert names("-") == ["-"]


def test_lists_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"one\ntwo\0three four\0\0" + b"x" * 100_000 + b"\0last"
    found = list(read_names(io.BytesIO(data), null=True))
    assert found == ["one\ntwo", "three four", "x" * 100_000, "last"]


def test_lists_are_read_as_they_come() -> None:
    for null, end in ((False, b"\n"), (True, b"\0")):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stream:
            os.write(write, b"first" + end)
            assert next(read_names(stream, null=null)) == "first"  # though there may be more
            os.close(write)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        Path(name).write_bytes(PNG)
    except OSError:
        pytest.skip("NOT RUN: this file system takes text only")
    assert names(tmp_path) == names(name) == names(f"{tmp_path}/*") == [name]
    assert decode(name).size == (3, 2)


def test_urls_go_to_whoever_fetches() -> None:
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return PNG

    found = list(find_images(["https://h/a.png?x=[1]", "HTTP://h/b"], fetch=fetch))
    assert list(map(str, found)) == ["https://h/a.png?x=[1]", "HTTP://h/b"]
    assert asked == []
    assert decode(found[0]).size == (3, 2)
    assert asked == ["https://h/a.png?x=[1]"]
    assert names("-", listed=["https://h/c"], fetch=fetch) == ["https://h/c"]
    assert names("https://h/a.png") == ["https://h/a.png"]


def test_nothing_is_looked_at_in_advance(tmp_path: Path) -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield "a.png"

    assert next(find_images(endless())) == "a.png"


# Archives

MEMBERS = ["z.PNG", "a/b.jpg", "./c.png", "a/notes.txt", "x.zip", "a/b.jpg"]
SHUNNED = [".hidden.png", "a/._b.jpg", "__MACOSX/a.jpg", "../up.png", "a/../../up.png", "/abs.png"]
WANTED = ["z.PNG", "a/b.jpg", "c.png", "a/b.jpg"]
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def tar(*members: str | tarfile.TarInfo, content: bytes = PNG) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return file.getvalue()


def zipped(path: Path, *members: str | zipfile.ZipInfo, content: bytes = PNG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, content)
    return path


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"special{kind.decode()}.png")
    info.type, info.linkname = kind, "z.PNG"
    return info


SPECIALS = [
    special(kind)
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
                 tarfile.DIRTYPE, tarfile.FIFOTYPE)
]  # fmt: skip


@pytest.mark.parametrize("packing", PACKERS)
def test_tar(packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"many.tar{packing}"
    path.write_bytes(PACKERS[packing](tar(*MEMBERS, *SHUNNED, *SPECIALS)))
    found = list(find_images([path]))
    links = ["special1.png", "special2.png"]
    assert list(map(str, found)) == [f"{path}/{name}" for name in [*WANTED, *links]]
    for _ in range(2):  # from what was kept, and from the file again
        assert [decode(image).getpixel((0, 0)) for image in found] == [(9, 8, 7)] * 6
    assert os.listdir(tmp_path) == [path.name]


def test_what_a_tar_gave_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar("a.png"))
    (image,) = find_images([tmp_path / "a.tar"])
    assert isinstance(image, LazyImage)
    assert image.read() == PNG
    (tmp_path / "a.tar").write_bytes(tar())
    with pytest.raises(ImageError, match="leave it unmodified"):
        image.read()


def test_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "many.ZIP", *MEMBERS, *SHUNNED, link, "folder.png/")
    found = list(find_images([path]))
    assert list(map(str, found)) == [f"{path}/{name}" for name in WANTED]
    assert [decode(image).getpixel((0, 0)) for image in found] == [(9, 8, 7)] * 4
    assert os.listdir(tmp_path) == [path.name]


def zip_link(name: str) -> zipfile.ZipInfo:
    link = zipfile.ZipInfo(name)
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return link


def test_links_in_a_zip_give_what_they_lead_to(tmp_path: Path) -> None:
    """As `zip --symlinks` stores them: a member of a link's kind whose content is its target."""
    targets = {
        **{"a/1.png": "../blobs/abc", "a/2.png": "1.png", "a/3.png": "./../a/2.png"},
        **{"out.png": "../out/x.png", "root.png": "/blobs/abc", "loop.png": "loop.png"},
        **{"folder.png": "blobs", "gone.png": "blobs/def", "long.png": "x/" * 2050},
    }
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, target in targets.items():
            archive.writestr(zip_link(name), target)
        archive.writestr("blobs/", b"")
        archive.writestr("blobs/abc", PNG)
    found = list(find_images([path]))
    assert list(map(str, found)) == [f"{path}/a/{i}.png" for i in (1, 2, 3)]
    assert [decode(image).getpixel((0, 0)) for image in found] == [(9, 8, 7)] * 3
    skipped = Skipped()
    archives.all_images_in(str(path), memory_bytes=0, skipped=skipped)
    assert skipped[LINK] == 6


def the_one_error(path: Path) -> str:
    """The text of the error that stands in the place of a broken archive, after what was whole."""
    *_, last = find_images([path, "next.png"])
    assert last == "next.png"
    *_, broken = find_images([path])
    assert str(broken) == str(path)
    with pytest.raises(ImageError) as caught:
        decode(broken)
    assert str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".txz"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", PNG])
def test_what_is_no_archive_is_one_error(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    assert "archive" in the_one_error(path)
    assert len(names(path)) == 1


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_tar_gives_what_it_has(packing: str, part: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(
        0
    )  # nothing shrinks, so the part of the file is the part of the tar
    parts = [tar(f"{i}.png", content=noise.bytes(20_000))[:20_992] for i in range(10)]
    whole = PACKERS[packing](b"".join(parts))
    path = tmp_path / f"cut.tar{packing}"
    path.write_bytes(whole[: int(len(whole) * part) + 1000])
    assert "can't be read" in the_one_error(path)
    assert len(names(path)) <= 10 * part + 1
    assert packing == ".bz2" or len(names(path)) >= 10 * part - 1


def test_a_tar_with_a_broken_header_is_not_taken_for_its_end(tmp_path: Path) -> None:
    data = bytearray(tar("a.png", "b.png", "c.png"))
    assert data[1024:1029] == b"b.png"
    data[1030] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert "damaged header" in the_one_error(tmp_path / "a.tar")
    assert names(tmp_path / "a.tar") == [f"{tmp_path}/a.tar/a.png", f"{tmp_path}/a.tar"]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-512, -10_240, 2**40])
def test_sizes_of_tars_that_mean_harm(kind: bytes, size: int, tmp_path: Path) -> None:
    """A negative size leads back to where reading was before; a long name is read at once."""
    header = tarfile.TarInfo("b.txt")
    header.type, header.size = kind, size
    block = header.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(tar("a.png")[:1024] + block + tar("c.png"))
    assert "can't be read" in the_one_error(tmp_path / "a.tar")


def test_encrypted_and_damaged_members_are_errors_of_their_own(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "a.png", "b.png", "c.png")
    data = path.read_bytes()
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data = data[: second + 8] + b"\1\0" + data[second + 10 :]  # the flag "encrypted"
    third = data.index(b"c.png") + 5
    path.write_bytes(data[: third + 20] + bytes([data[third + 20] ^ 255]) + data[third + 21 :])
    good, encrypted, damaged = find_images([path])
    assert decode(good).size == (3, 2)
    with pytest.raises(ImageError, match="encrypted"):
        decode(encrypted)
    with pytest.raises(ImageError, match="damaged"):
        decode(damaged)


def test_more_than_deflate_can_do_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.bmp", bytes(10_000_000))
    assert "claims over 1100 times" in the_one_error(tmp_path / "a.zip")
    path = zipped(tmp_path / "b.zip", "a.bmp", content=bytes(10_000_000))  # 1 : 1000
    with pytest.raises(ImageError, match="isn't an image"):
        decode(*find_images([path]))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_limits(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    members = ["a.png", "b.txt", "c.png"]
    if suffix == ".zip":
        zipped(path, *members)
    else:
        path.write_bytes(tar(*members))
    for module in (archives, stored, tars):
        monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 1024)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert names(path) == [f"{path}/a.png", f"{path}/c.png"]
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert names(path) == [f"{path}/a.png", str(path)]
    assert "more than 2 files" in the_one_error(path)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    if suffix == ".zip":
        monkeypatch.setattr(stored, "MAX_MEMBER_BYTES", len(PNG) - 1)
        for image in find_images([path]):
            with pytest.raises(ImageError, match=f"has {len(PNG)} bytes"):
                decode(image)


def test_a_large_member_of_a_tar_is_passed_over(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("huge.png")
    huge.size = stored.MAX_MEMBER_BYTES + 1
    path = tmp_path / "a.tar"
    with path.open("wb") as file:  # sparse
        file.write(huge.tobuf(tarfile.GNU_FORMAT))
        file.seek(512 + -(-huge.size // 512) * 512)
        file.write(tar("after.png"))
    first, second = find_images([path])
    with pytest.raises(ImageError, match=r"use one of at most 268,435,456"):
        decode(first)
    assert decode(second).size == (3, 2)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write less than it is given, e.g. beyond 2 GiB."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    stored.OpenFile(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)).write(2, b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"\0\0" + b"0123456789"


def test_archives_have_to_be_files(tmp_path: Path) -> None:
    made(tmp_path, "folder.zip/a.png")
    assert names(tmp_path / "folder.zip") == [f"{tmp_path}/folder.zip/a.png"]
    assert names(tmp_path / "nowhere.tar") == [f"{tmp_path}/nowhere.tar"]
    os.mkfifo(tmp_path / "fifo.tar.gz")
    assert names(tmp_path / "fifo.tar.gz") == [f"{tmp_path}/fifo.tar.gz"]


def test_a_zip64_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 0, 0, 0, 0, 0))
    assert names(tmp_path / "a.zip") == []
