"""The two commands' own refusals, and a start and an end as a user has them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixer_mlx.cli.commands import application
from mixer_mlx.cli.serve import server
from mixer_mlx.errors import ConfigError, MixerError

from .conftest import photos_of_two

PAGE = Path(server.__file__).parent / "page"


def _refusal(*arguments: str) -> str:
    result = CliRunner().invoke(application(), [*arguments])
    assert isinstance(result.exception, MixerError)
    return str(result.exception)


def test_without_the_extra_a_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for command in (["serve"], ["teach", "photos"]):
        assert "pip install 'mixer-mlx[serve]'" in _refusal(*command, "-m", "cifar10")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", ""])  # noqa: S104
def test_other_hosts_need_to_be_known(host: str) -> None:
    with pytest.raises(ConfigError, match="--i-know"):
        server.check_host(host, known=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])  # noqa: S104
def test_all_addresses_have_no_name_to_check(host: str) -> None:
    with pytest.raises(ConfigError, match="name the one"):
        server.check_host(host, known=True)


def test_names_of_the_server() -> None:
    with server.listen("127.0.0.1", None) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        port = listening.getsockname()[1]
        assert listening.getsockname()[0] == "127.0.0.1"
        ours = server.hosts_of(listening, "127.0.0.1")
        assert ours == {f"127.0.0.1:{port}", f"localhost:{port}"}
        assert server.hosts_of(listening, "192.168.1.5") == {f"192.168.1.5:{port}"}
        assert server.hosts_of(listening, "::1") == {f"[::1]:{port}"}
        with pytest.raises(ConfigError, match="choose another --port"):
            server.listen("127.0.0.1", port)
        with server.listen("127.0.0.1", None) as other:
            assert other.getsockname()[1] != port


def test_models_dont_go_among_the_classes(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    folder = tmp_path / "photos"
    text = _refusal("teach", str(folder), "-m", "cifar10", "-o", str(folder / "out"))
    assert "whose folders are classes" in text


def test_page_is_small_and_whole() -> None:
    """Files as they are served, which load each other alone, and no code but in modules."""
    files = {path.name: path.read_text("utf-8") for path in PAGE.iterdir()}
    assert sum(len(text.splitlines()) for text in files.values()) < 700
    named = set(re.findall(r"[\"'](?:/page/|\./)([\w.]+)[\"']", "".join(files.values())))
    assert named == set(files) - {"index.html"}
    elsewhere = r"https?://(?!www\.w3\.org/2000/svg)"
    markup = r"innerHTML|outerHTML|AdjacentHTML|eval\("
    for name, text in files.items():
        assert not re.findall(f"{elsewhere}|{markup}", text), name
    inline = r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)"
    assert not re.findall(inline, files["index.html"])


def test_start_answer_and_end(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="NOT RUN: needs the extra serve")
    photos_of_two(tmp_path / "photos", 2)
    (tmp_path / "photos" / "frog" / "broken.jpg").write_bytes(b"x")
    process = subprocess.Popen(
        [sys.executable, "-m", "mixer_mlx", "teach", "photos", "-m", "cifar10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MIXER_MLX_CACHE": str(tmp_path / "cache")},
    )
    assert process.stdout
    address = process.stdout.readline()
    host, _, token = address.removeprefix("http://").strip().partition("/#")
    with socket.create_connection(("127.0.0.1", int(host.split(":")[1])), timeout=20) as line:
        head = f"GET /api/state HTTP/1.1\r\nHost: {host}\r\nX-Mixer-Token: {token}\r\n"
        line.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert '{"name":"frog","images":2}' in line.makefile("r").read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Skipped" in errors
    assert "broken.jpg" in errors
    assert errors.endswith("Interrupted.\n")
    assert "Traceback" not in errors
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 1
