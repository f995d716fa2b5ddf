"""`mixer convert`, with every write, flush, rename, new folder and removal failing or fatal.

Whatever happens, OUT is absent or whole, an old model stays or is replaced by the new one, and
the next run succeeds. After an error there is one sentence, exit code 1, and no other file.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from faults.strace import FAULTS, Record, Run, check_error, injection, missing, run

from mixer_mlx.convert import Settings, convert, import_model

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: needs {missing()}")

Content = dict[str, bytes]


def content(folder: Path) -> Content:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> dict[str, Content]:
    """Two models as they must be on the disk; the new one gives the golden logits."""
    folder = tmp_path_factory.mktemp("models")
    settings = Settings(image_size=(24, 32))
    convert(golden / "timm_tiny.safetensors", folder / "old", settings=settings)
    convert(golden / "jax_square.npz", folder / "new")
    expected = np.load(golden / "jax_square_expected.npz")
    logits = import_model(folder / "new").model(mx.array(expected["images"]))
    np.testing.assert_allclose(np.array(logits), expected["logits"], atol=2e-5)
    return {name: content(folder / name) for name in ("old", "new")}


class Scene:
    """A folder in which `out` is absent, or an old model."""

    def __init__(self, folder: Path, golden: Path, models: dict[str, Content], old: bool) -> None:
        self.folder, self.models, self.old = folder, models, old
        self.source = golden / "jax_square.npz"
        self.out = folder / "out"

    def reset(self) -> None:
        for path in self.folder.iterdir():
            _remove(path)
        if self.old:
            self.out.mkdir()
            for name, data in self.models["old"].items():
                (self.out / name).write_bytes(data)

    def convert(self, *injections: str) -> Run:
        force = ["--force"] if self.old else []
        return run(["convert", self.source, "out", *force], self.folder, *injections)

    def state(self) -> str:
        """ "absent", "old" or "new"; asserts that `out` is in no other state."""
        if not self.out.exists():
            return "absent"
        found = content(self.out)
        [name] = [name for name, model in self.models.items() if model == found]
        return name

    def check_next_run(self) -> None:
        convert(self.source, self.out, force=True)
        assert self.state() == "new"


def _remove(path: Path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            _remove(inside)
        path.rmdir()
    else:
        path.unlink()


def check(scene: Scene, effect: str, kind: str, nth: int) -> str | None:
    """One run with the nth call of a kind failing; how `out` is then, None if none failed."""
    scene.reset()
    run = scene.convert(injection(effect, kind, nth))
    if not run.hit and run.code != -9:
        assert run.code == 0
        return None
    state = scene.state()
    assert state in {"old" if scene.old else "absent", "new"}, f"{kind} {nth}"
    if effect == "kill":
        assert run.code == -9
    elif run.code == 0:
        assert state == "new"
    else:
        check_error(run)
    if effect != "kill" and kind != "unlink":
        assert [path.name for path in scene.folder.iterdir()] in ([], ["out"])
    scene.check_next_run()
    return f"exit {run.code}, {state}"


@pytest.fixture(params=[False, True], ids=["new", "replace"])
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, golden: Path, models: dict[str, Content]
) -> Scene:
    return Scene(tmp_path, golden, models, request.param)


@pytest.mark.parametrize(
    ("effect", "kind", "nth"), [("ENOSPC", "write", 3), ("kill", "rename", 1), ("EIO", "fsync", 2)]
)
def test_one_fault_of_a_kind(scene: Scene, effect: str, kind: str, nth: int) -> None:
    assert check(scene, effect, kind, nth)


def test_the_old_model_is_kept_where_folders_cannot_change_places(
    tmp_path: Path, golden: Path, models: dict[str, Content]
) -> None:
    """On some file systems two renames are needed. Killed between them, both models are whole,
    under hidden names."""
    scene = Scene(tmp_path, golden, models, old=True)
    scene.reset()
    run = scene.convert("renameat2:error=ENOSYS", "rename,renameat:signal=SIGKILL:when=2")
    assert (run.code, scene.state()) == (-9, "absent")
    left = [content(path) for path in tmp_path.iterdir()]
    assert len(left) == 2
    assert models["old"] in left
    assert models["new"] in left
    scene.check_next_run()


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "kind"), FAULTS)
def test_every_fault(scene: Scene, effect: str, kind: str, record: Record) -> None:
    scene.reset()
    made = scene.convert().counts[kind]
    test = f"convert: {effect} at {kind}, {'replacing a model' if scene.old else 'a new folder'}"
    for nth in range(1, made + 1):
        if state := check(scene, effect, kind, nth):
            record(test, state)
    assert check(scene, effect, kind, made + 1) is None
