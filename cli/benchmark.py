"""`mixer benchmark`: a model's speed and memory on this machine."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mixer_mlx.choices import DEFAULT_MODEL, Device, DType, Format
from mixer_mlx.errors import SourceError

from .terminal import files, options, output
from .terminal.progress import bar

if TYPE_CHECKING:
    from mixer_mlx import Classifier
    from mixer_mlx.benchmark.measure import Job, Measured
    from mixer_mlx.benchmark.report import Comparison

_MAX_BATCH = 65_536


def benchmark(
    ctx: typer.Context,
    model: options.ModelOption = DEFAULT_MODEL,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            help="Architecture with random weights instead of MODEL, without a download: "
            f"{options.VARIANTS}.",
        ),
    ] = None,
    batch_sizes: Annotated[
        str, typer.Option("-b", "--batch-size", help="Batch sizes, separated by commas.")
    ] = "1,8,64",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Number formats, separated by commas: float32,float16,bfloat16. Default: float16 "
            "on a GPU; float32 on the CPU and with --train.",
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Measure training steps instead of predictions.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="With --train: the recipe of the steps. Default: AdamW."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=0, help="Time to measure for, after warming up; at least 3 runs."
        ),
    ] = 10,
    repeat: Annotated[
        int | None, typer.Option("--repeat", min=1, help="Number of runs, instead of --seconds.")
    ] = None,
    format: options.FormatOption = "table",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Also write the results as JSON.", dir_okay=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Plot images per second by batch size.", metavar="FILE.png"),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            help="Show ratios to the results in a file written by -o.",
            metavar="FILE.json",
        ),
    ] = None,
    force: options.Force = False,
    device: options.DeviceOption = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model's speed and memory, as a fraction of what the machine can do.

    The ceiling is a large matrix product, measured in the same run. Decoding images isn't measured.
    Close other programs first.
    """
    sizes, dtypes = _batch_sizes(batch_sizes), _dtypes(dtype)
    if variant and _was_given(ctx, "model"):
        raise typer.BadParameter("give either -m or --variant.")
    if recipe and not train:
        raise typer.BadParameter("--recipe needs --train.")
    for path in filter(None, (out, plot)):
        files.check(path, force=force)

    from mixer_mlx.benchmark import report
    from mixer_mlx.benchmark.measure import measure
    from mixer_mlx.runtime import backend

    earlier = report.Earlier.read(compare) if compare else None
    default: DType = (
        "float32" if train else backend.dtype_name(backend.dtype(None, backend.device(device)))
    )
    dtypes = dtypes or [default]
    classifier = _classifier(model, variant, "float32" if train else dtypes[0], device, quiet=quiet)
    jobs = _jobs(classifier, sizes, dtypes, train=train, recipe=recipe)
    with bar(quiet=quiet) as show:
        show(0, "warming up")
        measured = measure(
            jobs,
            classifier.device,
            seconds=seconds,
            repeats=repeat,
            progress=lambda done, total: show(done, "measuring", total),
        )
    record = report.record(
        classifier.config,
        measured,
        classifier.device,
        model=f"{variant}, random weights" if variant else model,
        job="train" if train else "predict",
        recipe=(recipe or "AdamW") if train else None,
    )
    _write(record, measured, out, plot)
    comparison = report.compare(record, earlier) if earlier else None
    _show(record, measured, format, comparison)


def _batch_sizes(text: str) -> list[int]:
    sizes = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(0 < size <= _MAX_BATCH for size in sizes):
        raise typer.BadParameter(
            f"Expected batch sizes from 1 to {_MAX_BATCH:,}, e.g. 1,8,64, not {text!r}."
        )
    return list(dict.fromkeys(sizes))


def _dtypes(text: str | None) -> list[DType]:
    """The list; empty means the default."""
    wanted = [] if text is None else [part.strip() for part in text.split(",")]
    if not set(wanted) <= set(get_args(DType)):
        known = ", ".join(get_args(DType))
        raise typer.BadParameter(f"{text!r} isn't a list of dtypes; choose from {known}.")
    return [cast(DType, name) for name in dict.fromkeys(wanted)]


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _classifier(
    model: str, variant: str | None, dtype: DType, device: Device | None, *, quiet: bool
) -> "Classifier":
    from mixer_mlx import MixerConfig
    from mixer_mlx.benchmark.jobs import random_classifier
    from mixer_mlx.convert import load
    from mixer_mlx.runtime import backend

    if variant:
        return random_classifier(MixerConfig.variant(variant), backend.device(device))
    try:
        with output.fetching(quiet=quiet) as listener:
            return load(model, dtype=dtype, device=device, listener=listener)
    except SourceError as error:
        error.add_note("Random weights are as fast and need no network: --variant B/16")
        raise


def _jobs(
    classifier: "Classifier",
    sizes: Sequence[int],
    dtypes: Sequence[str],
    *,
    train: bool,
    recipe: str | None,
) -> "list[Job]":
    if not train:
        from mixer_mlx.benchmark.jobs import forward_jobs

        return forward_jobs(classifier, sizes, dtypes)
    from mixer_mlx.benchmark.jobs import PLAIN, training_jobs
    from mixer_mlx.training.recipes import named

    chosen = named(recipe).recipe if recipe else PLAIN
    return training_jobs(classifier, chosen, sizes, dtypes)


def _write(
    record: dict[str, object], measured: "Measured", out: Path | None, plot: Path | None
) -> None:
    from mixer_mlx.analysis.curves import draw_panels
    from mixer_mlx.benchmark import report
    from mixer_mlx.runtime.atomic import written_file

    if out:
        with written_file(out) as temporary:
            temporary.write_text(report.to_json(record), encoding="utf-8")
    if plot:
        panel = report.panel(str(record["model"]), measured)
        with written_file(plot) as temporary:
            draw_panels([panel]).save(temporary, "PNG")


def _show(
    record: dict[str, object],
    measured: "Measured",
    style: Format,
    comparison: "Comparison | None",
) -> None:
    if style == "table":
        _print_table(record, measured, comparison)
        return
    rows = [asdict(result) for result in measured.results]
    if comparison:
        rows = [row | {"ratio": r} for row, r in zip(rows, comparison.ratios, strict=True)]
        record = record | {"results": rows, "differences": comparison.differences}
    if style == "json":
        sys.stdout.write(output.json_line(record))
    else:
        output.write_rows(rows, style)


def _print_table(
    record: dict[str, object], measured: "Measured", comparison: "Comparison | None"
) -> None:
    ratios = comparison.ratios if comparison else [None] * len(measured.results)
    rows = [
        {
            "dtype": result.dtype,
            "batch": result.batch_size,
            "images/s": round(result.images_per_second, 1),
            "ms a batch": round(1e3 * result.seconds, 2),
            "quartiles": f"{1e3 * result.seconds_q1:,.2f} - {1e3 * result.seconds_q3:,.2f}",
            "runs": result.repeats,
            "peak MiB": round(result.peak_memory / 2**20, 1),
            "GFLOP/s": round(result.flops_per_second / 1e9, 1),
            "of ceiling": f"{result.share:.1%}",
            **({"ratio": "" if ratio is None else f"{ratio:.2f} x"} if comparison else {}),
        }
        for result, ratio in zip(measured.results, ratios, strict=True)
    ]
    sys.stdout.write(output.table(rows))
    print()
    _print_notes(record, measured, comparison)


def _print_notes(
    record: dict[str, object], measured: "Measured", comparison: "Comparison | None"
) -> None:
    flops = int(str(record["flops_per_image"])) * (3 if record["job"] == "train" else 1)
    job = f"{record['job']} ({record['recipe']})" if record["recipe"] else record["job"]
    lines = [f"{record['model']}, {job}: {flops / 1e9:,.3f} GFLOP an image."]
    lines += [
        f"Ceiling in {ceiling.dtype}: {ceiling.flops_per_second / 1e9:,.1f} GFLOP/s, a product of "
        f"{ceiling.side} x {ceiling.side} matrices."
        for ceiling in measured.ceilings
    ]
    if comparison:
        found = comparison.differences.items()
        lines += [f"Differs: {name}: {here} here, {there} there." for name, (here, there) in found]
        if not found:
            lines.append("Model and environment are the same as there.")
    print("\n".join(map(output.printable, lines)))
