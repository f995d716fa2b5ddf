"""The page: start, answers, refits, and a soak, against a server of its own.

    python benchmarks/page.py [--frames 10000] [--files 5000] [-m MODEL] [--out FILE]

Needs the extra `serve`. Requests go over one connection to 127.0.0.1, as a page's do. CPU time (of
all threads) and memory (the resident set) are the server's, by `ps`, or for refits this process's.
Prints tables, and writes them to --out as JSON.
"""

import argparse
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mixer_mlx.features.growing import GrowingProbe

Row = dict[str, object]
FRAME = (480, 360)
"""Of the page's camera frames."""


class Client:
    """The one connection of a page."""

    def __init__(self, address: str) -> None:
        self._host, _, self._token = address.removeprefix("http://").strip().partition("/#")
        self._connection = http.client.HTTPConnection(self._host)

    def post(self, path: str, body: bytes, kind: str = "application/octet-stream") -> object:
        headers = {
            "X-Mixer-Token": self._token,
            "Origin": f"http://{self._host}",
            "Content-Type": kind,
        }
        self._connection.request("POST", f"/api/{path}", body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(text)
        return json.loads(text)


@contextmanager
def server(folder: Path, *arguments: str) -> Iterator[tuple[Client, int]]:
    """A page's server, and its process."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mixer_mlx", *arguments, "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**os.environ, "MIXER_MLX_CACHE": str(folder / "cache")},
    )
    try:
        assert process.stdout  # noqa: S101
        yield Client(process.stdout.readline()), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def used(process: int) -> tuple[float, float]:
    """Memory in MiB, and CPU time in seconds."""
    found = subprocess.run(  # noqa: S603
        ["ps", "-o", "rss=,time=", "-p", str(process)],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    size, text = found.stdout.split()
    parts = [float(part) for part in text.replace("-", ":").split(":")]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return round(int(size) / 2**10, 1), seconds


def frames(count: int, size: tuple[int, int] = FRAME) -> Iterator[bytes]:
    """Different JPEG files, of smooth noise, which is compressed as a photo is."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        file = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
        yield file.getvalue()


def timed(function: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def row(question: str, times: list[float], cpu: float | None, target: float) -> Row:
    """Milliseconds, CPU milliseconds of one, and the target."""
    ordered = sorted(times)
    return {
        "question": question,
        "best": round(ordered[0], 1),
        "median": round(statistics.median(ordered), 1),
        "of 100, 95 are below": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "CPU": None if cpu is None else round(cpu, 1),
        "target": target,
        "times": len(times),
    }


def start_to_answer(folder: Path, model: str, rounds: int) -> Row:
    """From typing the command to the answer to a first image."""
    (frame,) = frames(1)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with server(folder, "serve", "-m", model) as (client, _):
            client.post("predict", frame)
            times.append(1000 * (time.perf_counter() - start))
    return row("start to first answer", times[1:], None, 2000)  # the first fills the system's cache


def refits(count: int, size: int = 768, rounds: int = 30) -> Row:
    """One more example among so many, of five classes, and the new head."""
    rng = np.random.default_rng(0)
    growing = GrowingProbe(size)
    names = list("abcde")
    for name in names:
        growing.add(rng.normal(size=(count // 5, size)), name)
    new = rng.normal(size=(1, size))

    def refit() -> None:
        growing.add(new, "a")
        growing.fit(names)

    before = time.process_time()
    times = [timed(refit) for _ in range(rounds)]
    cpu = 1000 * (time.process_time() - before) / rounds
    return row(f"refit with {count:,} examples", times, cpu, 20 if count <= 500 else 200)


def soak(folder: Path, model: str, count: int) -> tuple[Row, list[float]]:
    """Camera frames, and the memory after each tenth of them."""
    some = list(frames(100))
    times, sizes = [], []
    with server(folder, "serve", "-m", model) as (client, process):
        for frame in some[:10]:
            client.post("predict", frame)
        before = used(process)[1]
        for number in range(count):
            times.append(timed(partial(client.post, "predict", some[number % len(some)])))
            if (number + 1) % max(1, count // 10) == 0:
                sizes.append(used(process)[0])
        cpu = 1000 * (used(process)[1] - before) / count
    return row("answer to a camera frame", times, cpu, 50), sizes


def many_files(folder: Path, model: str, count: int) -> list[Row]:
    """A start with so many files in five classes, once more, and a new file each time."""
    for number, data in enumerate(frames(count, (96, 72))):
        path = folder / "many" / f"class {number % 5}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = []
    for number, name in enumerate(("first", "second")):
        start = time.perf_counter()
        with server(folder, "teach", "many", "-m", model) as (client, process):
            client.post("predict", next(frames(1)))
            seconds = time.perf_counter() - start
            new = next(frames(1, (101 + number, 75)))
            took = timed(partial(client.post, "images?class=class%200", new))
            one = {"start": name, "s": round(seconds, 1), "a new file, ms": round(took)}
            found.append(one | {"memory, MiB": used(process)[0]})
    return found


def table(rows: list[Row]) -> str:
    """As Markdown."""
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([_cell(one[key]) for key in keys] for one in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def main() -> None:
    """Answer all questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default="cifar10")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [start_to_answer(folder, options.model, options.rounds), refits(500), refits(5_000)]
        answers, sizes = soak(folder, options.model, options.frames)
        rows.append(answers)
        files = many_files(folder, options.model, options.files)
    print(table(rows))
    print(f"Memory after each tenth of {options.frames:,} frames, MiB: {sizes}\n")
    print(f"With {options.files:,} files:\n\n{table(files)}")
    found = {"model": options.model, "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all")}
    found |= {"rows": rows, "frames": options.frames, "memory": sizes, "files": files}
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
