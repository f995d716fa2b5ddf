"""`mixer predict --reject`: the threshold that fine-tuning stored."""

from pathlib import Path

from mixer_mlx import load
from mixer_mlx.calibration import Calibration


def test_predict_calls_unsure_what_is_below_the_threshold(  # type: ignore[no-untyped-def]
    mixer, cat: Path, tmp_path: Path
) -> None:
    plain = load("cifar10", dtype="float32")
    shown = plain(cat, k=1)[0].probability
    for name, limit in (("sure", shown - 0.01), ("unsure", shown + 0.01)):
        info = plain.info.replace(calibration=Calibration(1.0, 0.2, 0.1, 50, limit))
        plain.replace(info=info).save(tmp_path / name)
        run = mixer("predict", cat, "-m", tmp_path / name, "--reject")
        assert run.code == 0, run.err
        assert ("unsure\n" in run.out.splitlines(keepends=True)[1]) == (name == "unsure")
    run = mixer("predict", cat, "-m", "cifar10", "--reject")
    assert run.code == 1
    assert "isn't calibrated" in run.err
