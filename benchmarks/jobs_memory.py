"""Jobs of worker_mlx.py: what MLX allocates for a forward pass, a training step, a run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import serve
from serve import Case, Job, Plain

import mixer_mlx
from mixer_mlx import MixerConfig, MlpMixer, ModelInfo, Preprocess
from mixer_mlx.classify import Classifier
from mixer_mlx.data.read import read_splits
from mixer_mlx.errors import ImageError
from mixer_mlx.runtime import backend
from mixer_mlx.training import prepare
from mixer_mlx.training.loop import StepDone, fit
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import make_step


def build(case: Case) -> tuple[MlpMixer, ModelInfo]:
    """The built-in model's sizes or a variant's, with random weights and `blocks` blocks."""
    mx.set_default_device(backend.device(case["device"]))
    if case["model"] == "cifar10":
        config = mixer_mlx.load("cifar10").config
    else:
        config = MixerConfig.variant(case["model"])
    config = config.replace(num_blocks=case["blocks"])
    model = MlpMixer(config)
    mx.eval(model.parameters())
    return model, ModelInfo(config, Preprocess(config.image_size))


def recipe(case: Case, **more: Any) -> Recipe:
    return Recipe(**{"steps": case.get("steps", 2), **case["recipe"], **more})


class Peak(Plain):
    """A job that reports MLX's peak allocation since `start`, weights included."""

    def facts(self) -> dict[str, Any]:
        return {"peak": mx.get_peak_memory()}


class InferenceMemory(Peak):
    """`Classifier.logits` of a batch."""

    def __init__(self, case: Case) -> None:
        model, info = build(case)
        model.set_dtype(getattr(mx, case["dtype"]))
        self.classifier = Classifier(model, info)
        sides = list(info.config.image_size)
        self.pixels = serve.noise({"batch": case["batch"], "image_size": sides})
        mx.reset_peak_memory()

    def run(self) -> None:
        mx.eval(self.classifier.forward(self.pixels))


class TrainingMemory(Peak):
    """A training step of `fit`."""

    def __init__(self, case: Case) -> None:
        model, info = build(case)
        sizes = {
            "batch": case["batch"],
            "image_size": list(info.config.image_size),
            "classes": info.config.num_classes,
        }
        self.pixels, self.labels = serve.noise(sizes), serve.labels(sizes)
        chosen = recipe(case, batch_size=case["batch"])
        self.state = State.start(model, chosen)
        del model
        mx.eval(self.state.arrays)
        self.step = make_step(info.config, chosen, info.preprocess)
        mx.reset_peak_memory()

    def run(self) -> None:
        state = self.state
        state.arrays, report = self.step(
            state.arrays, state.frozen, self.pixels, self.labels, 0, 1e-4
        )
        mx.eval(state.arrays, report)


class Planned(Peak):
    """The estimates of `--plan` for a run."""

    def __init__(self, case: Case) -> None:
        self.case = case
        train, _ = read_splits(Path(case["pictures"]))
        chosen = recipe(case)
        self.recipe = chosen.replace(batch_size=chosen.batch_size_for(len(train)))
        model, info = build(case)
        self.model, self.info = prepare.adapted(model, info, train.classes, self.recipe)

    def run(self) -> None:
        total = self.case["steps"]
        self.plan = prepare.plan(self.model, self.info.preprocess, self.recipe, total)

    def facts(self) -> dict[str, Any]:
        return {
            "peak": self.plan.peak_memory,
            "images_per_second": self.plan.images_per_second,
        }


class Real(Planned):
    """The run itself: images from files, `steps` steps, validation at its end."""

    def run(self) -> None:
        train, val = read_splits(Path(self.case["pictures"]))
        chosen, preprocess = self.recipe, self.info.preprocess
        mx.reset_peak_memory()
        batches = prepare.training_batches(train, chosen, preprocess, refuse)
        validate = prepare.validation(val, self.info, chosen.batch_size, refuse)
        ends = []
        for event in fit(self.model, batches, validate, chosen, preprocess=preprocess):
            if isinstance(event, StepDone):
                ends.append(time.perf_counter())
        self.peak = mx.get_peak_memory()
        first = min(2, len(ends) - 2)  # g++ and the first images' threads
        steps = len(ends) - 1 - first
        self.rate = steps * chosen.batch_size / (ends[-1] - ends[first])

    def facts(self) -> dict[str, Any]:
        return {"peak": self.peak, "images_per_second": self.rate}


def refuse(path: Path, error: ImageError) -> None:
    raise error


MEMORY_JOBS: dict[str, Callable[[Case], Job]] = {
    "inference memory": InferenceMemory,
    "training memory": TrainingMemory,
    "plan": Planned,
    "real": Real,
}
