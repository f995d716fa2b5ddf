"""What a model's features say about a dataset: labels in doubt, images alike, how many are enough.

Labels are doubted by the out-of-sample loss of the paper's few-shot probe: each image is scored by
a linear classifier of the other folds, which hasn't seen it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixer_mlx.data.dataset import by_name, held_out
from mixer_mlx.features import probe
from mixer_mlx.features.dataset import Labelled, embedded
from mixer_mlx.features.embed import Embedder
from mixer_mlx.features.few_shot import ShotResult, Shots, few_shot
from mixer_mlx.features.layout import WithLayout, split
from mixer_mlx.features.neighbours import pairs
from mixer_mlx.images.hashing import FLAT, joined
from mixer_mlx.loaded import LoadedModel

from .check import Finding, ImageSummary, Scan, related

ALIKE = 0.75
"""Layouts of this cosine belong to one image. Of CIFAR-10's 10,000 test images 97 pairs have it;
about half of them are copies, and most of the others small things before the same sky."""
DOUBTFUL = 0.05
"""A label that isn't the most probable class is doubted if its probability is below this, or among
this fraction of all: with few images the probe is sure of nothing."""
UNSURE = 20
"""At most this many images between two classes are reported, and a tenth of all."""
FOLDS = 5
"""Classes with fewer images aren't judged."""
STEPS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
"""Images of each class on the curve."""


@dataclass(frozen=True)
class Looks:
    """Features of N images of a scan, whose indices there are `indices` (N,).

    `pre_logits` is (N, C), `layouts` (N, D), see `features.layout`; both are float32.
    """

    indices: NDArray[np.intp]
    pre_logits: NDArray[np.float32]
    layouts: NDArray[np.float32]


def look(
    scan: Scan,
    model: LoadedModel,
    *,
    batch_size: int = 32,
    tick: Callable[[int, int], None] = lambda done, failed: None,
) -> Looks:
    """Compute the features of the readable images; they take 4 * (C + 1024) bytes each."""
    embedder = Embedder(model.model, model.info, model.device, WithLayout())
    readable = np.array([index for index, _ in scan.readable()], np.intp)
    dataset = by_name(scan.entries, scan.class_of).take(readable)
    found = embedded(dataset, embedder, batch_size=batch_size, tick=tick)
    return Looks(readable[found.indices], *split(found.features, model.config))


def alike(
    scan: Scan, looks: Looks, known: Iterable[Finding], least: float = ALIKE
) -> list[Finding]:
    """Images whose layouts have a cosine of at least `least`: crops and filtered copies.

    Groups that are in one of the `known` findings are left out, and so are flat images.
    """
    groups_of: dict[int, list[set[int]]] = {}
    for finding in known:
        for index in finding.images if len(finding.images) > 1 else ():
            groups_of.setdefault(index, []).append(set(finding.images))
    rows = [row for row, index in enumerate(looks.indices) if _has_detail(scan, int(index))]
    indices = looks.indices[rows].tolist()
    found = {
        (indices[i], indices[j]): cosine
        for i, j, cosine in pairs(looks.layouts[rows], least)
        if not any(indices[j] in group for group in groups_of.get(indices[i], ()))
    }
    findings: list[Finding] = []
    for group in joined(len(scan.entries), found):
        cosine = max(value for pair, value in found.items() if pair[0] in group)
        facts = {"similarity": cosine}
        findings += related(scan, "alike_", group, f"cosine {cosine:.2f}", facts)
    return findings


def _has_detail(scan: Scan, index: int) -> bool:
    seen = scan.summaries[index]
    return isinstance(seen, ImageSummary) and max(seen.grey) - min(seen.grey) >= FLAT


def doubtful_labels(scan: Scan, looks: Looks) -> list[Finding]:
    """Labels in doubt, the most doubtful first, then images between two classes, the closest first.

    Both kinds have the facts "looks_like" and "probability", and "label_probability".
    """
    labelled, places = _judged(scan, looks, range(len(scan.entries)))
    if len(labelled.dataset.classes) < 2:
        return []
    labels, names = labelled.labels, labelled.dataset.classes
    probabilities = out_of_sample(labelled)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    ranked = np.take_along_axis(probabilities, order, axis=1)
    limit = max(DOUBTFUL, np.quantile(own, DOUBTFUL))
    doubted = (order[:, 0] != labels) & (own <= limit)

    def finding(kind: str, row: int, detail: str) -> Finding:
        facts = {
            "looks_like": names[order[row, 0]],
            "probability": float(ranked[row, 0]),
            "label_probability": float(own[row]),
        }
        return Finding(kind, (int(places[row]),), detail, facts)

    worst = [row for row in np.argsort(own, kind="stable").tolist() if doubted[row]]
    gaps = np.argsort(ranked[:, 0] - ranked[:, 1], kind="stable").tolist()
    closest = [row for row in gaps if not doubted[row]][: min(UNSURE, len(labels) // 10)]
    return [
        *(
            finding(
                "doubtful_label",
                row,
                f"labelled {names[labels[row]]}, looks like {names[order[row, 0]]}",
            )
            for row in worst
        ),
        *(
            finding("unsure", row, f"{names[order[row, 0]]} or {names[order[row, 1]]}")
            for row in closest
        ),
    ]


def out_of_sample(labelled: Labelled) -> NDArray[np.float64]:
    """Probabilities of the classes, (N, K), for each image by a probe of the other folds."""
    classes = len(labelled.dataset.classes)
    scores = probe.out_of_fold(labelled.features, labelled.labels, classes, folds=FOLDS)
    return probe.probabilities(scores * probe.scale_for(scores, labelled.labels))


def accuracy_curve(scan: Scan, looks: Looks) -> list[ShotResult]:
    """The probe's accuracy with 1, 5, 10, 25, ... and all training images of each class.

    Measured three times on a fifth of the training images, which it hasn't seen. Empty unless two
    classes have FOLDS images or more.
    """
    first = next(iter(scan.splits))
    training = [i for i, name in enumerate(scan.split_of) if name == first]
    return curve_of(_judged(scan, looks, training)[0])


def curve_of(judged: Labelled) -> list[ShotResult]:
    """The same for images of which each class has FOLDS or more."""
    if len(judged.dataset.classes) < 2:
        return []
    held = held_out(judged.dataset, 1 / FOLDS, 0)
    train, test = (
        Labelled(judged.dataset, judged.features[rows], rows)
        for rows in (np.flatnonzero(~held), np.flatnonzero(held))
    )
    counts = np.bincount(train.labels)
    shots: list[Shots] = [count for count in STEPS if count <= counts.min()]
    if counts.max() > STEPS[len(shots) - 1]:
        shots.append(None)
    return few_shot(train, test, shots)


def _judged(scan: Scan, looks: Looks, wanted: Iterable[int]) -> tuple[Labelled, NDArray[np.intp]]:
    """Those of the wanted images whose class has FOLDS of them, and their places in the scan."""
    chosen = set(wanted)
    rows = [row for row, index in enumerate(looks.indices.tolist()) if index in chosen]
    times = Counter(scan.class_of[looks.indices[row]] for row in rows)
    rows = [row for row in rows if times[scan.class_of[looks.indices[row]]] >= FOLDS]
    places = looks.indices[rows]
    dataset = by_name([scan.entries[i] for i in places], [scan.class_of[i] for i in places])
    return Labelled(dataset, looks.pre_logits[rows], np.arange(len(rows))), places
