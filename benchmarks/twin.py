"""Repeat a run of `mixer train` in PyTorch, and plot the curves of both.

    peers/bin/python benchmarks/twin.py DATA RUN RUN/twin.jsonl
    python benchmarks/twin.py --plot curves.png RUN RUN/twin.jsonl

The first trains timm's `MlpMixer` with `torch.optim.AdamW` from RUN's initial weights, on the
same batches, with the same recipe; the python that runs it needs timm, PyTorch and mixer-mlx.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from mixer_mlx.analysis.curves import Panel, draw_panels, smoothed
from mixer_mlx.checkpoint import read_info, read_json
from mixer_mlx.convert.export.tensors import foreign_tensors
from mixer_mlx.convert.export.timm import model_args
from mixer_mlx.convert.names import TIMM
from mixer_mlx.data.loader import DecodedImages, EvaluationBatches
from mixer_mlx.data.read import read_splits
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.training.optimizer import learning_rate
from mixer_mlx.training.prepare import new_model, training_batches
from mixer_mlx.training.recipe import Recipe

# The settings that the loop below implements; others are rejected.
PLAIN = Recipe(epochs=1)
FOLLOWED = {
    *("epochs", "steps", "batch_size", "lr", "end_lr", "warmup", "schedule", "weight_decay"),
    *("betas", "clip_norm", "label_smoothing", "augmentation", "flip", "seed", "rand_augment"),
    *("erasing", "head_bias", "save_every", "batch_fraction"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", help="the data that RUN was trained on")
    parser.add_argument("run", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--val-fraction", type=float, help="the same as for RUN")
    parser.add_argument("--plot", type=Path, help="only plot both runs")
    options = parser.parse_args()
    if options.plot:
        plot(options.plot, options.run, options.log)
    else:
        train(options)


def train(options: argparse.Namespace) -> None:
    """Write a line of JSON for each step and each epoch, as in `log.jsonl`."""
    import torch
    from worker_torch import import_timm

    began = read_json(options.run / "run.json")
    recipe = Recipe.from_dict(began["recipe"])  # type: ignore[arg-type]
    check(recipe)
    info = read_info(options.run / "best")
    train, val = read_splits(options.data, val_fraction=options.val_fraction, seed=recipe.seed)
    batches = training_batches(train, recipe, info.preprocess, refuse)
    held_out = DecodedImages(val, refuse)
    model = twin(import_timm(), info, train.classes, recipe)
    optimizer = torch.optim.AdamW(groups(model, recipe), betas=recipe.betas)
    total = recipe.total_steps(len(batches))

    def images(pixels: Any) -> torch.Tensor:
        return torch.from_numpy(info.preprocess.normalize(pixels)).permute(0, 3, 1, 2)

    step, start = 0, time.perf_counter()
    with options.log.open("w", encoding="utf-8", buffering=1) as log:
        for epoch in range(-(-total // len(batches))):
            model.train()
            for pixels, labels in batches.epoch(epoch):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, step, total)
                targets = torch.from_numpy(labels).long()
                loss = torch.nn.functional.cross_entropy(
                    model(images(pixels)), targets, label_smoothing=recipe.label_smoothing
                )
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                step += 1
                write(log, event="step", step=step, loss=loss.item())
            model.eval()
            with torch.inference_mode():
                raw = evaluate(model, images, EvaluationBatches(held_out, info.preprocess, 128))
            seconds = time.perf_counter() - start
            write(log, event="epoch", step=step, epoch=epoch, raw=raw, seconds=seconds)


def check(recipe: Recipe) -> None:
    """Exit if the loop below doesn't implement the recipe."""
    plain = PLAIN.to_dict()
    other = {k for k, v in recipe.to_dict().items() if k not in FOLLOWED and v != plain[k]}
    if other:
        sys.exit(f"The twin doesn't implement the recipe's {', '.join(sorted(other))}.")


def twin(timm: Any, info: ModelInfo, classes: tuple[str, ...], recipe: Recipe) -> Any:
    """timm's model with the run's initial weights."""
    import torch

    ours, begun = new_model(info.config, info.preprocess, classes, recipe)
    model = timm.models.mlp_mixer.MlpMixer(num_classes=len(classes), **model_args(begun.config))
    tensors = foreign_tensors(ours, TIMM)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return model


def groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Kernels, which decay, and the rest."""
    return [
        {
            "params": [p for p in model.parameters() if (p.ndim > 1) == kernels],
            "weight_decay": recipe.weight_decay if kernels else 0.0,
        }
        for kernels in (True, False)
    ]


def evaluate(model: Any, images: Any, batches: EvaluationBatches) -> dict[str, float]:
    import torch

    right = count = 0
    loss = 0.0
    for pixels, labels in batches:
        logits, targets = model(images(pixels)), torch.from_numpy(labels).long()
        right += int((logits.argmax(1) == targets).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += len(labels)
    return {"top1": right / count, "loss": loss / count}


def write(log: Any, **values: object) -> None:
    log.write(json.dumps(values) + "\n")


def refuse(name: object, error: Exception) -> None:
    sys.exit(f"{name} can't be read: {error}")


def plot(out: Path, run: Path, log: Path) -> None:
    """Training loss and validation accuracy of both."""
    losses, top1 = {}, {}
    for name, path in (("mixer-mlx", run / "log.jsonl"), ("timm on PyTorch", log)):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        steps = [(x["step"], x["loss"]) for x in lines if x["event"] == "step"]
        losses[name] = smoothed(steps, 60)
        top1[name] = [(x["step"], 100 * x["raw"]["top1"]) for x in lines if x["event"] == "epoch"]
    draw_panels([Panel("loss by step", losses), Panel("validation top-1, %", top1)]).save(out)


if __name__ == "__main__":
    main()
