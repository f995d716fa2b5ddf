"""Ctrl-C, SIGTERM and SIGHUP at given moments, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

# Each puts a signal before something that the command does.
MOMENTS = {
    "loading": "mixer_mlx.convert, 'load'",
    "finding": "mixer_mlx.images.find, 'find_images'",
    "decoding": "mixer_mlx.images.preprocess.Preprocess, '__call__'",
    "computing": "mixer_mlx.model.MlpMixer, '__call__'",
    "writing": "mixer_mlx.cli.terminal.output, 'json_line'",
    "finishing": "mixer_mlx.cli.predict.write.LineWriter, 'write_header'",
}
DRIVER = """
import itertools, os, sys, signal, mixer_mlx.cli.main, mixer_mlx.convert, mixer_mlx.images.find
import mixer_mlx.images.preprocess, mixer_mlx.model
import mixer_mlx.cli.predict.write, mixer_mlx.cli.predict.command

def put(home, name):
    found, calls = getattr(home, name), itertools.count()
    def signalled(*args, **options):
        if next(calls) == 0:  # a second one, of another thread, would end the process at once
            os.kill(os.getpid(), {number})
        return found(*args, **options)
    setattr(home, name, signalled)

put({moment})
mixer_mlx.cli.main.main()
"""


@pytest.mark.parametrize(
    ("moment", "number"), list(zip(MOMENTS, [2, 15, 1] * 2, strict=True)), ids=list(MOMENTS)
)
def test_a_signal_is_a_sentence_and_its_exit_code(cat: Path, moment: str, number: int) -> None:
    driver = DRIVER.format(moment=MOMENTS[moment], number=number)
    args = ["predict", *[cat] * 20, "-b", "4", "-m", "cifar10", "--format", "json"]
    run = subprocess.run(
        [sys.executable, "-c", driver, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (128 + number, "Interrupted.\n")


def signalled(body: str) -> tuple[int, str, str]:
    code = f"import signal\nfrom mixer_mlx.cli.terminal import signals\nsignals.listen()\n{body}"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return run.returncode, run.stdout, run.stderr


def test_a_second_signal_ends_at_once() -> None:
    body = """
try:
    signal.raise_signal(2)
except signals.Interrupted:
    signal.raise_signal(15)
    print("still here")
"""
    assert signalled(body) == (143, "", "")


def test_a_signal_where_python_would_go_on() -> None:
    body = """
class Closing:
    def __del__(self):
        signal.raise_signal(2)
thing = Closing()
del thing
print("still here")
"""
    assert signalled(body) == (130, "", "Interrupted.\n")


def test_what_is_ignored_stays_ignored() -> None:
    code = """
import signal
signal.signal(2, signal.SIG_IGN)
from mixer_mlx.cli.terminal import signals
signals.listen()
signal.raise_signal(2)
print("still here")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "still here\n")


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_while_the_command_is_imported(number: int) -> None:
    """Python would show a traceback of its own."""
    code = f"""
import os, sys
from mixer_mlx.cli import start

class Import:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Import())
start.main()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (128 + number, "Interrupted.\n")
