"""A report on a model's results: one self-contained HTML file."""

import html
import math
import os
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mixer_mlx.calibration import Calibration
from mixer_mlx.data.loader import DecodedImages
from mixer_mlx.data.read import Entry
from mixer_mlx.features.few_shot import ShotResult
from mixer_mlx.images.thumbnail import data_url, image_url, open_thumbnail
from mixer_mlx.markup import text
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime.atomic import written_file
from mixer_mlx.runtime.threads import in_threads, workers

from .certainty import classes_advice, confusion_advice, labels_advice, reliability_section
from .enough import curve_advice
from .evaluate import Metrics, Outcome
from .interval import in_per_cent, with_interval

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --paper: #fff; --faint: #6f6f6b; --line: #d9d9d5;
  --bar: rgba(59, 111, 182, .45); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececea; --paper: #191918; --faint: #a3a39e; --line: #3d3d3a;
    --bar: rgba(94, 146, 217, .5); } }
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
p, small { color: var(--faint); }
a { color: inherit; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.curves { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: left; font-weight: normal; }
thead th { color: var(--faint); vertical-align: bottom; border-bottom: 1px solid var(--line); }
.matrix td { text-align: center; min-width: 2.4rem; border: 1px solid var(--line); }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 10rem;
  overflow: hidden; }
.matrix tbody th { text-align: right; white-space: nowrap; }
.classes td { text-align: right; }
.classes td, .learning td { white-space: nowrap; }
.classes .bar { position: relative; width: 14rem; text-align: left; }
.bar i { position: absolute; left: 0; top: 15%; height: 70%; background: var(--bar); }
.bar b { position: relative; font-weight: normal; }
.reliability { width: 18rem; max-width: 100%; font-size: 11px; }
.reliability rect { fill: none; stroke: var(--line); }
.reliability line { stroke: var(--faint); stroke-dasharray: 4 4; }
.reliability circle { fill: var(--bar); stroke: var(--ink); }
.reliability text { fill: var(--faint); }
.wrong { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { display: block; width: 160px; height: 160px; object-fit: contain; }
figure .why { margin-top: .3rem; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .3rem; }
.gone { display: block; width: 160px; height: 160px; border: 1px solid var(--line); padding: .5rem;
  overflow-wrap: anywhere; }
details { margin-top: 2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { details { display: none; } }
"""


MATRIX_CLASSES = 30
"""With more classes, the most confused pairs replace the matrix."""
MAX_PAIRS = 20
MAX_CLASSES = 200
MAX_WRONG = 24

Maps = Mapping[int, Image.Image]
"""By the number of an image: what is drawn beside it."""


@dataclass(frozen=True)
class Report:
    """The contents of a page.

    `facts` are rows of the summary, `details` longer texts with their own headings. `labels` names
    the model's outputs. `outcomes[i]` is the outcome for the image `entries[i]`. `curves` is a PNG.
    `maps[i]` is an image shown beside that image: why the model chose its answer. `calibration` is
    the model's, `fitted_here` whether these images decided it. `cost` are rows of a table, `curve`
    is the learning curve.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    labels: Sequence[str]
    entries: Sequence[Entry]
    outcomes: Sequence[Outcome]
    curves: bytes | None = None
    details: Sequence[tuple[str, str]] = ()
    maps: Maps = field(default_factory=dict)
    calibration: Calibration | None = None
    fitted_here: bool = False
    cost: Sequence[tuple[str, str]] = ()
    curve: Sequence[ShotResult] = ()


def describe(info: ModelInfo, metrics: Metrics, unreadable: int) -> list[tuple[str, str]]:
    """Facts about a model and its results, as rows of the summary."""
    config = info.config
    height, width = config.image_size
    without = f" ({unreadable:,} unreadable)" if unreadable else ""
    return [
        (
            "model",
            f"{config.title}, {config.num_parameters:,} parameters, "
            f"{height} x {width} pixels, {config.num_classes:,} classes",
        ),
        ("images", f"{metrics.images:,}{without}"),
        ("top-1", with_interval(metrics.top1, metrics.images, digits=2)),
        ("top-5", f"{metrics.top5:.2%}"),
        ("loss", f"{metrics.loss:.4f} nats"),
    ]


def readable(images: DecodedImages) -> list[Entry]:
    """The images that were evaluated: all but the unreadable ones."""
    paths = enumerate(images.dataset.paths)
    return [path for index, path in paths if index not in images.unreadable]


def write(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page to a file. Raises MixerError if it can't be written."""
    path = Path(path)
    text = page(report, path.parent)
    with written_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def page(report: Report, folder: Path) -> str:
    """The page as HTML, with links to images relative to `folder`."""
    sections = [
        _section("Summary", _facts(report.facts)),
        _section("Curves", _curves(report.curves)) if report.curves else "",
        _confusion(report),
        _section(
            "Accuracy by class", classes_advice(report.labels, report.outcomes) + _classes(report)
        ),
        _section("Reliability", _reliability(report)),
        _section("Labels in doubt", labels_advice(report.labels, report.outcomes)),
        _section("Worst mistakes", _most_wrong(report, folder)),
        _section("More photos?", _learning(report.curve)) if report.curve else "",
        _section("Cost", _cost(report.cost)) if report.cost else "",
        *(
            f"<details><summary>{text(k)}</summary><pre>{text(v)}</pre></details>"
            for k, v in report.details
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{text(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(report.title)}</h1>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>"


def _table(kind: str, head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="{kind}">\n<thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts) + "</dl>"


def _curves(png: bytes) -> str:
    return f'<img class="curves" alt="Loss and top-1 by step" src="{data_url("png", png)}">'


def _learning(curve: Sequence[ShotResult]) -> str:
    rows = [
        f"<td>{one.name}</td><td>{one.images:,}</td><td>{with_interval(one.mean, one.tested)}</td>"
        for one in curve
    ]
    note = (
        f"<p>{curve_advice(curve)} Measured by a linear classifier on the features before "
        "training.</p>"
    )
    return note + _table("learning", ["training images", "number", "accuracy"], rows)


def _cost(rows: Sequence[tuple[str, str]]) -> str:
    advice = (
        "<p>If it took too long, freeze the backbone or take a smaller model; if memory was short, "
        "compute each batch in parts (<code>--grad-accum</code>).</p>"
    )
    return advice + _facts(rows)


def _confusion(report: Report) -> str:
    seen = sorted({outcome.target for outcome in report.outcomes})
    shown = list(range(len(report.labels))) if len(report.labels) <= MATRIX_CLASSES else seen
    counts = Counter((outcome.target, outcome.predicted) for outcome in report.outcomes)
    advice = confusion_advice(report.labels, report.outcomes)
    if len(shown) <= MATRIX_CLASSES:
        return _section("Confusion matrix", advice + _matrix(report.labels, shown, counts))
    return _section("Most confused classes", advice + _pairs(report.labels, counts))


def _reliability(report: Report) -> str:
    return reliability_section(report.outcomes, report.calibration, fitted=report.fitted_here)


def _matrix(labels: Sequence[str], shown: Sequence[int], counts: Counter[tuple[int, int]]) -> str:
    """True classes down, predicted across; predictions not `shown` go in a last column."""
    known = set(shown)
    other = any(predicted not in known for _, predicted in counts)
    rows = []
    for true in shown:
        row = [counts[true, predicted] for predicted in shown]
        total = sum(n for (target, _), n in counts.items() if target == true)
        cells = [_cell(n, total, right=true == p) for n, p in zip(row, shown, strict=True)]
        if other:
            cells.append(_cell(total - sum(row), total, right=False))
        rows.append(f'<th scope="row">{text(labels[true])}</th>' + "".join(cells))
    head = [f"<span>{text(labels[i])}</span>" for i in shown]
    head += ["<span>other</span>"] if other else []
    note = "<p>Rows: true classes. Columns: predictions. Colour: fraction of the row.</p>"
    return note + _table("matrix", ["true \\ predicted", *head], rows)


def _cell(count: int, total: int, *, right: bool) -> str:
    # The square root makes rare confusions visible; 0.75 keeps the number readable.
    strength = 0.75 * math.sqrt(count / total) if total else 0
    colour = "59,111,182" if right else "209,100,46"
    style = f' style="background:rgba({colour},{strength:.2f})"' if count else ""
    return f"<td{style}>{count or '·'}</td>"


def _pairs(labels: Sequence[str], counts: Counter[tuple[int, int]]) -> str:
    wrong = Counter({pair: n for pair, n in counts.items() if pair[0] != pair[1]})
    if not wrong:
        return "<p>No image was misclassified.</p>"
    totals: Counter[int] = Counter()
    for (target, _), n in counts.items():
        totals[target] += n
    rows = [
        f"<td>{text(labels[a])}</td><td>{text(labels[b])}</td><td>{n} of {totals[a]}</td>"
        for (a, b), n in wrong.most_common(MAX_PAIRS)
    ]
    return _table("pairs", ["true", "predicted", "images"], rows)


def _classes(report: Report) -> str:
    total = Counter(outcome.target for outcome in report.outcomes)
    right = Counter(outcome.target for outcome in report.outcomes if outcome.right)
    order = sorted(total, key=lambda i: (right[i] / total[i], -total[i], i))
    rows = [
        f'<th scope="row">{text(report.labels[i])}</th><td>{total[i]}</td><td>{right[i]}</td>'
        f'<td class="bar"><i style="width:{100 * right[i] / total[i]:.1f}%"></i>'
        f"<b>{right[i] / total[i]:.1%}</b></td><td>{in_per_cent(right[i], total[i])}</td>"
        for i in order[:MAX_CLASSES]
    ]
    rest = len(order) - MAX_CLASSES
    note = f"<p>The worst {MAX_CLASSES} of {len(order):,} classes:</p>" if rest > 0 else ""
    return note + _table("classes", ["class", "images", "right", "accuracy", "95 % interval"], rows)


def worst_mistakes(outcomes: Sequence[Outcome]) -> list[int]:
    """The misclassified images that the page shows, the highest loss first."""
    wrong = [i for i, outcome in enumerate(outcomes) if not outcome.right]
    return sorted(wrong, key=lambda i: -outcomes[i].loss)[:MAX_WRONG]


_MAPS = (
    " Below each: why the model gave its answer, by integrated gradients; orange speaks for that "
    "class, blue against it."
)


def _most_wrong(report: Report, folder: Path) -> str:
    wrong = sum(not outcome.right for outcome in report.outcomes)
    if not wrong:
        return "<p>No image was misclassified.</p>"
    worst = worst_mistakes(report.outcomes)
    figures = in_threads(lambda i: _figure(report, i, folder), worst, ahead=2 * workers())
    note = (
        f"<p>{wrong} of {len(report.outcomes)} images are misclassified; those with the "
        "highest loss come first: if one is in the wrong class, move it; if several are of a kind, "
        "add photos of it." + (_MAPS if report.maps else "") + "</p>"
    )
    return f'{note}\n<div class="wrong">\n' + "\n".join(figures) + "\n</div>"


def _figure(report: Report, index: int, folder: Path) -> str:
    entry, outcome = report.entries[index], report.outcomes[index]
    name = text(str(entry).rpartition("/")[2])
    image = open_thumbnail(entry)
    shown = (
        f'<img alt="{name}" src="{image_url(image)}">'
        if image
        else f'<span class="gone">{name}</span>'
    )
    if why := report.maps.get(index):
        shown += f'<img class="why" alt="Why {name}" src="{image_url(why)}">'
    link = f'<a href="{_href(entry, folder)}">' if isinstance(entry, Path) else "<a>"
    return (
        f"<figure>{link}{shown}</a><figcaption>"
        f"<b>{text(report.labels[outcome.predicted])}</b> {outcome.probability:.1%}<br>"
        f"is <b>{text(report.labels[outcome.target])}</b> {math.exp(-outcome.loss):.1%}<br>"
        f"<small>{link}{name}</a></small></figcaption></figure>"
    )


def _href(path: Path, folder: Path) -> str:
    """A link relative to `folder`, so that both can be moved together."""
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return html.escape(urllib.parse.quote(os.fsencode(relative)))
