"""Uploads to a server on this machine that takes commits as the Hub does."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from exported import random_model
from hub_server import TOKEN, Fault, HubServer, Repo, serving
from huggingface_hub import ModelCard
from huggingface_hub.utils import _http
from reference import numpy_mixer

import mixer_mlx
from mixer_mlx import MixerConfig, ModelInfo, SourceError, checkpoint
from mixer_mlx.convert import Quantization, convert, upload
from mixer_mlx.convert.export import card

hub = pytest.fixture(serving)

REPO = "me/small"
NAMED = MixerConfig.variant("S/32", image_size=32, num_classes=3)
LABELS = ("cat", "a|b `c`\n---\nlicense: mit", "<script>")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that timm has a name for, with blocks that don't take long to write."""
    folder = tmp_path_factory.mktemp("named") / "model"
    model, info = random_model(NAMED)
    source = {"address": "hf://timm/mixer_s32@main", "license": "Apache-2.0"}
    checkpoint.save(folder, model, info.replace(labels=LABELS, source=source))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small model that timm has no name for."""
    checkpoint.save(tmp_path / "tiny", *random_model(TINY))
    return tmp_path / "tiny"


TINY = MixerConfig(
    image_size=(16, 16),
    patch_size=8,
    num_blocks=1,
    hidden_dim=32,
    tokens_mlp_dim=8,
    channels_mlp_dim=64,
    num_classes=3,
)


def test_one_commit_that_loads_again(hub: HubServer, token: None, named: Path) -> None:
    done = upload(named, REPO)
    assert done.layout == "timm"
    assert done.url == f"{hub.url}/{REPO}/commit/{hub.repos[REPO].commit}"
    files = ("README.md", "config.json", "model.safetensors")
    assert hub.commits == [(REPO, "Upload a model with mixer-mlx", files)]
    assert hub.repos[REPO].private
    config = json.loads(hub.repos[REPO].files["config.json"])
    assert config["architecture"] == "mixer_s32_224"
    assert {name: len(hub.repos[REPO].files[name]) for name in files} == done.files
    again = mixer_mlx.load(f"hf://{REPO}", dtype="float32", device="cpu")
    here = mixer_mlx.load(named, dtype="float32", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(np.array(again.forward(pixels)), np.array(here.forward(pixels)))
    assert again.info.labels == here.info.labels


def test_the_card_is_what_the_hub_reads(named: Path) -> None:
    done = upload(named, REPO, dry_run=True)
    assert done.url is None
    data = ModelCard(done.card).data.to_dict()
    assert data["library_name"] == "timm"
    assert data["pipeline_tag"] == "image-classification"
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "timm/mixer_s32"
    assert {"timm", "transformers", "mlx"} <= set(data["tags"])
    text = done.card.split("---\n", 2)[2]
    assert "\nlicense: mit" not in text
    assert "- `` a|b `c` --- license: mit ``\n" in text
    assert "- `<script>`" in text
    assert 'timm.create_model("hf-hub:me/small", pretrained=True)' in text


def test_figures_of_a_run(tiny: Path, tmp_path: Path) -> None:
    """The best epoch of a log, as a training run writes it."""
    run = tmp_path / "run"
    (run / "best").parent.mkdir()
    tiny.rename(run / "best")
    (run / "run.json").write_text("{}")
    metrics = {"top1": 0.75, "top5": 1.0, "loss": 0.5, "images": 40, "images_per_second": 9.0}
    lines = [
        {"event": "epoch", "step": 4, "epoch": 0, "raw": metrics, "ema": None, "best": "raw"},
        {"event": "epoch", "step": 8, "epoch": 1, "raw": metrics | {"top1": 0.5}, "ema": None,
         "best": None},
    ]  # fmt: skip
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = upload(run, REPO, dry_run=True, licence="mit")
    head = yaml.safe_load(done.card.split("---\n")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75, "name": "top-1 accuracy"}]
    assert result["dataset"]["split"] == "validation"
    assert head["license"] == "mit"
    assert "| own images | validation | 40 | 75.00% | mixer-mlx |" in done.card


def test_published_figures_are_of_unchanged_models() -> None:
    info = mixer_mlx.load("cifar10").info
    (figure,) = card.published_figures(info)
    assert (figure.dataset, figure.split, figure.top1) == ("CIFAR-10", "test", 0.8304)
    for changed in (
        info.replace(quantization=Quantization()),
        ModelInfo(info.config, info.preprocess, info.labels, {"fine_tuned_from": info.source}),
    ):
        assert card.published_figures(changed) == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [("other sizes", "no name"), ("quantised", "no quantised weights"), ("gelu_tanh", "gelu_tanh")],
)
def test_what_timm_cannot_build_is_native(
    hub: HubServer, token: None, tmp_path: Path, tiny: Path, what: str, reason: str
) -> None:
    folder = tiny
    if what == "quantised":
        convert(tiny, folder := tmp_path / "q", quantization=Quantization(group_size=32))
    if what == "gelu_tanh":
        weights = numpy_mixer.random_weights(
            np.random.default_rng(0), num_tokens=1, patch=32, channels=3, dim=512, tokens_mlp=256,
            channels_mlp=2048, blocks=8, classes=2,
        )  # fmt: skip
        np.savez(tmp_path / "s32.npz", **weights)  # type: ignore[arg-type]
        folder = tmp_path / "s32.npz"
    done = upload(folder, REPO)
    assert done.layout == "native"
    assert reason in done.notes[0]
    assert "timm" not in ModelCard(done.card).data.to_dict()["tags"]
    if what != "gelu_tanh":
        again = mixer_mlx.load(f"hf://{REPO}", dtype="float32", device="cpu")
        here = mixer_mlx.load(folder, dtype="float32", device="cpu")
        pixels = np.zeros((1, 16, 16, 3), np.uint8)
        expected = np.array(here.forward(pixels))
        np.testing.assert_array_equal(np.array(again.forward(pixels)), expected)
        assert again.info.quantization == here.info.quantization


def refused(match: str, folder: Path, repo: str = REPO, **options: bool) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        upload(folder, repo, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_no_token(hub: HubServer, tiny: Path) -> None:
    refused("need a token .* set HF_TOKEN", tiny)
    assert hub.requests == []


def test_wrong_token(hub: HubServer, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("doesn't accept the token", tiny)


def test_somebody_elses_repository(hub: HubServer, token: None, tiny: Path) -> None:
    refused("may not write to you/small", tiny, "you/small")
    hub.repos["you/small"] = Repo({"README.md": b""})
    refused("may not write to you/small", tiny, "you/small")
    assert hub.commits == []


@pytest.mark.parametrize("repo", ["small", "me/small/x", "me/..", "hf://me/small", ""])
def test_names_that_the_hub_lacks(hub: HubServer, token: None, tiny: Path, repo: str) -> None:
    refused("isn't a valid repository name", tiny, repo)
    assert hub.requests == []


def test_an_upload_that_is_cut_off(hub: HubServer, token: None, tiny: Path) -> None:
    hub.faults["/lfs"] = Fault(cut=1000)
    refused("was cut off .* nothing was committed", tiny)
    assert hub.commits == []
    assert "model.safetensors" not in hub.repos[REPO].files
    hub.faults.clear()
    assert upload(tiny, REPO).url  # the empty repository of the first try is used


def test_a_hub_that_fails(hub: HubServer, token: None, tiny: Path) -> None:
    hub.faults[f"/api/models/{REPO}/commit/main"] = Fault(status=500)
    refused("refused the upload .* nothing was committed", tiny)
    hub.faults[f"/api/models/{REPO}/commit/main"] = Fault(status=429)
    refused("429", tiny)


def test_a_model_is_replaced_only_with_force(hub: HubServer, token: None, tiny: Path) -> None:
    hub.repos[REPO] = Repo({"config.json": b"{}", "notes.md": b"mine"})
    refused("holds a model already", tiny)
    assert hub.commits == []
    upload(tiny, REPO, force=True)
    assert hub.repos[REPO].files["notes.md"] == b"mine"
    assert json.loads(hub.repos[REPO].files["config.json"])["hidden_dim"] == 32


def test_public(hub: HubServer, token: None, tiny: Path) -> None:
    upload(tiny, REPO, public=True)
    assert not hub.repos[REPO].private
