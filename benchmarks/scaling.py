"""Time, memory and operations of a forward pass against batch, tokens, depth and width.

    python benchmarks/scaling.py

Starting from S/16 (C 512, D_S 256, D_C 2048, 8 blocks, 224 x 224 pixels, batch 1), one size grows
at a time. Along "tokens" the Mixer is compared with a ViT of the same width: same stem, channel
MLPs, norms and head, with attention in place of the token-mixing MLP. D_S is constant as tokens
grow, as in the paper, so the Mixer is linear in them. Along "width" D_S and D_C grow with C, as in
the paper's Table 1. An exponent is the slope of a line through the upper half of the points on
logarithmic axes. Each point has its own process, so that memory is measured separately.

Writes a plot (results/scaling.png) beside the JSON.
"""

import contextlib
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
import session
from harness import Row
from session import Session

from mixer_mlx import MixerConfig
from mixer_mlx.analysis.curves import Panel, draw_panels

POINTS = {
    "batch": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "tokens": [49, 100, 196, 400, 784, 1600, 3136],
    "depth": [2, 4, 8, 16, 24, 32, 48],
    "width": [128, 192, 256, 384, 512, 768, 1024, 1280],
}
QUICK = {"batch": [1, 2, 4], "tokens": [49, 100, 196], "depth": [1, 2, 4], "width": [64, 128, 256]}
UNITS = {"seconds": ("time, ms", 1e3), "peak": ("peak memory, MiB", 2**-20)}
BESIDE = "vit"


def main() -> None:
    parser = session.parser(__doc__)
    parser.add_argument("--axes", nargs="+", choices=list(POINTS), default=list(POINTS))
    parser.add_argument(
        "--device", choices=["cpu", "gpu"], help="default: the GPU, if there is one"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    options = parser.parse_args()
    options.device = options.device or session.device()
    with Session("scaling", options, rounds=5) as run:
        for axis in options.axes:
            kinds = ["mixer", BESIDE] if axis == "tokens" else ["mixer"]
            for value in (QUICK if options.quick else POINTS)[axis]:
                measure(run, axis, value, kinds)
        plot(run)


def sizes(axis: str, value: int) -> tuple[int, MixerConfig]:
    """Batch and config of a point."""
    config = MixerConfig.variant("S/16")
    if axis == "batch":
        return value, config
    if axis == "tokens":
        side = math.isqrt(value) * config.patch_size
        return 1, config.replace(image_size=(side, side))
    if axis == "depth":
        return 1, config.replace(num_blocks=value)
    wide = {"hidden_dim": value, "tokens_mlp_dim": value // 2, "channels_mlp_dim": 4 * value}
    return 1, config.replace(**wide)


def measure(run: Session, axis: str, value: int, kinds: Sequence[str]) -> None:
    """One point, for each kind of model."""
    batch, config = sizes(axis, value)
    case = {
        "job": "scaling",
        "batch": batch,
        "config": config.to_dict(),
        "device": run.options.device,
        "dtype": run.options.dtype,
    }
    with contextlib.ExitStack() as stack:
        workers = {kind: stack.enter_context(run.workers([harness.OURS])) for kind in kinds}
        contenders = []
        for kind, (worker,) in workers.items():
            worker.name = kind
            worker.start({**case, "kind": kind})
            contenders.append(worker)
        results = harness.compare(contenders, rounds=run.rounds, seconds=run.seconds)
        session.add_memory(results, contenders)
        for worker in contenders:
            results[worker.name] |= worker.ask(do="facts")["facts"]
    run.add({"name": f"{axis} {value}", "axis": axis, "value": value}, results, to="mixer")


def exponents(cases: Sequence[Row]) -> Iterator[Row]:
    """For each axis, kind of model and quantity: the exponent on the upper half of the points."""
    for axis in POINTS:
        points = [case for case in cases if case["case"]["axis"] == axis]
        for kind in ("mixer", BESIDE):
            rows = [
                (p["case"]["value"], p["results"][kind]) for p in points if kind in p["results"]
            ]
            upper = rows[-math.ceil(len(rows) / 2) :]
            if len(upper) > 1:
                for quantity in ("seconds", "peak", "macs"):
                    pairs = [(value, amount(row, quantity)) for value, row in upper]
                    found = {"axis": axis, "kind": kind, "quantity": quantity}
                    yield {**found, "from": upper[0][0], "exponent": slope(pairs)}


def amount(row: Row, quantity: str) -> float:
    """A number of a result."""
    return row["seconds"]["median"] if quantity == "seconds" else row[quantity]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The exponent b of y = a x**b, by least squares of the logarithms."""
    xs, ys = ([math.log(point[i]) for point in points] for i in (0, 1))
    return statistics.linear_regression(xs, ys).slope


def plot(run: Session) -> None:
    """A chart of time and one of memory for each axis."""
    panels = []
    for axis in dict.fromkeys(case["case"]["axis"] for case in run.cases):
        points = [case for case in run.cases if case["case"]["axis"] == axis]
        for quantity, (title, factor) in UNITS.items():
            curves: dict[str, list[tuple[float, float]]] = {}
            for point in points:
                for kind, row in point["results"].items():
                    y = factor * amount(row, quantity)
                    curves.setdefault(kind, []).append((point["case"]["value"], y))
            panels.append(Panel(f"{title}, by {axis}", curves))
    out: Path = run.out.with_suffix(".png")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_panels(panels).save(out)
    harness.say(f"Wrote {out}.")


if __name__ == "__main__":
    main()
