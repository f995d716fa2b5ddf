"""`--processes`: a command starts the other processes itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mixer_mlx import parallel
from mixer_mlx.cli.processes import local_hosts

SMALL = Path(__file__).parent / "golden" / "jax_square.npz"
MIXER = [sys.executable, "-m", "mixer_mlx"]


def run(*args: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MIXER, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **more},
    )


def training(photos: Path, folder: Path, *more: object) -> tuple[object, ...]:
    # SGD: AdamW makes steps of a visible size out of gradients that are rounding alone.
    options = ("--optimizer", "sgd", "-b", 4, "--steps", 8)
    return ("fine-tune", photos, "-m", SMALL, "-o", folder, *options, *more)


def test_training_is_that_of_one_process(photos: Path, tmp_path: Path) -> None:
    alone = run(*training(photos, tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / "alone")
    several = run(*training(photos, tmp_path / "run", "--processes", 2))
    assert (several.returncode, several.stdout) == (0, "")
    assert several.stderr == alone.stderr
    expected, found = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("alone", "run")
    )
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-5, err_msg=key)
    again = run(*training(photos, tmp_path / "run", "--processes", 2, "--resume"))
    assert "finished" in again.stderr


def test_predict_is_that_of_one_process(photos: Path) -> None:
    command = ("predict", photos, "-m", "cifar10", "-b", 4, "-k", 1, "--format", "json")
    alone, several = run(*command), run(*command, "--processes", 3)
    assert (several.returncode, several.stderr) == (0, "")
    one, other = (
        [json.loads(line) for line in done.stdout.splitlines()] for done in (alone, several)
    )
    assert [line["image"] for line in other] == [line["image"] for line in one]
    for line, expected in zip(other, one, strict=True):
        [found], [wanted] = line["predictions"], expected["predictions"]
        assert found["label"] == wanted["label"]
        assert found["probability"] == pytest.approx(wanted["probability"], rel=1e-4)


def test_sigterm_saves_and_ends_all(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    args = training(photos, folder, "--steps", 5000, "--save-every", 3, "--processes", 2)
    process = subprocess.Popen([*MIXER, *map(str, args)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not (folder / "state").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)  # returns when nobody holds stderr any more
    assert process.returncode == 143
    assert err.count("Interrupted.") == 1
    assert err.rstrip().endswith("give the same command with --resume to go on.")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("-b", 3), "Error: A batch of 3 pictures can't be shared evenly by 2 processes"),
        (("-m", "nowhere.npz"), "Error: "),
    ],
)
def test_what_stops_all_is_said_once(
    photos: Path, tmp_path: Path, more: tuple[object, ...], sentence: str
) -> None:
    failed = run(*training(photos, tmp_path / "run", *more, "--processes", 2))
    assert failed.returncode == 1
    assert failed.stderr.count("Error: ") == 1
    assert sentence in failed.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("fine-tune", "photos", "--plan"),
        ("evaluate", "photos", "--report", "report.html"),
        ("predict", "-"),
    ],
)
def test_what_is_for_one_process(args: tuple[str, ...]) -> None:
    refused = run(*args, "-m", SMALL, "--processes", 2)
    assert refused.returncode == 2
    assert refused.stderr.count("process") == 1


def test_under_the_launcher_it_must_be_the_same_number(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.json"
    hosts.write_text('[["127.0.0.1:5000"], ["127.0.0.1:5001"]]')
    refused = run("predict", tmp_path, "--processes", 3, MLX_RANK="0", MLX_HOSTFILE=str(hosts))
    assert refused.returncode == 2
    assert "mlx.launch started 2 processes; leave --processes out." in refused.stderr


def test_ports_of_local_processes_are_free() -> None:
    hosts = local_hosts(3)
    ports = [int(host.removeprefix("127.0.0.1:")) for [host] in hosts]
    assert ports == list(range(ports[0], ports[0] + 3))
    for port in (*ports, ports[0] + parallel.PORT_OFFSET):
        socket.create_server(("127.0.0.1", port)).close()
