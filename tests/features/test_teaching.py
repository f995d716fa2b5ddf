"""A teaching session: its answers are those of a probe of the images that are left."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mixer_mlx import checkpoint
from mixer_mlx.classify import Classifier
from mixer_mlx.convert import load_embedder
from mixer_mlx.data.album import Album
from mixer_mlx.data.read import read_split
from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.features import few_shot, index, probe, teaching
from mixer_mlx.features.dataset import embedded
from mixer_mlx.features.embed import Embedder
from mixer_mlx.features.teaching import Teaching

FILES = Path(__file__).parents[1] / "golden" / "cifar_files"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder("cifar10", dtype="float32", device="cpu")


def _image(name: str, number: int) -> bytes:
    return (FILES / name / f"{number:04}.jpg").read_bytes()


@pytest.fixture
def taught(tmp_path: Path, embedder: Embedder) -> Teaching:
    """Ten images of two classes, and one that is in the wrong one."""
    made = Teaching(Album(tmp_path / "photos"), embedder, {})
    for name in ("frog", "ship"):
        made.make(name)
        for number in range(10):
            assert made.add(name, _image(name, number)) is not None
    made.add("frog", _image("ship", 10))
    return made


def test_answers_are_those_of_the_few_shot_probe(taught: Teaching, embedder: Embedder) -> None:
    assert taught.counts() == {"frog": 11, "ship": 10}
    for name in ("frog", "ship"):
        for number in range(11, 16):
            (best, share), (_, rest) = taught.answer(_image(name, number))
            assert best == name
            assert share + rest == pytest.approx(1)
    labelled = taught.labelled()
    features, labels = labelled.features, labelled.labels
    image = _image("frog", 12)
    scores = probe.fit(features, labels, 2).scores(taught.embed(image)[None])[0]
    ours = dict(taught.answer(image))
    # A softmax of two scores: their difference, by the scale.
    scale = np.log(ours["frog"] / ours["ship"]) / (scores[0] - scores[1])
    other = dict(taught.answer(_image("ship", 12)))
    others = probe.fit(features, labels, 2).scores(taught.embed(_image("ship", 12))[None])[0]
    assert np.log(other["frog"] / other["ship"]) == pytest.approx(scale * (others[0] - others[1]))
    assert labelled.dataset.classes == ("frog", "ship")


def test_it_starts_with_two_classes_that_have_images(tmp_path: Path, embedder: Embedder) -> None:
    made = Teaching(Album(tmp_path / "photos"), embedder, {})
    assert made.answer(_image("frog", 0)) == []
    made.make("frog")
    made.make("ship")
    made.add("frog", _image("frog", 0))
    assert made.answer(_image("frog", 1)) == []
    with pytest.raises(ConfigError, match="Two classes"):
        made.with_head()
    number = made.add("ship", _image("ship", 0))
    assert number is not None
    assert {name for name, _ in made.answer(_image("ship", 1))} == {"ship", "frog"}
    made.remove(number)
    assert made.answer(_image("frog", 1)) == []


def test_the_wrong_one_is_doubted_first_and_confirming_ends_it(taught: Teaching) -> None:
    first, *others = taught.doubts()
    wrong = next(n for n, e in taught.examples.items() if e.path.read_bytes() == _image("ship", 10))
    assert (first.number, first.label, first.looks_like) == (wrong, "frog", "ship")
    assert [doubt.loss for doubt in others] == sorted((d.loss for d in others), reverse=True)
    taught.relabel(wrong, "ship")
    assert taught.counts() == {"frog": 10, "ship": 11}
    taught.relabel(others[0].number, taught.example(others[0].number).label)
    left = {doubt.number for doubt in taught.doubts()}
    assert left == set(taught.examples) - {wrong, others[0].number}


def test_changes_and_their_undo_give_the_same_probe(taught: Teaching) -> None:
    image = _image("ship", 13)
    before = taught.answer(image)
    number = next(iter(taught.examples))
    taught.relabel(number, "ship")
    assert taught.answer(image) != before
    taught.undo()
    assert taught.answer(image) == [(name, pytest.approx(share)) for name, share in before]
    taught.remove(number)
    assert number not in taught.examples
    with pytest.raises(ConfigError, match="gone"):
        taught.remove(number)
    taught.undo()
    taught.undo()  # nothing left
    assert taught.answer(image) == [(name, pytest.approx(share)) for name, share in before]
    taught.rename("ship", "boat")
    assert taught.answer(image)[0] == ("boat", pytest.approx(before[0][1]))
    assert len(taught.numbers("boat")) == 10
    assert taught.counts() == {"boat": 10, "frog": 11}


def test_what_cant_be_added_changes_nothing(
    taught: Teaching, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError):
        taught.add("frog", _image("frog", 12)[:400])
    with pytest.raises(ConfigError, match="no class"):
        taught.add("toad", _image("frog", 12))
    monkeypatch.setattr(teaching, "MAX_IMAGES", 21)
    with pytest.raises(ConfigError, match="21 images already"):
        taught.add("frog", _image("frog", 12))
    assert len(taught.examples) == len(list(taught.album.images())) == 21


def test_saved_model_is_that_of_few_shot(
    taught: Teaching, embedder: Embedder, tmp_path: Path
) -> None:
    """`mixer few-shot --save` on the same folder gives the same head, but for float16 features."""
    model, info = taught.with_head()
    checkpoint.save(tmp_path / "model", model, info)
    ours = Classifier(checkpoint.load(tmp_path / "model"), checkpoint.read_info(tmp_path / "model"))
    train = embedded(read_split(taught.album.folder)[0], embedder)
    theirs = few_shot.classifier_from(train, None)
    for name in ("frog", "ship"):
        image = _image(name, 14)
        assert ours(image)[0].label == name
        expected = theirs.scores(embedder.array([image]))[0]
        assert ours.logits(image) == pytest.approx(expected, abs=0.05, rel=0.01)


def test_a_session_continues_from_the_index(
    taught: Teaching, embedder: Embedder, tmp_path: Path
) -> None:
    file = tmp_path / "cache" / "index.npz"
    index.store(file, embedder, "cifar10", taught.vectors())
    computed: list[int] = []
    shutil.copy(FILES / "frog" / "0015.jpg", taught.album.folder / "frog")
    found = index.update(
        taught.album.folder, file, embedder, "cifar10", tick=lambda done, _: computed.append(done)
    )
    assert computed == [1]  # the new one alone
    again = Teaching(
        Album(taught.album.folder), embedder, dict(zip(found.names, found.array, strict=True))
    )
    assert len(again.examples) == 22
    again.remove(next(n for n, e in again.examples.items() if e.path.name == "0015.jpg"))
    image = _image("ship", 13)
    assert again.answer(image) == [(n, pytest.approx(share)) for n, share in taught.answer(image)]
