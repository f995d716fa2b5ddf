"""Threads that end and processes that fork: what MLX can't bear by itself."""

import subprocess
import sys
import threading

import mlx.core as mx
import pytest

from mixer_mlx.errors import BackendError
from mixer_mlx.runtime import worker


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


POOL = """
from concurrent.futures import ThreadPoolExecutor
import mixer_mlx, numpy as np
images = [np.zeros((32, 32, 3), np.uint8)] * 8
def work(_):
    classifier = mixer_mlx.load("cifar10", device="cpu")
    return classifier(images), classifier.embed(images), shared(images), shared.logits(images)
shared = mixer_mlx.load("cifar10", device="cpu")
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(work, range(4)))
print("done", flush=True)
"""


def exits(count: int) -> None:
    for _ in range(count):
        run = python(POOL)
        assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


def test_a_process_whose_threads_used_mlx_ends_well() -> None:
    exits(2)


@pytest.mark.slow
def test_twenty_processes_whose_threads_used_mlx_end_well() -> None:
    exits(20)


def test_a_process_ends_while_a_batch_is_computed() -> None:
    run = python(
        "import mixer_mlx, numpy as np\n"
        "classifier = mixer_mlx.load('cifar10', device='cpu')\n"
        "results = classifier.predict((np.zeros((32, 32, 3), np.uint8) for _ in range(999)))\n"
        "print(len(next(results).predictions), flush=True)\n"
    )
    assert (run.returncode, run.stdout) == (0, "5\n"), run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="NOT RUN: no fork")
def test_a_fork_after_a_prediction_is_refused_and_spawn_works(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys, warnings, mixer_mlx, numpy as np\n"
        "def work(classifier):\n"
        "    try:\n"
        "        return classifier(np.zeros((32, 32, 3), np.uint8))[0].label\n"
        "    except mixer_mlx.BackendError as error:\n"
        "        return str(error)\n"
        "if __name__ == '__main__':\n"
        "    warnings.simplefilter('ignore')\n"
        "    classifier = mixer_mlx.load('cifar10', device='cpu')\n"
        "    print(work(classifier))\n"
        "    for method in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(method).Pool(1) as pool:\n"
        "            print(pool.apply(work, (classifier,)), flush=True)\n"
    )
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=120
    )
    here, forked, spawned = run.stdout.splitlines()
    assert "forked" in forked
    assert "spawn" in forked
    assert here == spawned
    assert run.returncode == 0, run.stderr


def test_a_job_is_computed_for_any_thread() -> None:
    found: list[object] = []

    def work() -> None:
        try:
            worker.run(lambda: worker.run(lambda: found.append(threading.current_thread().name)))
            worker.run(lambda: 1 / 0)
        except ZeroDivisionError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found[0] == "mixer_mlx"
    assert isinstance(found[1], ZeroDivisionError)


def test_the_main_thread_computes_what_only_others_must_not() -> None:
    @worker.outlives_threads
    def name() -> str:
        return threading.current_thread().name

    found = [name()]
    thread = threading.Thread(target=lambda: found.append(name()))
    thread.start()
    thread.join(60)
    assert found == [threading.main_thread().name, "mixer_mlx"]


def test_a_forked_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_forked", True)
    with pytest.raises(BackendError, match="spawn"):
        worker.run(lambda: mx.zeros(1))
