"""-o FILE grows in FILE.part, and --resume gives the file of an undisturbed run."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from itertools import accumulate, islice
from pathlib import Path

import pytest

from mixer_mlx import Classifier
from mixer_mlx.cli.terminal.part_file import PartFile
from mixer_mlx.errors import CheckpointError, MixerError

COMMAND = [sys.executable, "-m", "mixer_mlx", "predict", "-m", "cifar10", "--dtype", "float32"]
ARGS = ("-m", "cifar10", "-b", 3, "-k", 2, "--dtype", "float32")


@pytest.fixture
def break_off(mixer, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run a command whose model fails after so many images."""

    def run(after: int, *args: object):  # type: ignore[no-untyped-def]
        def failing(*args, **options):  # type: ignore[no-untyped-def]
            yield from islice(predict(*args, **options), after)
            raise CheckpointError("The model broke.")

        predict = Classifier.predict
        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "predict", failing)
            return mixer(*args)

    return run


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("threshold", [0, 0.2])
def test_the_end_result_is_that_of_an_undisturbed_run(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path, suffix: str, threshold: float
) -> None:
    images = (album, album / "02.png", album / "04.png", album / "02.png")
    args = ("predict", *images, *ARGS, "--threshold", threshold)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    part = tmp_path / f"out.{suffix}.part"
    assert mixer(*args, "-o", whole).code == 1
    run = break_off(7, *args, "-o", out)
    assert run.err.endswith(f"are in {part}; run the same command with --resume to continue.\n")
    assert whole.read_bytes().startswith(part.read_bytes())
    settings = Path(f"{part}.json").read_bytes()
    size = whole.stat().st_size
    lines = list(accumulate(map(len, whole.read_bytes().splitlines(keepends=True))))
    # Nothing; in the first line; a line's end and before it, in a batch and at its end; all.
    for cut in (0, 9, lines[3] - 1, lines[3], lines[len(lines) // 2], size - 40, size):
        part.write_bytes(whole.read_bytes()[:cut])
        Path(f"{part}.json").write_bytes(settings)
        run = mixer(*args, "-o", out, "--resume", "--force")
        assert run.code == 1
        assert run.err.endswith("2 of 14 images can't be read.\n")
        assert out.read_bytes() == whole.read_bytes()
        assert sorted(os.listdir(tmp_path)) == ["album", out.name, whole.name]


@pytest.mark.parametrize(("suffix", "lines"), [("jsonl", 11), ("csv", 1 + 10 * 2 + 1)])
def test_whole_batches_are_not_computed_again(  # type: ignore[no-untyped-def]
    mixer,
    break_off,
    album: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    lines: int,
) -> None:
    out = tmp_path / f"out.{suffix}"
    break_off(7, "predict", album, *ARGS, "-o", out)
    given = []
    predict = Classifier.predict

    def watched(self, images, **options):  # type: ignore[no-untyped-def]
        given.extend(images := list(images))
        return predict(self, images, **options)

    monkeypatch.setattr(Classifier, "predict", watched)
    mixer("predict", album, *ARGS, "-o", out, "--resume")
    assert [Path(str(name)).name for name in given] == [f"{n:02}.png" for n in range(6, 11)]
    assert len(out.read_bytes().splitlines()) == lines


@pytest.mark.parametrize("needs_end", [True, False])
def test_a_part_that_can_not_be_completed(tmp_path: Path, needs_end: bool) -> None:
    """After a failed write a Parquet file has no end, so nobody can read it."""
    target = PartFile(tmp_path / "out", resumable=not needs_end, needs_end=needs_end)
    with pytest.raises(MixerError, match="No space left") as caught, target.open({}) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    left = [] if needs_end else ["out.part", "out.part.json"]
    assert sorted(os.listdir(tmp_path)) == left
    assert ("out.part" in str(caught.value)) != needs_end


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("-k", 3), "was begun with k 2, not 3"),
        (("-b", 4), "was begun with batch size 3, not 4"),
        (("--dtype", "bfloat16"), "was begun with dtype float32, not bfloat16"),
        (("--format", "csv"), "was begun with format json, not csv"),
        (("--threshold", 0.5), "was begun with threshold 0.0, not 0.5"),
    ],
)
def test_another_question_is_refused(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path, changed: tuple[object, ...], says: str
) -> None:
    out = tmp_path / "out.jsonl"
    break_off(4, "predict", album, *ARGS, "-o", out)
    before = (tmp_path / "out.jsonl.part").read_bytes()
    run = mixer("predict", album, *ARGS, *changed, "-o", out, "--resume")
    assert run.code == 1
    assert says in run.err
    assert "--force" in run.err
    assert (tmp_path / "out.jsonl.part").read_bytes() == before


def test_what_is_there_is_not_destroyed_unasked(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path
) -> None:
    out, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    args = ("predict", album, *ARGS, "-o", out)
    break_off(4, *args)
    before = part.read_bytes()
    run = mixer(*args)
    assert (run.code, run.out) == (1, "")
    assert "--resume" in run.err
    assert "--force" in run.err
    (tmp_path / "out.csv.part.json").unlink()
    assert "missing or broken" in mixer(*args, "--resume").err
    assert part.read_bytes() == before
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "Another command is writing" in mixer(*args, "--force").err
    assert part.read_bytes() == before
    assert mixer(*args, "--force").code == 1  # for 04.png
    assert sorted(os.listdir(tmp_path)) == ["album", "out.csv"]


def test_a_run_that_fails_at_once_leaves_nothing(  # type: ignore[no-untyped-def]
    mixer, break_off, album: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    assert break_off(0, "predict", album, *ARGS, "-o", out).err == "Error: The model broke.\n"
    assert mixer("predict", album, "-m", "nothing", "-o", out).code == 1
    (tmp_path / "empty").mkdir()
    assert mixer("predict", tmp_path / "empty", *ARGS, "-o", out).code == 1
    assert sorted(os.listdir(tmp_path)) == ["album", "empty"]


def test_resume_begins_where_there_is_nothing(mixer, cat: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert mixer("predict", cat, *ARGS, "-o", tmp_path / "o.csv", "--resume").code == 0
    assert (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_process_that_is_ended_loses_nothing(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    command = [*COMMAND, "-", "-b", "1", "-o", out]
    with subprocess.Popen(command, stdin=-1, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        run.stdin.write(f"{cat}\n" * 30)
        run.stdin.flush()  # and it waits for more
        while not part.exists() or part.read_bytes().count(b"\n") < 5:
            assert run.poll() is None
            time.sleep(0.002)
        run.send_signal(number)
        assert run.wait() == code
        assert run.stderr is not None
        said = run.stderr.read()
    if number != signal.SIGKILL:
        advice = f"Finished results are in {part}; run the same command with --resume to continue."
        assert said == f"Interrupted. {advice}\n"
    args = [*COMMAND[3:], *[cat] * 40, "-b", "1"]
    assert mixer(*args, "-o", out, "--resume").code == 0
    assert mixer(*args, "-o", tmp_path / "whole.jsonl").code == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert json.loads(out.read_text().splitlines()[39])["image"] == str(cat)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT RUN: needs /dev/full")
@pytest.mark.parametrize("args", [("predict", "CAT", "-m", "cifar10"), ("models",), ("env",)])
def test_a_full_disk_behind_stdout_is_a_sentence(cat: Path, args: tuple[str, ...]) -> None:
    args = tuple(str(cat) if arg == "CAT" else arg for arg in args)
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [*COMMAND[:3], *args], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    says = "Error: The output can't be written: No space left on device.\n"
    assert (run.returncode, run.stderr) == (1, says)


def test_a_file_that_can_not_grow_is_a_sentence(mixer, album: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A limit on the size of files stands for the full disk."""
    out = tmp_path / "out.jsonl"
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from mixer_mlx.cli.main import main; main()"
    )
    args = ["predict", album, "-m", "cifar10", "--dtype", "float32", "-o", out]
    run = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == (
        f"Error: {out} can't be written: File too large. Finished results are in {out}.part; "
        "run the same command with --resume to continue.\n"
    )
    assert os.path.getsize(f"{out}.part") == 2000
    mixer(*args, "--resume")
    mixer(*args[:-1], tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
