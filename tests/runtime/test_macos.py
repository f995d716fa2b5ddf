"""macOS adds `.DS_Store` to folders that the Finder shows, `._NAME` on disks of other systems."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from mixer_mlx import checkpoint
from mixer_mlx.cli.main import _end
from mixer_mlx.convert import export
from mixer_mlx.convert.fetch import cache, hub
from mixer_mlx.convert.weights.source import open_source
from mixer_mlx.data.read import read_split
from mixer_mlx.errors import CheckpointError, ImageError
from mixer_mlx.images.decode import decode
from mixer_mlx.images.find import find_images
from mixer_mlx.runtime import atomic
from mixer_mlx.training.run import Run

ADDED = (".DS_Store", "._config.json", "._model.safetensors", "._run.json", "._x.npz")


def visited(folder: Path) -> Path:
    """The folder as macOS leaves it."""
    for name in ADDED:
        (folder / name).write_bytes(b"\0\5\x16\7")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model."""
    built_in = checkpoint.__file__.replace("checkpoint.py", "models/cifar10")
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(f"{built_in}/{name}", folder / name)
    return visited(folder)


def test_a_model_folder_is_read_and_replaced(model: Path) -> None:
    info = checkpoint.read_info(model)
    checkpoint.save(model, checkpoint.load(model), info, force=True)
    assert sorted(os.listdir(model)) == ["config.json", "model.safetensors"]
    export(str(visited(model)), model, format="timm", force=True)
    assert sorted(os.listdir(model)) == ["config.json", "model.safetensors"]
    (visited(model) / ".hidden").touch()
    with pytest.raises(CheckpointError, match=r"\.hidden"):
        checkpoint.check_target(model, force=True)


def test_a_run_begins_in_a_folder_that_the_finder_showed(tmp_path: Path) -> None:
    run = Run(visited(tmp_path), None)  # type: ignore[arg-type]
    run._check_free(force=False)
    (tmp_path / "run.json").write_text("{}")
    run._check_free(force=True)


def test_foreign_weights_have_no_second_file(golden: Path, tmp_path: Path) -> None:
    shutil.copyfile(golden / "jax_square.npz", tmp_path / "weights.npz")
    assert open_source(visited(tmp_path)).path.name == "weights.npz"
    assert hub.choose("a/b", ["._x.safetensors", "x.safetensors"]) == ("x.safetensors",)


def test_the_size_of_a_cached_model_is_its_own(model: Path) -> None:
    size = cache.Cached(model, "a", "b", "float32").size
    assert size == sum((model / n).stat().st_size for n in ("config.json", "model.safetensors"))


def test_a_temporary_folder_is_renamed_while_macos_adds_to_it(tmp_path: Path) -> None:
    with atomic.replacing_folder(tmp_path / "out") as temporary:
        (temporary / "._new").symlink_to("gone")  # can't be synced
        (temporary / "new").touch()
    assert (tmp_path / "out" / "new").exists()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """SMB and FUSE answer EINVAL or ENOTSUP; a file must be synced all the same."""

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}") or broken:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    broken = False
    with atomic.replacing_folder(tmp_path / "a") as temporary:
        (temporary / "x").touch()
    with atomic.replacing_file(tmp_path / "b") as file:
        file.touch()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    broken = True
    with (
        pytest.raises(OSError, match=os.strerror(number)),
        atomic.replacing_file(tmp_path / "c") as c,
    ):
        c.touch()


def test_of_a_photo_library_the_originals_are_read(tmp_path: Path) -> None:
    """Photos keeps `originals` beside `resources/derivatives`, which holds smaller copies."""
    library = tmp_path / "Pictures" / "Photos Library.photoslibrary"
    for name in (
        "originals/A/A1.heic",
        "resources/derivatives/A/A1_1_105_c.jpeg",
        "resources/renders/A/A1.jpeg",
        "../own/b.jpg",
        "../Some.app/Contents/icon.png",
        "../originals/c.jpg",
    ):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).touch()
    with pytest.warns(RuntimeWarning) as said:
        found = [str(image) for image in find_images([library.parent])]
    assert [os.path.basename(path) for path in found] == ["A1.heic", "c.jpg", "b.jpg"]
    assert {"originals" in str(one.message) for one in said} == {True, False}
    assert len(said) == 2
    with pytest.warns(RuntimeWarning, match="only `originals` is read"):
        assert list(find_images([f"{library}/"])) == [f"{library}/originals/A/A1.heic"]
    assert list(find_images([library.parent / "own"])) == [f"{library.parent}/own/b.jpg"]


@pytest.mark.parametrize("opens", [False, True])
def test_a_folder_that_macos_keeps_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    """Without the user's consent, EPERM (not EACCES) where a folder or file would be read."""

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    for name in ("scandir", "listdir", *(() if opens else ("open",))):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(sys, "platform", "darwin")
    (image,) = find_images([tmp_path])
    with pytest.raises(ImageError, match="System Settings > Privacy"):
        decode(image)
    with pytest.raises(PermissionError) as caught:
        read_split(tmp_path)
    assert _end(caught.value) == 1
