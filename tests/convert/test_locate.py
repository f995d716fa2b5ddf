"""What is said of a name that is no model."""

import pytest

from mixer_mlx import SourceError
from mixer_mlx.convert import Listener, describe, load, locate
from mixer_mlx.convert.timm_config import read_settings


@pytest.mark.parametrize("name", ["B/16", "b/16"])
def test_an_architecture_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(SourceError, match="not a model; published models: mixer_b16"):
        locate.resolve(name)
    with pytest.raises(SourceError, match=r"H/14 is an architecture.*no published model"):
        locate.resolve("H/14")


@pytest.mark.parametrize("address", ["hf://a", "hf://user/re--po", "hf://user/repo/../x"])
def test_a_malformed_address_is_refused_before_it_is_fetched(address: str) -> None:
    heard: list[str] = []
    with pytest.raises(SourceError, match="isn't a"):
        load(address, listener=Listener(heard.append))
    assert heard == []


def test_a_typing_error_finds_the_name_that_was_meant() -> None:
    with pytest.raises(SourceError, match=r"Unknown model cifr10.*did you mean cifar10.*CATALOG"):
        locate.resolve("cifr10")
    with pytest.raises(SourceError, match=r"Unknown model frobnicate.*address; `CATALOG`"):
        locate.resolve("frobnicate")


def test_a_converted_model_knows_what_was_assumed(golden, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from mixer_mlx.convert import convert

    done = convert(golden / "jax_square.npz", tmp_path / "model")
    assert done.assumed
    assert describe(tmp_path / "model")[0].source["assumed"] == list(done.assumed)


def test_a_mistyped_path_is_not_looked_for_on_the_hub(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "birds").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"runs/brids doesn't exist; use runs/birds, or .*hf://"):
        locate.resolve("runs/brids")
    with pytest.raises(SourceError, match="runs/model doesn't exist; check the path, or"):
        locate.resolve("runs/model")
    for name in ("./model", "../model", "~/model", "weights/mixer.pth"):
        with pytest.raises(SourceError, match="Unknown model"):
            locate.resolve(name)
    assert locate.resolve("user/repo").text == "hf://user/repo"


def test_older_files_of_timm_call_the_names_labels() -> None:
    names = ["a", "b"]
    assert read_settings({"labels": names}).labels == ("a", "b")
    assert read_settings({"labels": ["x"], "label_names": names}).labels == ("a", "b")
