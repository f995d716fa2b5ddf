"""Start-up times of commands and imports, each in a new process.

    python benchmarks/startup.py --torch-python PATH --jax-python PATH

The first turn, which doesn't count, brings files into the system's cache. "python" is Python alone.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import harness
import models
import session
from harness import HERE, OURS, Command, Row
from session import Session

CAT = str(HERE.parent / "examples" / "cat.png")
TIMM = f"import sys; sys.path.insert(0, {str(HERE)!r}); import worker_torch as w; w.import_timm()"
PYTHON = "python"
OF = {OURS: "worker_mlx.py", "timm": "worker_torch.py", "flax": "worker_jax.py"}
"""Contender -> the worker whose interpreter it runs in."""


def main() -> None:
    options = session.parser(__doc__).parse_args()
    with Session("startup", options, rounds=15) as run:
        with run.workers([OURS, "timm", "flax"]) as found:  # for versions, or to skip it
            present = {PYTHON, OURS, *(worker.name for worker in found)}
        with models.files(models.BUILT_IN) as model, tempfile.TemporaryDirectory() as folder:
            for title, commands in questions(run, model, Path(folder)):
                wanted = run.wanted([name for name in commands if name in present])
                contenders = [command(run, name, commands[name]) for name in wanted]
                results = harness.compare(contenders, rounds=run.rounds, seconds=0, warm_up=1)
                run.add({"name": title}, results)


def command(run: Session, name: str, arguments: list[str]) -> Command:
    """A contender's arguments after its own python."""
    python = sys.executable if name == PYTHON else run.python(OF[name])
    return Command(name, [python, *arguments], run.options.threads)


def questions(run: Session, model: Row, folder: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Task -> contender -> arguments of its python."""
    mixer = ["-m", "mixer_mlx"]
    yield "help", {OURS: [*mixer, "--help"], PYTHON: ["-c", ""]}
    yield (
        "import",
        {
            # `import mixer_mlx` imports nothing heavy; this has MLX, NumPy and Pillow with it.
            OURS: ["-c", "from mixer_mlx import Classifier"],
            "timm": ["-c", TIMM],
            "flax": ["-c", "import jax, flax.linen"],
            PYTHON: ["-c", ""],
        },
    )
    peer = [str(HERE / "timm_predict.py"), CAT, model["timm"], str(folder / "timm.jsonl")]
    ours = [*mixer, "predict", CAT, "-m", model["native"], "--device", "cpu", "--format", "json"]
    yield "one prediction", {OURS: ours, "timm": [*peer, "--workers", "0"]}


if __name__ == "__main__":
    main()
