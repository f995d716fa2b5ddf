"""Models from elsewhere, by the real command; a server plays the Hub and the bucket."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hub_server import COMMIT, Fault, HubServer, Repo, serving, set_hub
from safetensors.numpy import save

from mixer_mlx import MixerConfig
from mixer_mlx.catalog import CATALOG
from mixer_mlx.choices import DEFAULT_MODEL
from mixer_mlx.convert.names import TIMM, Layout

hub = pytest.fixture(serving)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(hub: HubServer, golden: Path) -> HubServer:
    """The golden repository of timm's, as `user/tiny` on the Hub."""
    folder = golden / "timm_cifar10"
    names = ("config.json", "model.safetensors")
    hub.repos["user/tiny"] = Repo({name: (folder / name).read_bytes() for name in names})
    return hub


def foreign_shapes(config: MixerConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Worked out from the paper's sizes and the layout's own order of axes."""
    S, C, P = config.num_tokens, config.hidden_dim, config.patch_size
    ds, dc, n = config.tokens_mlp_dim, config.channels_mlp_dim, config.num_classes
    shapes: dict[str, tuple[int, ...]] = {
        "stem.proj.weight": (C, 3, P, P),
        "stem.proj.bias": (C,),
        "norm.weight": (C,),
        "norm.bias": (C,),
        "head.weight": (n, C),
        "head.bias": (n,),
    }
    for i in range(config.num_blocks):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (C,), f"blocks.{i}.{norm}.bias": (C,)}
        for mlp, dim, width in (("mlp_tokens", S, ds), ("mlp_channels", C, dc)):
            shapes |= {
                f"blocks.{i}.{mlp}.fc1.weight": (width, dim),
                f"blocks.{i}.{mlp}.fc1.bias": (width,),
                f"blocks.{i}.{mlp}.fc2.weight": (dim, width),
                f"blocks.{i}.{mlp}.fc2.bias": (dim,),
            }
    assert layout is TIMM
    return shapes


def test_the_default_is_the_most_accurate_published_mixer() -> None:
    published = {
        name: entry.top1 or 0
        for name, entry in CATALOG.items()
        if entry.source and entry.config.model_type == "mlp_mixer"
    }
    assert max(published, key=lambda name: published[name]) == DEFAULT_MODEL


def test_nothing_prepared(  # type: ignore[no-untyped-def]
    mixer, hub: HubServer, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mixer predict cat.png`: fetched and converted once, then no network at all."""
    entry = CATALOG[DEFAULT_MODEL]
    small = dataclasses.replace(entry, config=entry.config.replace(num_blocks=1))
    monkeypatch.setitem(CATALOG, DEFAULT_MODEL, small)
    noise = np.random.default_rng(0).normal(0, 0.02, 2**20 + 7).astype(np.float32)
    weights = {
        name: np.resize(noise, shape)
        for name, shape in foreign_shapes(CATALOG[DEFAULT_MODEL].config, TIMM).items()
    }
    hub.repos[f"timm/{DEFAULT_MODEL}"] = Repo({"model.safetensors": save(weights)})
    first = mixer("predict", cat, "--format", "json")
    assert first.code == 0, first.err
    assert f"Fetching hf://timm/{DEFAULT_MODEL} (24 MiB, licence Apache-2.0)." in first.err
    assert len(json.loads(first.out)["predictions"]) == 5
    asked = len(hub.requests)
    second = mixer("predict", cat, "--format", "json")
    assert second.out == first.out
    assert second.err == ""
    assert len(hub.requests) == asked
    row = json.loads(mixer("cache", "list", "--format", "json").out)
    assert row["source"] == f"hf://timm/{DEFAULT_MODEL}"
    assert row["revision"] == COMMIT
    listed = [json.loads(line) for line in mixer("models", "--format", "json").out.splitlines()]
    assert {row["name"] for row in listed if row["on_disk"]} == {"cifar10", DEFAULT_MODEL}


@pytest.mark.parametrize(
    "address",
    ["user/tiny", "hf://user/tiny", "hf://user/tiny@main", "hf://user/tiny/model.safetensors"],
)
def test_addresses_on_the_hub(mixer, tiny: HubServer, cat: Path, address: str) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", address, "-k", 1, "--format", "json")
    assert run.code == 0, run.err
    label = json.loads(run.out)["predictions"][0]["label"]
    bare = address.endswith("safetensors")  # a file alone says nothing of names and preprocessing
    assert label.startswith("class ") if bare else label == "cat"
    assert ("Assumed: preprocessing" in run.err) == bare


def test_the_bucket_by_name(mixer, hub: HubServer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Only the bucket's layout is tested; weights of another architecture are refused."""
    hub.files["/mixer_models/gsam/Mixer-S_32.npz"] = (
        Path(__file__).parents[1] / "golden" / "jax_square.npz"
    ).read_bytes()
    run = mixer("convert", "mixer_s32_224.gsam", tmp_path / "model")
    assert run.code == 1
    assert "4x4" in run.err or "other weights" in run.err
    url = f"{hub.url}/mixer_models/gsam/Mixer-S_32.npz"
    assert mixer("convert", url, tmp_path / "model").code == 0
    known = json.loads(mixer("info", tmp_path / "model", "--format", "json").out)
    assert known["source"]["address"] == url
    assert known["num_classes"] == 10


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_download(mixer, tiny: HubServer, cat: Path, quiet: bool) -> None:  # type: ignore[no-untyped-def]
    run = mixer("predict", cat, "-m", "user/tiny", *["--quiet"] * quiet)
    assert run.code == 0
    assert (run.err == "") == quiet


def test_convert_records_the_commit(mixer, tiny: HubServer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert mixer("convert", "user/tiny", tmp_path / "model").code == 0
    source = json.loads((tmp_path / "model" / "config.json").read_text())["source"]
    assert source["revision"] == COMMIT
    assert source["address"] == "hf://user/tiny"


def test_offline_with_nothing_on_disk_names_the_built_in_model(  # type: ignore[no-untyped-def]
    mixer, hub: HubServer, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_hub(monkeypatch, HF_HUB_OFFLINE="1")
    run = mixer("predict", cat)
    assert run.code == 1
    assert "-m cifar10" in run.err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=500), "500"),
        (Fault(status=404), "doesn't exist"),
        (Fault(cut=1000), "interrupted"),
        (Fault(longer=10), "again"),
    ],
)
def test_a_download_that_fails_leaves_nothing_to_trust(  # type: ignore[no-untyped-def]
    mixer, hub: HubServer, golden: Path, tmp_path: Path, monkeypatch, fault: Fault, says: str
) -> None:
    monkeypatch.setattr("mixer_mlx.convert.fetch.download.WAITS", (0,))
    hub.files["/w.npz"] = (golden / "jax_square.npz").read_bytes()
    hub.faults["/w.npz"] = fault
    run = mixer("convert", f"{hub.url}/w.npz", tmp_path / "model")
    assert run.code == 1
    assert says in run.err
    assert not (tmp_path / "model").exists()
    hub.faults.clear()
    assert mixer("convert", f"{hub.url}/w.npz", tmp_path / "model").code == 0


def test_a_corrupt_archive_is_refused(mixer, hub: HubServer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    content = io.BytesIO()
    np.savez(content, a=np.zeros(4, np.float32))
    hub.files["/w.npz"] = content.getvalue()[:-30]
    run = mixer("convert", f"{hub.url}/w.npz", tmp_path / "model")
    assert run.code == 1
    assert ".npz" in run.err
    assert not (tmp_path / "model").exists()


def test_cache_list_verify_remove(mixer, tiny: HubServer, cat: Path, cache: Path) -> None:  # type: ignore[no-untyped-def]
    assert "empty" in mixer("cache", "list").err
    assert mixer("predict", cat, "-m", "user/tiny", "--dtype", "float32").code == 0
    assert mixer("predict", cat, "-m", "user/tiny", "--dtype", "float16").code == 0
    rows = [json.loads(x) for x in mixer("cache", "list", "--format", "json").out.splitlines()]
    assert [(row["source"], row["dtype"]) for row in rows] == [
        ("hf://user/tiny", "float16"),
        ("hf://user/tiny", "float32"),
    ]
    for row in rows:  # the file is one that sha256sum reads
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=row["path"], check=True)
    assert (
        mixer("cache", "verify").out == "hf://user/tiny float16: ok\nhf://user/tiny float32: ok\n"
    )
    weights = Path(rows[0]["path"]) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    run = mixer("cache", "verify")
    assert run.code == 1
    assert "checksums of its files" in run.out
    for unknown in ("user/nothing", "foo", "hf://a"):
        run = mixer("cache", "remove", unknown)
        assert run.code == 1
        assert f"{unknown} isn't in the cache; `mixer cache list` shows what is." in run.err
    assert mixer("cache", "remove").code == 2
    assert mixer("cache", "remove", "user/tiny").code == 0
    assert "empty" in mixer("cache", "list").err


def command(cat: Path, *more: str) -> list[str]:
    model = ("-m", "user/tiny", "--dtype", "float32")
    return [sys.executable, "-m", "mixer_mlx", "predict", str(cat), *model, *more]


def test_several_processes_convert_once(tiny: HubServer, cat: Path, cache: Path) -> None:
    runs = [
        subprocess.Popen(command(cat), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    assert sum(b"Fetching" in err for _, err in said) == 1
    assert len([path for path in (cache / "models").iterdir() if path.is_dir()]) == 1


STOPS = """
import sys
from mixer_mlx.runtime import atomic
name, real = sys.argv.pop(1), atomic.sync
def sync(path):
    if path.name.startswith(name):
        print("here", flush=True)
        sys.stdin.read()
    real(path)
atomic.sync = sync
from mixer_mlx.cli.main import main
main()
"""


@pytest.mark.parametrize("moment", ["download", "model.safetensors", ".hf-user-tiny", "models"])
def test_killed_at_any_moment_the_next_run_succeeds(  # type: ignore[no-untyped-def]
    mixer, tiny: HubServer, cat: Path, cache: Path, tmp_path: Path, moment: str
) -> None:
    """In the download, or before this file or folder of the conversion is flushed to disk."""
    expected = mixer(*command(cat)[3:]).out
    for folder in (cache, tmp_path / "hf-home"):
        shutil.rmtree(folder)
    tiny.requests.clear()
    weights, over = f"/user/tiny/resolve/{COMMIT}/model.safetensors", threading.Event()
    if moment == "download":
        tiny.faults[weights] = Fault(wait=over)
    code = [sys.executable, "-c", STOPS, moment, *command(cat)[3:]]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        stopped = moment != "download" and run.stdout.readline() == b"here\n"
        while not tiny.count(weights, "GET"):
            assert run.poll() is None
            time.sleep(0.01)
        run.kill()
    over.set()
    tiny.faults.clear()
    assert run.returncode == -signal.SIGKILL
    assert stopped == (moment != "download")
    assert len(list((cache / "models").glob("[!.]*"))) == (moment == "models")
    again = mixer(*command(cat)[3:])
    assert (again.code, again.out) == (0, expected), again.err
    assert mixer("cache", "verify").out.count(": ok") == 1


def test_settings_of_the_user_come_first(mixer, golden: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "labels.txt").write_text("".join(f"thing {i}\n" for i in range(10)))
    model = tmp_path / "model"
    flags = ["--labels", tmp_path / "labels.txt", "--mean", "0.485,0.456,0.406", "--std", "0.25"]
    flags += ["--crop", 0.9, "--resize-mode", "squash", "--interpolation", "bilinear"]
    run = mixer("convert", golden / "jax_square.npz", model, *flags, "--activation", "gelu")
    assert run.code == 0
    assert "activation" not in run.err
    assert "preprocessing" not in run.err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["hidden_act"] == "gelu"
    assert config["id2label"]["9"] == "thing 9"
    assert config["preprocess"] == {
        "image_size": [32, 32],
        "resize_mode": "squash",
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.25, 0.25, 0.25],
    }
    wrong = tmp_path / "few.txt"
    wrong.write_text("one\ntwo\n")
    run = mixer("convert", golden / "jax_square.npz", tmp_path / "other", "--labels", wrong)
    assert run.code == 1
    assert "2 labels for 10 classes" in run.err


def test_the_environment_names_the_default_model(  # type: ignore[no-untyped-def]
    mixer, cat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXER_MLX_MODEL", "cifar10")
    assert "cat" in mixer("predict", cat, "-k", 1).out
    assert os.environ["MIXER_MLX_MODEL"] == "cifar10"


@pytest.mark.parametrize("name", CATALOG)
def test_info_of_every_name_needs_no_network(mixer, name: str) -> None:  # type: ignore[no-untyped-def]
    known = json.loads(mixer("info", name, "--format", "json").out)
    assert len(known["labels"]) == (0 if "dino" in name else known["num_classes"])
    assert name == "cifar10" or known["source"]["license"] == "Apache-2.0"
    assert known["parameters"] == CATALOG[name].config.num_parameters
