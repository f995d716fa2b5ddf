"""Datasets on the Hub, against a server on this machine that answers as it does."""

import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from data.conftest import files as _files
from data.conftest import pack as _pack
from data.conftest import parquet
from hub_server import COMMIT, HubServer, Repo, set_hub
from huggingface_hub import file_download
from huggingface_hub.utils import _http

from mixer_mlx import ConfigError, SourceError
from mixer_mlx.convert.fetch import hub as module
from mixer_mlx.convert.fetch.datasets import CONVERTED, parse, read_split, read_splits
from mixer_mlx.convert.fetch.hub_address import HubAddress
from mixer_mlx.convert.fetch.listener import Listener

NAME = "someone/pets"
DATA = f"hf://datasets/{NAME}"
API = f"/api/datasets/{NAME}"
OTHER = "e" * 40

files, pack = _files, _pack


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    quick = SimpleNamespace(sleep=lambda _: None, time=time.time)
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(_http, "time", quick)
    monkeypatch.setattr(file_download, "time", quick)
    monkeypatch.setenv("MIXER_MLX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and nobody listens at the Hub's address any more."""

    def close() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            set_hub(monkeypatch, HF_ENDPOINT=f"http://127.0.0.1:{bound.getsockname()[1]}")

    return close


@pytest.fixture
def repo(hub: HubServer, files) -> Repo:  # type: ignore[no-untyped-def]
    """Parquet files of three parts, as `datasets` pushes them."""
    parts = {
        "train": parquet(files, "train"),
        "test": parquet(files, "train", group=3),
        "validation": parquet(files, "val"),
    }
    contents = {f"data/{part}-00000-of-00001.parquet": data for part, data in parts.items()}
    hub.repos[f"datasets/{NAME}"] = Repo({"README.md": b"words", ".gitattributes": b""} | contents)
    return hub.repos[f"datasets/{NAME}"]


def fetched(hub: HubServer) -> list[str]:
    """The files whose contents were asked for."""
    marker = "/resolve/"
    return [
        path.split(marker)[1] for verb, path, _ in hub.requests if verb == "GET" and marker in path
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (DATA, HubAddress(NAME)),
        (f"{DATA}@v1.0", HubAddress(NAME, None, "v1.0")),
        (f"{DATA}@refs/convert/parquet/a/b", HubAddress(NAME, "a/b", "refs/convert/parquet")),
        (f"{DATA}/train.zip", HubAddress(NAME, "train.zip")),
    ],
)
def test_addresses(text: str, address: HubAddress) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text", ["hf://someone/pets", "hf://datasets/pets", f"{DATA}/../x", f"{DATA}@"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(
        SourceError, match=r"isn't a dataset on the Hub; write hf://datasets/user/name"
    ):
        read_splits(text)


def test_the_parts_that_are_needed(hub: HubServer, repo: Repo, files) -> None:  # type: ignore[no-untyped-def]
    said: list[str] = []
    bars: list[tuple[int, int | None]] = []
    train, val = read_splits(DATA, listener=Listener(said.append, lambda *at: bars.append(at)))
    assert train.counts() == {"dog": 4, "cat": 6}
    assert val.counts() == {"dog": 3, "cat": 3}
    assert train.paths[0].read() == files["train/cat/deep/0.png"]
    assert fetched(hub) == [
        f"{COMMIT}/data/{part}-00000-of-00001.parquet" for part in ("train", "validation")
    ]
    assert len(said) == 1
    assert "2 files" in said[0]
    total = sum(
        len(repo.files[f"data/{part}-00000-of-00001.parquet"]) for part in ("train", "validation")
    )
    assert bars[-1] == (total, total)
    read_splits(DATA, listener=Listener(said.append))
    assert len(said) == 1
    assert len(fetched(hub)) == 2
    found, part = read_split(DATA, "test")
    assert (len(found), part) == (10, "test")
    assert len(fetched(hub)) == 3
    # The cache holds all three now; still the one for validation is evaluated on.
    assert read_split(DATA)[1] == "validation"


def test_without_a_part_for_validation_nothing_is_fetched(hub: HubServer, repo: Repo) -> None:
    del repo.files["data/validation-00000-of-00001.parquet"]
    with pytest.raises(ConfigError, match=f"{DATA} has no validation split, only test, train"):
        read_splits(DATA)
    assert fetched(hub) == []
    assert [len(some) for some in read_splits(DATA, val_fraction=0.5)] == [5, 5]
    assert len(fetched(hub)) == 1


def test_what_the_hub_converted(hub: HubServer, repo: Repo, files) -> None:  # type: ignore[no-untyped-def]
    converted = {
        "default/partial-train/0000.parquet": parquet(files, "train"),
        "default/validation/0000.parquet": parquet(files, "val"),
    }
    repo.files = {"README.md": b"", "images/train.zip": b"PK"}
    repo.others = (Repo(converted, OTHER, (CONVERTED,)),)
    said: list[str] = []
    train, val = read_splits(DATA, listener=Listener(said.append))
    assert (len(train), len(val)) == (10, 6)
    assert fetched(hub) == [
        f"{OTHER}/default/{part}/0000.parquet" for part in ("partial-train", "validation")
    ]
    assert "only the beginning" in said[-1]
    # It is made of the main branch, and tells nothing of another revision.
    with pytest.raises(ConfigError, match=r"train\.zip can't be used"):
        read_splits(f"{DATA}@main")


def test_archives_and_images_as_they_are(hub: HubServer, repo: Repo, files, pack) -> None:  # type: ignore[no-untyped-def]
    packed = pack("a.zip", files, "pets/").read_bytes()
    repo.files = {"README.md": b"", "all.zip": packed}
    assert [len(some) for some in read_splits(DATA)] == [10, 6]
    repo.files |= {"more.tar.gz": b""}
    with pytest.raises(SourceError, match=f"several archives; name one, e.g. {DATA}/all.zip"):
        read_splits(DATA)
    assert len(read_splits(f"{DATA}/all.zip")[0]) == 10
    loose = {
        "README.md": b"",
        "notes/x.csv": b"",
        **{f"pets/{name}": data for name, data in files.items()},
    }
    hub.repos["datasets/some/loose"] = Repo(loose, OTHER)
    assert [len(some) for some in read_splits("hf://datasets/some/loose/pets")] == [10, 6]
    hub.repos["datasets/some/words"] = Repo({"README.md": b""}, "d" * 40)
    with pytest.raises(SourceError, match="no Parquet files, no archive and no images"):
        read_splits("hf://datasets/some/words")


def test_several_datasets_in_one_repository(hub: HubServer, repo: Repo, files) -> None:  # type: ignore[no-untyped-def]
    repo.files = {
        f"{name}/{part}-00000-of-00001.parquet": parquet(files, part)
        for name in ("a", "b")
        for part in ("train", "val")
    }
    with pytest.raises(SourceError, match=rf"several datasets \(a, b\); name one, e.g. {DATA}/a\."):
        read_splits(DATA)
    assert len(read_splits(f"{DATA}/b")[0]) == 10
    assert all("/b/" in name for name in fetched(hub))


def test_without_the_network_all_or_nothing(
    repo: Repo, gone, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    read_splits(DATA)
    for close, advice in (
        (gone, "check the network and try again"),
        (lambda: set_hub(monkeypatch, HF_HUB_OFFLINE="1"), "unset HF_HUB_OFFLINE"),
    ):
        close()
        assert [len(some) for some in read_splits(DATA)] == [10, 6]
        assert [len(some) for some in read_splits(f"{DATA}@main", val_fraction=0.2)] == [8, 2]
        with pytest.raises(SourceError, match=advice):
            read_split(DATA, "test")
    with pytest.raises(
        SourceError, match="of datasets/some/other isn't in the Hub's cache, and HF_"
    ):
        read_splits("hf://datasets/some/other")


def test_a_commit_is_not_asked_for_again(hub: HubServer, repo: Repo) -> None:
    read_splits(f"{DATA}@{COMMIT}")
    count = hub.count()
    read_splits(f"{DATA}@{COMMIT}")
    assert hub.count() == count


def test_what_the_hub_refuses(hub: HubServer, repo: Repo) -> None:
    repo.gated = True
    with pytest.raises(
        SourceError, match=f"datasets/{NAME} is gated; accept its terms at {hub.url}"
    ):
        read_splits(DATA)
    repo.private = True
    with pytest.raises(
        SourceError, match=f"no repository datasets/{NAME} on the Hub, or it is pri"
    ):
        read_splits(DATA)
    repo.private = False
    with pytest.raises(SourceError, match="no revision 'v9'"):
        read_splits(f"{DATA}@v9")
