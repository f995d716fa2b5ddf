"""huggingface_hub's mixin, as docs/python.md uses it, against a server that answers as the Hub."""

import re
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, Repo

import mixer_mlx

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture(scope="module")
def album() -> Any:
    """The page's class."""
    (block,) = re.findall(
        r"^```python\n(import os\n.*?ModelHubMixin.*?)^Album", PAGE.read_text("utf-8"), re.M | re.S
    )
    names: dict[str, Any] = {"mixer_mlx": mixer_mlx}
    exec(block, names)  # noqa: S102  # our own page
    return names["Album"]


def test_an_empty_folder_and_a_folder_with_a_card(album: Any, tmp_path: Path) -> None:
    trained = mixer_mlx.load("cifar10", dtype="float32")
    tmp_path.joinpath("empty").mkdir()
    album(trained).save_pretrained(tmp_path / "empty")
    (tmp_path / "empty" / "README.md").write_text("my own card")
    album(trained.with_head(2)).save_pretrained(tmp_path / "empty")  # again, over the first
    assert (tmp_path / "empty" / "README.md").read_text() == "my own card"
    assert album.from_pretrained(tmp_path / "empty").classifier.config.num_classes == 2


def test_from_the_hub(album: Any, hub: HubServer, cat: Path, tmp_path: Path) -> None:
    trained = mixer_mlx.load("cifar10", dtype="float32")
    album(trained).save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    hub.repos["me/album"] = Repo(files)
    found = album.from_pretrained("me/album").classifier
    assert found.labels == trained.labels
    assert found(cat) == trained(cat)
    assert mixer_mlx.load("hf://me/album", dtype="float32")(cat) == trained(cat)
