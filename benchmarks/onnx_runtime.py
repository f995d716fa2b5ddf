"""Forward passes on the CPU: mixer-mlx compared with ONNX Runtime and a file of `mixer export`.

    python benchmarks/onnx_runtime.py

Both take the same uint8 pixels and return float32 logits, which must agree. Needs the extra `onnx`
and onnxruntime in this Python.
"""

import tempfile
import time
from pathlib import Path

import agreement
import harness
import models
import session
from inference import TOLERANCE
from session import Session

from mixer_mlx.convert.export import formats

DTYPE = "float32"


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--batches", nargs="+", type=int)
    options = parser.parse_args()
    names = options.models or (["cifar10"] if options.quick else ["cifar10", "B/16"])
    with Session("onnx_runtime", options) as run:
        for name in names:
            for batch in options.batches or [1, 8]:
                measure(run, name, batch)


def measure(run: Session, name: str, batch: int) -> None:
    """One case; the seconds that writing the file took are part of it."""
    with models.files(name) as files, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.perf_counter()
        formats.export(*models.make(name), path, format="onnx")
        written = time.perf_counter() - start
        case = {"job": "inference", "batch": batch, "dtype": DTYPE, "device": "cpu", **files}
        case["onnx"] = str(path)
        with run.workers([harness.OURS, "onnx runtime"]) as workers:
            for worker in workers:
                worker.start(case)
            results = harness.compare(workers, rounds=run.rounds, seconds=run.seconds)
            differences = agreement.check(workers, Path(folder), "logits", TOLERANCE[DTYPE])
            session.add_memory(results, workers)
        size = path.stat().st_size
    shown = {"name": f"{name} batch {batch}", "model": name, "batch": batch, "dtype": DTYPE}
    shown |= {"device": "cpu", "export_seconds": written, "export_bytes": size}
    run.add(shown, results, differences=differences)


if __name__ == "__main__":
    main()
