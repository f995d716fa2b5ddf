"""The worker of mixer-mlx."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import serve
from jobs_memory import MEMORY_JOBS
from jobs_scaling import Scaling
from serve import Case, Plain

import mixer_mlx
from mixer_mlx.runtime import backend, threads
from mixer_mlx.training import network
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.step import REPORT, first_arrays, make_step


class Inference(Plain):
    """uint8 pixels to float32 logits in NumPy, as `Classifier` computes them."""

    def __init__(self, case: Case) -> None:
        self.classifier = mixer_mlx.load(case["native"], dtype=case["dtype"], device=case["device"])
        self.pixels = serve.noise(case)
        for _ in range(case.get("earlier", 0)):
            self.run()

    def run(self) -> None:
        self.logits = np.array(self.classifier.forward(self.pixels))

    def output(self) -> dict[str, np.ndarray]:
        return {"logits": self.logits}


class Training(Plain):
    """One update of `fit` from uint8 pixels, without random augmentation."""

    def __init__(self, case: Case) -> None:
        classifier = mixer_mlx.load(case["native"], dtype="float32", device=case["device"])
        mx.set_default_device(classifier.device)
        self.lr = case["lr"]
        recipe = Recipe(
            steps=1,
            batch_size=case["batch"],
            optimizer=case["optimizer"],
            lr=self.lr,
            weight_decay=case["weight_decay"],
            clip_norm=case["clip_norm"],
            dtype=case["dtype"],
        )
        self.step = make_step(classifier.config, recipe, classifier.preprocess)
        self.arrays = first_arrays(network.weights_of(classifier.model), recipe)
        self.pixels, self.labels = serve.noise(case), serve.labels(case)
        self.losses: list[float] = []

    def run(self) -> None:
        number = len(self.losses)
        self.arrays, report = self.step(self.arrays, {}, self.pixels, self.labels, number, self.lr)
        mx.eval(self.arrays, report)
        self.losses.append(report.tolist()[REPORT.index("loss")])

    def output(self) -> dict[str, np.ndarray]:
        return {"losses": np.array(self.losses)}


class Decoding(Plain):
    """Files to normalised float32 batches, decoded in as many threads as `Classifier` uses."""

    def __init__(self, case: Case) -> None:
        self.preprocess = mixer_mlx.Preprocess(tuple(case["image_size"]))
        self.exact, self.batch = case["exact"], case["batch"]
        self.paths = sorted(Path(case["pictures"]).iterdir())
        threads.use_workers(case["threads"])
        self.mean = mx.array(self.preprocess.mean)
        self.std = mx.array(self.preprocess.std)

    def run(self) -> None:
        self.first = None
        pixels: list[np.ndarray] = []
        decoded = threads.in_threads(self._pixels, self.paths, ahead=2 * threads.workers())
        for number, one in enumerate(decoded, start=1):
            pixels.append(one)
            if len(pixels) == self.batch or number == len(self.paths):
                images = (mx.array(np.stack(pixels)) / 255 - self.mean) / self.std
                mx.eval(images)
                self.first = images if self.first is None else self.first
                pixels = []

    def _pixels(self, path: Path) -> np.ndarray:
        return self.preprocess(path, exact=self.exact)

    def output(self) -> dict[str, np.ndarray]:
        return {"images": np.array(self.first)}


def versions() -> dict[str, Any]:
    """Versions of this contender, and its BLAS."""
    blas = backend.describe()["blas"]
    return {
        "mixer-mlx": mixer_mlx.__version__,
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "pillow": version("pillow"),
        "blas": f"{Path(blas['library']).name} ({blas['core']})",
    }


if __name__ == "__main__":
    serve.serve(
        versions(),
        {
            "inference": Inference,
            "training": Training,
            "pictures": Decoding,
            "scaling": Scaling,
            **MEMORY_JOBS,
        },
    )
