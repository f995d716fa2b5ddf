"""PyTorch files: what is read of them, what is refused, and that no code of theirs runs."""

import gc
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from mixer_mlx import ConversionError, SourceError
from mixer_mlx.checkpoint import read_header
from mixer_mlx.convert import convert, import_model
from mixer_mlx.convert.timm_config import Settings
from mixer_mlx.convert.weights import torch_file
from mixer_mlx.convert.weights.source import open_source

Answers = dict[str, dict[str, object]]

SIZE = Settings(image_size=(24, 32))
MAGIC = 0x1950A86A20F9469CFC6C
needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="NOT RUN: needs PyTorch (pip install 'mixer-mlx[torch]')"
)

# Files as PyTorch writes them, made in a process of its own, as they are read in one.
MAKE = """
import argparse, collections, sys, numpy, torch
from safetensors.torch import load_file
golden, folder = sys.argv[1:]
weights = load_file(f"{golden}/timm_tiny.safetensors")
zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
trained = load_file(f"{golden}/timm_cifar10/model.safetensors")
trained = {f"module.{name}": value for name, value in trained.items()}
flat = torch.cat([value.flatten() for value in weights.values()])
parts = flat.split([value.numel() for value in weights.values()])
views = {name: part.view(value.shape) for part, (name, value) in zip(parts, weights.items())}
numbers = torch.arange(12.0).view(3, 4)
parameters = collections.OrderedDict(w=torch.nn.Parameter(numbers))
parameters._metadata = {"": {"version": 1}}
beside = {
    "epoch": 3, "loss": 0.5, "history": [1, None, {"best": (True, "b/16")}],
    "args": argparse.Namespace(lr=0.1, sizes=[24, 32]),
    "optimizer": {"state": {0: {"step": torch.tensor(7), "exp_avg": zeros}}, "param_groups": []},
}
files = {
    "wrapped": {**beside, "model": {f"_orig_mod.module.{n}": v for n, v in weights.items()}},
    "ema": {"model": zeros, **beside, "state_dict": zeros, "state_dict_ema": weights},
    "repository": {"state_dict": {}, "state_dict_ema": trained},
    "float16": {"w": numbers.half()},
    "bfloat16": {"w": numbers.bfloat16()},
    "float64": {"w": numbers.double() / 3},
    "views": views,
    "tied": {"a": numbers, "b": numbers, "c": numbers.T, "d": numbers[1:, ::2]},
    "parameters": parameters,
    "complex": {"w": numbers.to(torch.complex64)},
    "averaged": {"n_averaged": torch.tensor(3), **{f"module.{n}": v for n, v in weights.items()}},
    "model_ema": {"model": zeros, "model_ema": weights, **beside},
    "lone": {"weights": weights, "metrics": {"accuracy": torch.tensor(0.5)}, **beside},
    "deeper": {"net": {"weights": weights, "version": 2}, **beside},
    "configured": {"model": {"name": "mixer"}, "net": weights},
    "several": {"net": weights, "ema": zeros},
    "sparse": {"w": numbers.to_sparse()},
    "rows": {"w": numbers.to_sparse_csr()},
    "quantised": {"w": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8)},
    "meta": {"w": numbers.to("meta")},
    "expanded": {"w": torch.zeros(1).expand(2**20, 2**10)},
    "tensor": numbers,
    "nothing": {},
    "number": {"w": numbers, "epoch": 3},
    "unnamed": {0: numbers},
    "module": {"model": torch.nn.Linear(2, 2)},
    "scalar": {**beside, "state_dict": weights, "best": numpy.float64(0.5)},
}
for name, content in files.items():
    torch.save(content, f"{folder}/{name}")
beside["state_dict"] = weights
torch.save(beside, f"{folder}/legacy", _use_new_zipfile_serialization=False)
torch.serialization.set_crc32_options(False)
torch.save(weights, f"{folder}/unchecked")
"""
# What torch_file runs, for many files in one process.
READ = """
import sys
sys.path.insert(0, sys.argv[1])
import torch_child
for path in sys.argv[2:]:
    torch_child.main(path, f"{path}.safetensors")
torch_child.main(next(path for path in sys.argv if path.endswith("/float16")), "no/folder")
"""


class Call:
    """Pickled, it is a call of a function, which unpickling makes."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __call__(self) -> None:
        """pickle asks that a function can be called."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def calls(canary: Path) -> dict[str, Call]:
    """Pickled calls that make the file `canary`, by the name of the global they need."""
    write = f"open({str(canary)!r}, 'w').close()"
    return {
        "posix.system": Call(os.system, f"touch '{canary}'"),
        "eval": Call(eval, write),
        "exec": Call(exec, write),
        "shutil.copyfile": Call(shutil.copyfile, __file__, str(canary)),
        "subprocess.call": Call(subprocess.call, ["touch", str(canary)]),
        "getattr": Call(Call(getattr, Call(__import__, "os"), "system"), f"touch '{canary}'"),
    }


def in_zip(body: bytes, storages: tuple[bytes, ...] = ()) -> bytes:
    """A file of PyTorch's zip format around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", "3\n")
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage)
    return file.getvalue()


def in_legacy(body: bytes, storages: tuple[bytes, ...] = (), info: bytes | None = None) -> bytes:
    """A file of PyTorch's format before that: float32 storages behind the pickles."""
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), info or pickle.dumps(sizes, 2), body]
    keys = pickle.dumps([str(number) for number in range(len(storages))], 2)
    tail = [struct.pack("<q", len(storage) // 4) + storage for storage in storages]
    return b"".join([*head, keys, *tail])


def text(value: str) -> bytes:
    data = value.encode(errors="surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def tensors(
    name: str,
    numel: int,
    shape: list[int],
    stride: list[int],
    *,
    offset: int = 0,
    old: bool = False,
) -> bytes:
    """The pickle of {name: float32 tensor} on storage 0, which is said to hold `numel` numbers."""
    view = b"N" if old else b""
    key = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    storage = b"(" + key + number(numel) + view + b"tQ"
    sides = b"".join(b"(" + b"".join(map(number, part)) + b"t" for part in (shape, stride))
    arguments = b"(" + storage + number(offset) + sides + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}" + text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def hostile(canary: Path) -> dict[str, bytes]:
    """Pickles that want code to run, by what the refusal says."""
    bodies = {
        name: pickle.dumps({"state_dict": {}, "args": call}, 2, fix_imports=False)
        for name, call in calls(canary).items()
    }
    touch = f"touch '{canary}'"
    from_bytes = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(bodies["eval"]))
    return {
        **bodies,
        "os.system": b"\x80\x02(cos\nsystem\n" + text(touch) + b"o.",
        "Unsupported operand 105": b"\x80\x02(" + text(touch) + b"ios\nsystem\n.",
        "Unsupported operand 149": pickle.dumps(Call(os.system, touch), 4),
        "Unsupported operand 147": b"\x80\x02" + text("os") + text("system") + b"\x93)R.",
        "unrecognized function os.system": b"\x80\x02"
        + text("os.system")
        + text(touch)
        + b"\x85R.",
        "torch.storage._load_from_bytes": b"\x80\x02" + from_bytes + bodies["eval"] + b"tR.",
        "torch.load": b"\x80\x02ctorch\nload\n" + text(str(canary)) + b"\x85R.",
        "canary_module.Thing": b"\x80\x02ccanary_module\nThing\n)\x81}b.",
        "argparse._sys.modules": b"\x80\x02cargparse\n_sys.modules\n.",
        "Can only build": b"\x80\x02" + text("a") + b"}" + text("__class__") + text("b") + b"sb.",
        "Can only append": b"\x80\x02}" + text("a") + b"a.",
        "Can only SETITEM": b"\x80\x02]" + text("a") + text("b") + b"s.",
    }


def broken(legacy: bytes) -> dict[str, tuple[bytes, str]]:
    """Damaged files -> their content, and what the refusal says."""
    four = (bytes(16),)
    files = {
        "shape": (in_zip(tensors("a", 4, [5], [1]), four), "PyTorch file"),
        "offset": (in_zip(tensors("a", 4, [4], [1], offset=1), four), "PyTorch file"),
        "offset < 0": (in_zip(tensors("a", 4, [4], [1], offset=-1), four), "offset -1"),
        "stride < 0": (in_zip(tensors("a", 4, [4], [-1]), four), "PyTorch file"),
        "overflow": (in_zip(tensors("a", 4, [2**62, 2**62], [0, 0]), four), "overflow"),
        "short": (in_zip(tensors("a", 8, [8], [1]), four), "record size"),
        "long": (in_zip(tensors("a", 2, [2], [1]), four), "record size"),
        "no storage": (in_zip(tensors("a", 4, [4], [1])), "data/0: file not found."),
        "lying": (in_legacy(tensors("a", 4, [4], [1], old=True), (bytes(20),)), "byte size"),
        "no pickle": (in_zip(b""), "EOFError"),
        "no stop": (in_zip(b"\x80\x02}"), "EOFError"),
        "garbage": (in_zip(b"\x80\x02abc"), "PyTorch file"),
        "surrogate": (in_zip(tensors("\ud800", 4, [4], [1]), four), "surrogates"),
    }
    if sys.platform == "linux":  # macOS allows more, see torch_child
        bomb = in_legacy(tensors("a", 2**29, [2**29], [1], old=True), four)  # of 2 GiB
        files["bomb"] = bomb, "needs more memory"
    for cut in (32, 60, 120, len(legacy) // 2, len(legacy) - 1):
        files[f"cut {cut}"] = legacy[:cut], "PyTorch file"
    return files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """A folder with the files that MAKE writes."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, "-c", MAKE, golden, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def answers(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What reading each file says; the tensors stand in `made`/NAME.safetensors."""
    folder = tmp_path_factory.mktemp("canaries")
    canary = folder / "canary"
    (folder / "canary_module.py").write_text(f"open({str(canary)!r}, 'w').close()")
    bodies = hostile(canary)
    files = {f"zip {name}": in_zip(body) for name, body in bodies.items()}
    files |= {f"legacy {name}": in_legacy(body) for name, body in bodies.items()}
    files["legacy info"] = in_legacy(b"\x80\x02}.", info=bodies["eval"])
    files |= {name: body for name, (body, _) in broken((made / "legacy").read_bytes()).items()}
    files["whole"] = in_legacy(
        tensors("a", 4, [4], [1], old=True), (np.arange(4, dtype="f4").tobytes(),)
    )
    for name, content in files.items():
        (made / name).write_bytes(content)
    names = sorted(path.name for path in made.iterdir())
    run = subprocess.run(
        [sys.executable, "-c", READ, Path(torch_file.__file__).parent, *(made / n for n in names)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    found = [json.loads(line) for line in run.stdout.splitlines() if line]
    assert not canary.exists(), "code of a file ran"
    return dict(zip([*names, "unwritable"], found, strict=True))


def parameters(path: Path) -> dict[str, np.ndarray]:
    model = import_model(path, settings=SIZE).model
    return {name: np.array(value) for name, value in tree_flatten(model.parameters())}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, for one test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@needs_torch
def test_the_weights_of_pytorchs_own_file(golden: Path, scratch: Path) -> None:
    source = open_source(golden / "timm_tiny.pth")
    found, content = source.read(), (golden / "timm_tiny.pth").read_bytes()
    assert (source.kind, source.notes) == ("torch", ())
    assert source.sha256() == hashlib.sha256(content).hexdigest()
    assert len(list(scratch.iterdir())) == 1
    del source
    gc.collect()
    assert list(scratch.iterdir()) == []
    # They are read when they are evaluated, which is now, after the folder went.
    expected = load_file(golden / "timm_tiny.safetensors")
    assert same({name: np.array(value) for name, value in found.items()}, expected)


@needs_torch
def test_pytorch_is_not_imported_by_the_reader(golden: Path) -> None:
    """In a process of its own: tensorboardX, in another test, imports PyTorch if it is there."""
    code = """
import sys
from pathlib import Path
from mixer_mlx.convert.weights.source import open_source
print(len(open_source(Path(sys.argv[1])).read()), "torch" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(golden / "timm_tiny.pth")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    count = len(load_file(golden / "timm_tiny.safetensors"))
    assert run.stdout == f"{count} False\n"


@needs_torch
def test_a_repository_with_a_pytorch_file(golden: Path, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(golden / "timm_cifar10" / "config.json", folder)
    shutil.copy(made / "repository", folder / "pytorch_model.bin")
    imported = convert(folder, tmp_path / "model")
    assert imported.assumed == ("weights of state_dict_ema, not of state_dict",)
    assert imported.info.source["file"] == "pytorch_model.bin"
    expected = np.load(golden / "timm_cifar10" / "expected.npz")
    logits = np.array(imported.model(mx.array(expected["pictures"]) / 127.5 - 1))
    assert abs(logits - expected["logits"]).max() < 1e-4


@needs_torch
@pytest.mark.parametrize(
    ("name", "notes"),
    [
        *((name, []) for name in ("wrapped", "views", "legacy", "unchecked", "averaged")),
        ("ema", ["weights of state_dict_ema, not of state_dict and model"]),
        ("model_ema", ["weights of model_ema, not of model"]),
        ("lone", ["weights of weights, the only state dict in the file"]),
        ("deeper", ["weights of net.weights, the only state dict in the file"]),
        ("configured", ["weights of net, the only state dict in the file"]),
    ],
)
def test_state_dicts_as_training_code_writes_them(
    golden: Path, made: Path, answers: Answers, name: str, notes: list[str]
) -> None:
    assert answers[name] == {"notes": notes}
    found = parameters(made / f"{name}.safetensors")
    assert same(found, parameters(golden / "timm_tiny.safetensors"))


@needs_torch
def test_tensors_that_share_memory(made: Path, answers: Answers) -> None:
    assert answers["tied"] == {"notes": []}
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {"a": numbers, "b": numbers, "c": numbers.T, "d": numbers[1:, ::2]}
    assert same(load_file(made / "tied.safetensors"), expected)
    assert same(load_file(made / "parameters.safetensors"), {"w": numbers})
    assert same(load_file(made / "whole.safetensors"), {"a": np.arange(4, dtype=np.float32)})


@needs_torch
@pytest.mark.parametrize(
    ("name", "dtype"), [("float16", "F16"), ("bfloat16", "BF16"), ("float64", "F64")]
)
def test_floats_keep_their_format(made: Path, answers: Answers, name: str, dtype: str) -> None:
    assert answers[name] == {"notes": []}
    path = made / f"{name}.safetensors"
    assert read_header(path) == {"w": ((3, 4), dtype)}
    numbers = np.arange(12.0).reshape(3, 4)
    if name == "float64":
        assert np.array_equal(load_file(path)["w"], numbers / 3)
    else:
        assert np.array_equal(np.array(mx.load(str(path))["w"].astype(mx.float32)), numbers)


@needs_torch
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("complex", "can't be used: w holds complex64, not floating-point numbers"),
        ("several", "holds several state dicts (net, ema); save the one to use in a file of"),
        ("sparse", "can't be used: w isn't a dense tensor with values"),
        ("rows", "can't be used: w isn't a dense tensor with values"),
        ("quantised", "can't be used: w holds qint8, not floating-point numbers"),
        ("meta", "can't be used: w isn't a dense tensor with values"),
        ("expanded", "can't be used: its tensors are larger than the file"),
        ("tensor", "holds a value of type Tensor instead of a state dict"),
        ("nothing", "holds no tensors"),
        ("number", "holds 'epoch' of type int where a state dict has named tensors"),
        ("unnamed", "holds 0 of type Tensor where a state dict has named tensors"),
        ("module", "holds torch.nn.modules.linear.Linear, which is code"),
        ("scalar", "multiarray.scalar, which is code"),
    ],
)
def test_what_is_no_state_dict_of_floats(answers: Answers, name: str, says: str) -> None:
    assert says in str(answers[name]["fault"])


@needs_torch
def test_no_code_of_a_file_runs(answers: Answers, tmp_path: Path) -> None:
    """The fixture looks for the canary; here each file is refused for what it is."""
    for says in hostile(tmp_path):
        for form in ("zip", "legacy"):
            fault = str(answers[f"{form} {says}"]["fault"])
            assert says in fault, (form, fault)
    assert "holds eval, which is code" in str(answers["legacy info"]["fault"])


@needs_torch
def test_a_folder_that_can_not_be_written_to(answers: Answers) -> None:
    assert "can't be written to no (" in str(answers["unwritable"]["fault"])


def test_the_canaries_bite(tmp_path: Path) -> None:
    """Python's own unpickler does run them."""
    canary = tmp_path / "canary"
    for name, call in calls(canary).items():
        pickle.loads(pickle.dumps(call, 2))  # noqa: S301  # ours
        assert canary.exists(), name
        canary.unlink()


@needs_torch
def test_a_global_is_named_to_the_user(tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "weights.safetensors"  # the name says nothing
    path.write_bytes(in_zip(pickle.dumps({"args": Call(eval, "1")}, 2)))
    with pytest.raises(SourceError, match=r"weights\.safetensors holds eval, which.*state_dict"):
        import_model(path)
    gc.collect()
    assert list(scratch.iterdir()) == []


@needs_torch
def test_damage_is_one_sentence(made: Path, answers: Answers) -> None:
    for name, (_, says) in broken((made / "legacy").read_bytes()).items():
        fault = f"{answers[name].get('fault')}."
        assert says in fault, (name, fault)
        assert "\n" not in fault
        assert ". " not in fault


@pytest.fixture
def torch_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is taken to be installed, and nothing may start it."""
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.0+cpu")

    def run(path: Path, target: Path) -> dict[str, list[str]]:
        raise AssertionError(f"{path} was given to PyTorch")

    monkeypatch.setattr(torch_file, "_run", run)


@pytest.mark.usefixtures("torch_is_here")
def test_damage_in_an_archive_is_noticed_before_pytorch_starts(
    golden: Path, tmp_path: Path
) -> None:
    content = (golden / "timm_tiny.pth").read_bytes()
    path = tmp_path / "weights.pth"
    for cut in range(0, len(content), len(content) // 50):
        path.write_bytes(content[:cut])
        with pytest.raises(SourceError, match=r"weights\.pth isn't a "):
            import_model(path)
    with zipfile.ZipFile(golden / "timm_tiny.pth") as archive:
        storage = archive.read(next(name for name in archive.namelist() if "/data/" in name))
    place = content.index(storage)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(SourceError, match=r"a readable PyTorch file: its member .* is damaged"):
        import_model(path)


def test_an_archive_may_leave_out_all_checksums_but_not_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.0")
    monkeypatch.setattr(torch_file, "_run", lambda path, target: {"notes": ["read"]})
    path = tmp_path / "weights.pth"
    for left_out in (slice(None), slice(1)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"a")
            archive.writestr("archive/version", b"3")
            for member in archive.infolist()[left_out]:
                member.CRC = 0
        if left_out == slice(None):
            assert torch_file.to_safetensors(path).notes == ("read",)
    with pytest.raises(SourceError, match=r"its member archive/data\.pkl is damaged"):
        torch_file.to_safetensors(path)


@pytest.mark.usefixtures("torch_is_here")
def test_a_bomb_is_refused_before_pytorch_starts(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    with pytest.raises(SourceError, match=r"its member archive/data\.pkl is compressed"):
        import_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
        archive.filelist.extend(archive.filelist * 2)  # on the same bytes
    with pytest.raises(SourceError, match="its members are larger than the file"):
        import_model(path)


@pytest.mark.usefixtures("torch_is_here")
def test_what_is_no_pytorch_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(4096)
    plain = pickle.dumps({"state_dict": Call(os.system, f"touch '{tmp_path / 'canary'}'")}, 2)
    archive = in_zip(b"").replace(b"data.pkl", b"data.txt")
    for content in (noise, b"\x80\x02" + noise, plain, archive, pickle.dumps(MAGIC, 2)[:13]):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(SourceError, match=r"weights\.pth isn't a "):
            import_model(tmp_path / "weights.pth")
    assert not (tmp_path / "canary").exists()


def test_without_pytorch(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(
        SourceError,
        match=r"timm_tiny\.pth needs PyTorch to be read; install it "
        r"\(pip install 'mixer-mlx\[torch\]'\), or give the \.safetensors file\.",
    ):
        import_model(golden / "timm_tiny.pth")


@pytest.mark.parametrize("version", ["2.9.1", "1.13.1+cpu", "?"])
def test_a_pytorch_with_known_holes_is_refused(
    golden: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(SourceError, match=r"needs PyTorch 2\.10 or later.*update it"):
        torch_file.to_safetensors(golden / "timm_tiny.pth")


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0+git1"])
def test_a_later_pytorch_is_used(
    golden: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    monkeypatch.setattr(torch_file, "_run", lambda path, target: {"notes": ["read"]})
    assert torch_file.to_safetensors(golden / "timm_tiny.pth").notes == ("read",)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9.*memory"),
        ("import time; time.sleep(60)", "was not read within 0 seconds"),
        ("raise ImportError('no libtorch')", r"failed \(ImportError: no libtorch\)"),
        ("import a_module_beside", "No module named 'a_module_beside'"),
    ],
)
def test_a_process_that_fails(
    golden: Path,
    tmp_path: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    says: str,
) -> None:
    (tmp_path / "a_module_beside.py").touch()
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(torch_file, "_CHILD", tmp_path / "child.py")
    if "sleep" in script:
        monkeypatch.setattr(torch_file, "_SECONDS", 0.2)
    with pytest.raises(SourceError, match=rf"timm_tiny\.pth .*{says}") as caught:
        import_model(golden / "timm_tiny.pth")
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()
    assert list(scratch.iterdir()) == []


def renamed(golden: Path, path: Path, prefix: str) -> Path:
    weights = load_file(golden / "timm_tiny.safetensors")
    save_file({prefix + name: value for name, value in weights.items()}, path)
    return path


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module.", "model._orig_mod."],
)
def test_prefixes_of_wrappers_are_stripped(golden: Path, tmp_path: Path, prefix: str) -> None:
    path = renamed(golden, tmp_path / "w.safetensors", prefix)
    assert same(parameters(path), parameters(golden / "timm_tiny.safetensors"))
    assert not any("left out" in note for note in import_model(path, settings=SIZE).assumed)


def test_a_prefix_that_not_all_names_have(golden: Path, tmp_path: Path) -> None:
    path = renamed(golden, tmp_path / "a.safetensors", "module.")
    more = np.zeros(1, np.float32)
    for name in ("more", "_orig_mod.more"):
        save_file({**load_file(path), name: more}, tmp_path / "b.safetensors")
        with pytest.raises(ConversionError, match="a known MLP-Mixer"):
            import_model(tmp_path / "b.safetensors", settings=SIZE)
    path = renamed(golden, tmp_path / "a.safetensors", "module.model.")
    save_file({**load_file(path), "module.loss": more}, tmp_path / "b.safetensors")
    imported = import_model(tmp_path / "b.safetensors", settings=SIZE)
    assert "module.loss is training state and was left out" in imported.assumed


def test_float64_beside_bfloat16(tmp_path: Path) -> None:
    """MLX reads no float64, NumPy no bfloat16."""
    header = {
        "a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [1], "data_offsets": [8, 10]},
    }
    start = json.dumps(header).encode().ljust(128)
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(start)) + start + bytes(10))
    with pytest.raises(SourceError, match="both float64 and bfloat16"):
        import_model(path)
