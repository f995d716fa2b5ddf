"""PyTorch's files, read in this process instead of a child. Needs PyTorch."""

import contextlib
import importlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutate import mutate
from fuzz.target import Target, written
from fuzz.weights import run_safetensors

from mixer_mlx.convert.weights import torch_file
from mixer_mlx.errors import MixerError, SourceError

_CANARY = "canary"


@cache
def _modules() -> tuple[Any, Any]:
    """PyTorch, and the script that reads with it."""
    sys.path.insert(0, str(Path(torch_file.__file__).parent))
    return importlib.import_module("torch"), importlib.import_module("torch_child")


class _Call:
    """Pickled, a call that makes the file `canary` beside the folder of the case."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (f"../{_CANARY}", "w")


@cache
def _samples() -> list[bytes]:
    torch, _ = _modules()
    numbers = torch.arange(12.0).view(3, 4)
    contents = [
        {"w": numbers, "b": numbers.half()[0], "t": numbers.T},
        {"epoch": 3, "args": {"lr": 0.1}, "state_dict": {"w": torch.nn.Parameter(numbers)}},
    ]
    files = [_torch_saved(torch, content, new) for content in contents for new in (True, False)]
    return [*files, pickle.dumps({"w": _Call()}, 2), b"\x80\x02cos\nsystem\nX\x04\0\0\0exit\x85R."]


def _torch_saved(torch: Any, content: object, new: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def _make(chance: Random) -> bytes:
    """A damaged file; or an intact zip around a damaged pickle, which nothing but PyTorch sees."""
    if chance.random() < 0.4:
        return mutate(chance, _samples())
    with zipfile.ZipFile(io.BytesIO(chance.choice(_samples()[::2][:2]))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    others = [_samples()[-2], _samples()[-1], members[name], members[name], members[name]]
    members[name] = mutate(chance, others) if chance.random() < 0.9 else chance.choice(others)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return file.getvalue()


def _run(data: bytes, folder: Path) -> None:
    """As `torch_file.to_safetensors`, without the limits that the other process sets itself."""
    path = written(data, folder, "weights.pth")
    if not torch_file.is_legacy(data[:32]):
        torch_file._check_archive(path)
    _, child = _modules()
    child._limit_memory = lambda more: None
    target = folder / "weights.safetensors"
    # The canary's path is relative.
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()) as said,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        child.main(str(path), str(target))
    answer = json.loads(said.getvalue().splitlines()[-1])
    if "fault" in answer:
        raise SourceError(answer["fault"])
    with contextlib.suppress(MixerError):  # few of them make a Mixer
        run_safetensors(target.read_bytes(), folder)


TARGETS = {"pth in PyTorch": Target(_make, _run)}
