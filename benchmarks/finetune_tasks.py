"""Small tasks for fine-tuning, made from images that the built-in model never saw.

CIFAR-10's test images, as `test/<class>/` of the folder that docs/cifar10.md describes; digits and
the backgrounds of photos come with scikit-learn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mixer_mlx.data.read import read_splits

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
Pool = dict[str, list[Image.Image]]
"""Images by class."""


@dataclass(frozen=True)
class Task:
    """`train` and `test` are images of each class; `test` is what no choice sees.

    `wrong` is the fraction of training images that get another class's label. `flip`: whether the
    mirror image of one is of the same class.
    """

    pool: Callable[[Path], Pool]
    train: int | Sequence[int]
    test: int
    wrong: float = 0.0
    flip: bool = True


def cifar(folder: Path, names: Sequence[str] = (), count: int = 600) -> Pool:
    """The first test images of each class, or of these classes."""
    classes = [path for path in sorted((folder / "test").iterdir()) if path.is_dir()]
    return {
        path.name: [Image.open(file).convert("RGB") for file in sorted(path.iterdir())[:count]]
        for path in classes
        if not names or path.name in names
    }


def some(*names: str) -> Callable[[Path], Pool]:
    """CIFAR-10 with these classes alone."""
    return lambda folder: cifar(folder, names)


def merged(folder: Path) -> Pool:
    """Animals and vehicles."""
    pool = cifar(folder, count=200)
    groups = {"animal": ANIMALS, "vehicle": tuple(set(pool) - set(ANIMALS))}
    rng = np.random.default_rng(0)
    found = {
        name: [image for one in sorted(own) for image in pool[one]] for name, own in groups.items()
    }
    return {
        name: [images[i] for i in rng.permutation(len(images))] for name, images in found.items()
    }


def merged_three(folder: Path) -> Pool:
    """Pets, other animals and vehicles."""
    groups = {
        "pet": ("cat", "dog"),
        "wild": ("bird", "deer", "frog", "horse"),
        "vehicle": ("airplane", "automobile", "ship", "truck"),
    }
    pool, rng = cifar(folder, count=200), np.random.default_rng(0)
    found = {name: [image for one in own for image in pool[one]] for name, own in groups.items()}
    return {
        name: [images[i] for i in rng.permutation(len(images))] for name, images in found.items()
    }


def turned(folder: Path) -> Pool:
    """Images turned by 0, 90, 180 and 270 degrees: which is the class."""
    images = [image for own in cifar(folder, count=240).values() for image in own]
    order = np.random.default_rng(0).permutation(len(images))
    return {f"turned {90 * i}": [images[k].rotate(90 * i) for k in order[i::4]] for i in range(4)}


def digits(folder: Path) -> Pool:
    """scikit-learn's handwritten digits, enlarged from 8 x 8."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(255 * found.images / 16).astype(np.uint8)
    return {
        str(digit): [
            Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
            for image in pixels[found.target == digit]
        ]
        for digit in range(10)
    }


def distant(folder: Path) -> Pool:
    """Photos of 144 x 144 in which the object, from CIFAR-10, fills a fifth of the area."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)

    def placed(image: Image.Image) -> Image.Image:
        photo = photos[rng.integers(len(photos))]
        left, top = (int(rng.integers(size - 144)) for size in photo.size)
        scene = photo.crop((left, top, left + 144, top + 144))
        scene.paste(
            image.resize((64, 64), Image.Resampling.BICUBIC),
            tuple(rng.integers(80, size=2).tolist()),
        )
        return scene

    pool = cifar(folder, ("automobile", "dog", "horse", "ship"), count=250)
    return {name: [placed(image) for image in images] for name, images in pool.items()}


TASKS = {
    "5 of each of 10": Task(cifar, 5, 50),
    "20 of each of 10": Task(cifar, 20, 50),
    "100 of each of 10": Task(cifar, 100, 50),
    "500 of each of 10": Task(lambda folder: cifar(folder, count=1000), 500, 50),
    "cat, dog, frog": Task(some("cat", "dog", "frog"), 42, 170),
    "two merged": Task(merged, 30, 250),
    "three merged": Task(merged_three, 50, 170),
    "turned": Task(turned, 100, 130, flip=False),
    "digits": Task(digits, 20, 50, flip=False),
    "imbalanced 1:20": Task(some("bird", "cat", "truck"), (200, 45, 10), 170),
    "10 % wrong": Task(some("cat", "deer", "dog", "horse", "ship"), 60, 100, wrong=0.1),
    "distant": Task(distant, 50, 125),
    # Not one of the table's.
    "tiny": Task(some("cat", "dog"), 8, 8),
}
QUICK = "tiny"


def write(task: Task, data: Path, seed: int, folder: Path) -> None:
    """Draw the images of a seed, and write them as `folder`/data/train, data/val and test.

    A fifth of each class is `val`, which only `quick` and its like look at. The names of classes
    aren't CIFAR-10's, for which `mixer fine-tune` would keep the built-in model's head.
    """
    rng = np.random.default_rng(seed)
    pool = task.pool(data)
    classes = sorted(pool)
    counts = [task.train] * len(classes) if isinstance(task.train, int) else task.train
    for number, (name, image, label) in enumerate(drawn(task, pool, classes, counts, rng)):
        within = "data/train" if name == "train" else name
        path = folder / within / f"my {label}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    _, val = read_splits(folder / "data" / "train", val_fraction=0.2, seed=seed)
    for entry in val.paths:
        path = Path(str(entry))
        target = folder / "data" / "val" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def drawn(
    task: Task,
    pool: Pool,
    classes: list[str],
    counts: Sequence[int],
    rng: np.random.Generator,
) -> Iterator[tuple[str, Image.Image, str]]:
    """("train" or "test", image, label)."""
    for name, count in zip(classes, counts, strict=True):
        order = rng.permutation(len(pool[name]))
        wrong = set(rng.permutation(count)[: round(task.wrong * count)].tolist())
        others = [other for other in classes if other != name]
        for i in range(count):
            label = others[int(rng.integers(len(others)))] if i in wrong else name
            yield "train", pool[name][order[i]], label
        for i in range(task.test):
            yield "test", pool[name][order[count + i]], name
