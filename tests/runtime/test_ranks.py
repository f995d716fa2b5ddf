"""Several processes compute what one does, and stop together."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mixer_mlx import load
from mixer_mlx.analysis.evaluate import evaluate
from mixer_mlx.cli.main import main
from mixer_mlx.data.augment import augmentation
from mixer_mlx.data.loader import DecodedImages, EvaluationBatches, TrainingBatches
from mixer_mlx.data.mixing import Mixing, SoftLabels
from mixer_mlx.data.read import match_classes, read_split
from mixer_mlx.errors import BackendError, ConfigError
from mixer_mlx.images.preprocess import Preprocess
from mixer_mlx.runtime import connections
from mixer_mlx.runtime.ranks import PORT_OFFSET, Ranks, _launch, connected, launched_size

SMALL = Path(__file__).parents[1] / "golden" / "jax_square.npz"
NOISY = """
drop_path = 0.2
dropout = 0.1
ema_decay = 0.9
mixup = 0.4
cutmix = 1.0
optimizer = "sgd"  # AdamW makes steps of a visible size out of gradients that are rounding alone
lr = 0.05
schedule = "constant"
batch_fraction = 1.0
"""
MIXER = [sys.executable, "-m", "mixer_mlx.cli"]
# The same, but after the first save (step 3) rank 0 meets with something.
MISHAP = """
import errno, os, signal
from mixer_mlx.cli.main import main
from mixer_mlx.training.run import Run
note = Run._note
def noted(run, event, model):
    note(run, event, model)
    if os.environ["MLX_RANK"] == "0" and event.step == 4:
        MISHAP
Run._note = noted
main()
"""
Job = list[subprocess.Popen[str]]


def free_port(size: int = 2) -> int:
    """The first free port of a job of `size` processes."""
    for port in np.random.default_rng().integers(20000, 30000, 100).tolist():
        try:
            for one in (*range(port, port + size), port + PORT_OFFSET):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            continue
        return int(port)
    raise AssertionError("no free port")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts a command as several ranks, in folders `0`, `1`, ..."""
    started: Job = []

    def run(*args: object, size: int = 2, mishap: str = "") -> Job:
        program = [sys.executable, "-c", MISHAP.replace("MISHAP", mishap)] if mishap else MIXER
        port = free_port(size)
        hosts = tmp_path / f"{port}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port + rank}"] for rank in range(size)]))
        one = {"OPENBLAS_NUM_THREADS": "1"}
        for rank in map(str, range(size)):
            (tmp_path / rank).mkdir(exist_ok=True)
            process = subprocess.Popen(
                [*program, *map(str, args)],
                cwd=tmp_path / rank,
                env={**os.environ, **one, "MLX_RANK": rank, "MLX_HOSTFILE": str(hosts)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
        return started[-size:]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ends(job: Job) -> list[tuple[int, str, str]]:
    """Each rank's exit code, stdout and stderr, without MLX's lines about a broken ring."""
    results = []
    for process in job:
        out, err = process.communicate(timeout=300)
        results.append((process.returncode, out, re.sub(r"^\[ring\].*\n", "", err, flags=re.M)))
    return results


def training(photos: Path, tmp_path: Path, *more: object) -> tuple[object, ...]:
    config = tmp_path / "noisy.toml"
    config.write_text(NOISY)
    options = ("--config", config, "-b", 4, "--steps", 24, "--save-every", 3)
    return ("fine-tune", photos, "-m", SMALL, "-o", "run", *options, *more)


def wait_for_step(job: Job, run: Path, step: int) -> None:
    log = run / "log.jsonl"
    while not log.exists() or f'"step": {step},' not in log.read_text("utf-8"):
        assert [process.poll() for process in job] == [None] * len(job)
        time.sleep(0.02)


def same_weights(one: Path, other: Path, tolerance: float) -> None:
    expected, found = (load_file(run / "model.safetensors") for run in (one, other))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance, err_msg=key)


def test_two_processes_train_as_one_and_resume(
    start: Callable[..., Job], photos: Path, tmp_path: Path
) -> None:
    """Noise, mixing, accumulation, an average of the weights: all as for the whole batch."""
    args = training(photos, tmp_path, "--grad-accum", 2)
    (code, out, err), other = ends(start(*args))
    assert (code, out, other) == (0, "", (0, "", ""))
    assert not list((tmp_path / "1").iterdir())  # rank 0 alone writes
    command = [*MIXER, *map(str, args)]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert err.splitlines()[:4] == alone.stderr.splitlines()[:4]
    one, two = tmp_path / "run", tmp_path / "0" / "run"
    same_weights(one / "last", two / "last", 1e-5)
    same_weights(one / "best", two / "best", 1e-5)
    logs = [(run / "log.jsonl").read_text().splitlines() for run in (one, two)]
    for line, theirs in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert theirs["step"] == line["step"]
        if line["event"] == "step":
            assert theirs["accuracy"] == line["accuracy"]
            for key in ("loss", "gradient_norm"):
                assert theirs[key] == pytest.approx(line[key], rel=1e-4)
        else:
            assert theirs["raw"]["images"] == line["raw"]["images"] == 8
            assert theirs["raw"]["loss"] == pytest.approx(line["raw"]["loss"], abs=1e-5)

    two.rename(tmp_path / "undisturbed")
    first, second = ends(start(*args, mishap="os.kill(os.getpid(), signal.SIGTERM)"))
    assert (first[0], second) == (143, (143, "", ""))
    assert re.search(r"Step \d+ of 24 is saved; .* --resume to continue\.$", first[2])
    assert [code for code, *_ in ends(start(*args, "--resume"))] == [0, 0]
    same_weights(tmp_path / "undisturbed" / "last", two / "last", 0)


def test_a_killed_rank_stops_the_other(
    start: Callable[..., Job], photos: Path, tmp_path: Path
) -> None:
    job = start(*training(photos, tmp_path, "--steps", 5000))
    run = tmp_path / "0" / "run"
    wait_for_step(job, run, 4)
    job[1].kill()
    (code, _, err), _ = ends(job)
    assert code == 1
    assert err.splitlines()[-1] == (
        "Error: Rank 1 ended before the work was done; run the same command again with --resume "
        "to continue from what is saved."
    )
    step = json.loads((run / "state" / "state.json").read_text())["progress"]["step"]
    assert 2 <= step < 5000
    assert load_file(run / "state" / "arrays.safetensors")


@pytest.mark.slow
def test_a_full_disk_stops_all(start: Callable[..., Job], photos: Path, tmp_path: Path) -> None:
    full = "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
    first, second = ends(start(*training(photos, tmp_path), mishap=full))
    assert (first[0], second[0]) == (1, 1)
    assert first[2].splitlines()[-1] == (
        "Error: run can't be written: No space left on device; free some space, then resume with "
        "--resume."
    )
    assert "Traceback" not in second[2]
    assert (tmp_path / "0" / "run" / "state" / "state.json").is_file()


def test_evaluate_under_the_launcher(photos: Path, tmp_path: Path) -> None:
    launcher = "from mlx._distributed_utils.launch import main; main()"
    ports = ["--starting-port", str(free_port())]
    command = ["evaluate", str(photos), "-m", "cifar10", "-b", "8", "--format", "json"]
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            launcher,
            "-n2",
            "--backend",
            "ring",
            *ports,
            "--",
            *MIXER,
            *command,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert run.stderr == ""
    found = json.loads(run.stdout)
    classifier, dataset = load("cifar10", dtype="float32"), read_split(photos)[0]
    images = DecodedImages(dataset, lambda *_: None, exact=True)
    classes = np.array(match_classes(dataset.classes, classifier.labels), np.int32)
    batches = EvaluationBatches(images, classifier.preprocess, 8)
    expected = evaluate(classifier.forward, batches, classes)
    assert (found["top1"], found["top5"]) == (expected.top1, expected.top5)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert (found["images"], found["unreadable"]) == (40, 0)


def test_predict_in_the_order_of_the_images(
    start: Callable[..., Job], photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "album")
    (tmp_path / "album" / "cat" / "07.png").write_text("This is no image.")
    (tmp_path / "album" / "cat" / "08.png").unlink()  # 39 are left: the last round has one
    args = ("predict", tmp_path / "album", "-m", "cifar10", "-b", 4, "-k", 1, "--format", "json")
    (code, out, err), *others = ends(start(*args, size=3))
    assert (code, err) == (1, "1 of 39 images can't be read.\n")
    assert others == [(0, "", "")] * 2
    found = [json.loads(line) for line in out.splitlines()]
    names = sorted(str(path) for path in (tmp_path / "album").rglob("*.png"))
    assert [line["image"] for line in found] == names
    for line, expected in zip(
        found, load("cifar10", dtype="float32").predict(names, k=1), strict=True
    ):
        if expected.error is not None:
            assert line["error"] == str(expected.error)
            continue
        [prediction] = line["predictions"]
        assert prediction["index"] == expected.predictions[0].index
        assert prediction["probability"] == pytest.approx(expected.predictions[0].probability)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("-b", 3), "Error: A batch of 3 images can't be divided evenly among 2 processes"),
        (("-m", "nowhere.npz"), "Error: "),
    ],
)
def test_a_common_error_is_reported_once(
    start: Callable[..., Job],
    photos: Path,
    tmp_path: Path,
    more: tuple[object, ...],
    sentence: str,
) -> None:
    (code, _, err), (other_code, _, other) = ends(start(*training(photos, tmp_path, *more)))
    assert (code, other_code) == (1, 1)
    assert (err + other).count("Error: ") == 1
    assert sentence in err


@pytest.mark.parametrize(
    "args",
    [
        ("fine-tune", "photos", "--plan"),
        ("evaluate", "photos", "--report", "report.html"),
        ("predict", "-"),
    ],
)
def test_options_for_one_process(
    args: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Refused before the processes connect."""
    (tmp_path / "hosts.json").write_text('[["127.0.0.1:1"], ["127.0.0.1:2"]]')
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    monkeypatch.setattr(sys, "argv", ["mixer", *args, "-m", str(SMALL)])
    for rank in ("0", "1"):
        monkeypatch.setenv("MLX_RANK", rank)
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        assert capfd.readouterr().err.count("process") == 1


def rank_of(rank: int, size: int) -> Ranks:
    ranks = Ranks()
    ranks.rank, ranks.size = rank, size
    return ranks


@pytest.mark.parametrize("mixing", [None, Mixing(0.4), Mixing(0, 1.0)])
@pytest.mark.parametrize("balance", ["none", "loss"])
def test_rows_make_up_the_batches(photos: Path, mixing: Mixing | None, balance: str) -> None:
    def batches(rank: int, size: int) -> list[tuple[np.ndarray, np.ndarray | SoftLabels]]:
        images = DecodedImages(read_split(photos)[0], lambda *_: None)
        pad = augmentation("pad", Preprocess((16, 16)), flip=True)
        ranks = rank_of(rank, size)
        return list(
            TrainingBatches(images, pad, 8, 3, mixing=mixing, balance=balance, ranks=ranks).epoch(1)
        )

    parts = [batches(rank, 4) for rank in range(4)]
    for number, (pixels, labels) in enumerate(batches(0, 1)):
        mine = [part[number] for part in parts]
        np.testing.assert_array_equal(np.concatenate([p for p, _ in mine]), pixels)
        together = np.concatenate([np.atleast_2d(np.array(one)) for _, one in mine], axis=-1)
        np.testing.assert_array_equal(together, np.atleast_2d(np.array(labels)))


def test_a_batch_size_that_can_not_be_divided() -> None:
    assert rank_of(2, 4).rows(8) == slice(4, 6)
    with pytest.raises(ConfigError, match="multiple of 4"):
        rank_of(2, 4).rows(10)


RING = '[["10.0.0.1:5000"], ["10.0.0.2:5001"]]'
LAUNCHES = [
    ({"MLX_HOSTFILE": RING}, (1, 2, "ring", ("10.0.0.1", 6000))),
    ({"MLX_HOSTFILE": RING, "MIXER_MLX_RANK0": "mac:7"}, (1, 2, "ring", ("mac", 7))),
    (
        {"MLX_IBV_DEVICES": '[[null, "a"], ["b", null]]', "MLX_JACCL_COORDINATOR": "10.0.0.1:40"},
        (1, 2, "jaccl", ("10.0.0.1", 1040)),
    ),
    (
        {"MLX_WORLD_SIZE": "4", "NCCL_HOST_IP": "10.0.0.9", "NCCL_PORT": "12345"},
        (1, 4, "nccl", ("10.0.0.9", 13345)),
    ),
    ({"MLX_HOSTFILE": ""}, None),
    ({"MLX_WORLD_SIZE": "1", "NCCL_HOST_IP": "10.0.0.9", "NCCL_PORT": "12345"}, None),
]


@pytest.mark.parametrize(("variables", "expected"), LAUNCHES)
def test_launcher_variables(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    expected: tuple[object, ...] | None,
) -> None:
    """As MLX's own `launch.py` sets them."""
    assert launched_size() == 1
    monkeypatch.setenv("MLX_RANK", "1")
    for name, value in variables.items():
        if name in ("MLX_HOSTFILE", "MLX_IBV_DEVICES"):
            (tmp_path / name).write_text(value + "\n")
            value = str(tmp_path / name)
        monkeypatch.setenv(name, value)
    assert _launch() == expected


def test_a_rank_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_RANK", "0")
    with pytest.raises(BackendError, match=r"mlx\.launch"), connected("1", print):
        pass


def test_a_rank_that_does_not_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger that connects isn't taken for a rank."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)
    address = "127.0.0.1", free_port()

    def stranger() -> None:
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET / HTTP")

    threading.Timer(0.1, stranger).start()
    with pytest.raises(BackendError, match="Rank 1 did not connect"):
        connections.Connections(0, 2, address, "1", print)


def test_versions_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.01)
    address = "127.0.0.1", free_port()
    first = threading.Thread(
        target=lambda: connections.Connections(0, 2, address, "2", lambda *_: None).close()
    )
    first.start()
    with pytest.raises(BackendError, match="Rank 0 has mixer-mlx 2 and rank 1 has 1"):
        connections.Connections(1, 2, address, "1", print)
    first.join()


def test_a_rank_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """E.g. after a power cut: the connection stays open."""
    monkeypatch.setattr(connections, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(connections, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(connections, "GRACE_SECONDS", 0.01)
    lost: list[tuple[int, bool]] = []
    known = threading.Event()

    def on_failure(rank: int, reported: bool) -> None:
        lost.append((rank, reported))
        known.set()

    address = "127.0.0.1", free_port()

    silent: list[object] = []
    threading.Thread(target=lambda: silent.append(connections._connect(1, address, "1"))).start()
    first = connections.Connections(0, 2, address, "1", on_failure)
    assert known.wait(10)
    assert lost == [(1, False)]
    first.close()
    silent.pop().close()  # type: ignore[attr-defined]
