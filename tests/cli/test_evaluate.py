import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def labelled(golden: Path, tmp_path: Path) -> tuple[Path, float, float]:
    """The golden images in folders by class; top-1 and loss by timm's own logits."""
    with np.load(golden / "timm_cifar10" / "expected.npz") as arrays:
        names = [str(path).split("/")[-2] for path in arrays["paths"]]
        images, logits = arrays["pictures"], arrays["logits"].astype(np.float64)
    for i, (name, image) in enumerate(zip(names, images, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    labels = np.array([CLASSES.index(name) for name in names])
    nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return tmp_path, float((logits.argmax(1) == labels).mean()), float(nats.mean())


def test_figures_are_those_of_timms_logits(mixer, golden: Path, labelled) -> None:  # type: ignore[no-untyped-def]
    folder, top1, loss = labelled
    run = mixer("evaluate", folder, "-m", golden / "timm_cifar10", "--format", "json", "-b", 5)
    assert run.code == 0, run.err
    found = json.loads(run.out)
    assert found["images"] == 16
    assert found["top1"] == pytest.approx(top1)
    assert found["loss"] == pytest.approx(loss, abs=1e-4)
    assert found["unreadable"] == 0
    assert f"{top1:.2%}" in mixer("evaluate", folder, "-m", golden / "timm_cifar10").out


def test_exif_turns_as_in_validation_unless_exact(mixer, golden: Path, labelled) -> None:  # type: ignore[no-untyped-def]
    """Images stored turned by 90 degrees, with the EXIF orientation that turns them back."""
    folder, top1, loss = labelled
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in folder.glob("*/*.png"):
        with Image.open(path) as image:
            turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.save(path, exif=exif)
    arguments = ("evaluate", folder, "-m", golden / "timm_cifar10", "--format", "json")
    found = json.loads(mixer(*arguments).out)
    assert found["top1"] == pytest.approx(top1)
    assert found["loss"] == pytest.approx(loss, abs=1e-4)
    exact = json.loads(mixer(*arguments, "--exact").out)
    for path in folder.glob("*/*.png"):
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image)).save(path)
    plain = json.loads(mixer(*arguments).out)
    assert exact["loss"] == pytest.approx(plain["loss"])
    assert exact["loss"] > loss + 0.1


def test_unreadable_images_are_named_and_left_out(mixer, labelled) -> None:  # type: ignore[no-untyped-def]
    folder, _, _ = labelled
    (folder / "cat" / "bad.png").write_text("no image")
    run = mixer("evaluate", folder, "-m", "cifar10", "--format", "json")
    assert run.code == 1
    assert "bad.png" in run.err
    assert json.loads(run.out)["images"] == 16
    assert json.loads(run.out)["unreadable"] == 1


def test_folders_that_match_no_label(mixer, labelled) -> None:  # type: ignore[no-untyped-def]
    folder, _, _ = labelled
    (folder / "wolf").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "wolf" / "0.png")
    run = mixer("evaluate", folder, "-m", "cifar10")
    assert run.code == 1
    assert "'wolf'" in run.err
