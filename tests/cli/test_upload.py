"""`mixer upload` against the Hub's stand-in."""

from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer, serving

hub = pytest.fixture(serving)


def test_upload(mixer, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    shown = mixer("upload", "cifar10", "me/small", "--dry-run")
    assert shown.code == 0
    assert "model.safetensors  2,273,757" in shown.out
    assert "\nlibrary_name: mlx\n" in shown.out
    assert "private if it is new" in shown.err
    assert hub.requests == []
    refused = mixer("upload", "cifar10", "me/small")
    assert refused.code == 1
    assert "set HF_TOKEN to it." in refused.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = mixer("upload", "cifar10", "me/small")
    assert (done.code, len(hub.commits)) == (0, 1)
    assert f"{hub.url}/me/small/commit/" in done.out
    assert "timm has no name for" in done.err
    again = mixer("upload", "cifar10", "me/small")
    assert again.code == 1
    assert "holds a model already; choose another name, or replace it with --force." in again.err


def test_a_folder_is_no_repository(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("upload", "cifar10", tmp_path)
    assert run.code == 1
    assert "isn't a valid repository name" in run.err
