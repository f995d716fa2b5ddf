"""What is said of a name that is no model."""

import pytest

from mixer_mlx import SourceError
from mixer_mlx.convert import Listener, describe, load, locate


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
    with pytest.raises(
        SourceError, match=r"Unknown model cifr10.*did you mean cifar10.*mixer models"
    ):
        locate.resolve("cifr10")
    with pytest.raises(SourceError, match=r"Unknown model frobnicate.*address; `mixer models`"):
        locate.resolve("frobnicate")


def test_a_converted_model_knows_what_was_assumed(golden, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from mixer_mlx.convert import convert

    done = convert(golden / "jax_square.npz", tmp_path / "model")
    assert done.assumed
    assert describe(tmp_path / "model")[0].source["assumed"] == list(done.assumed)
