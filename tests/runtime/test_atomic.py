import os
from pathlib import Path

import pytest

from mixer_mlx.runtime import atomic


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_folder_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool
) -> None:
    if not can_swap:
        monkeypatch.setattr(atomic, "_swap", lambda one, other: False)
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic.replacing_folder(target) as temporary:
        (temporary / "new").write_text("new")
        assert os.listdir(target) == ["old"]
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_swapping_is_one_step_here(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not atomic._swap(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system can't exchange two names in one step")
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "b") == ["a"]


def test_what_fails_leaves_no_trace(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic.replacing_folder(tmp_path / "out") as temporary:
        (temporary / "half").write_text("half")
        fail()
    with pytest.raises(KeyboardInterrupt), atomic.replacing_file(tmp_path / "out") as temporary:
        temporary.write_text("half")
        fail()
    assert os.listdir(tmp_path) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with atomic.replacing_file(tmp_path / "out") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "out").read_text() == "old"
    assert (tmp_path / "out").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_temporary_file_is_never_one_that_a_link_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever guesses the temporary name can't have us write elsewhere."""
    monkeypatch.setattr(atomic, "_beside", lambda path: path.parent / ".guessed")
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".guessed").symlink_to("elsewhere")
    with pytest.raises(FileExistsError), atomic.replacing_file(tmp_path / "out") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "precious"
