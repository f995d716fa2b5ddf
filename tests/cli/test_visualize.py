import json
from pathlib import Path

from PIL import Image


def test_sheets_of_the_built_in_model(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "units"
    run = mixer("visualize", "cifar10", "-o", out, "--block", "0,7", "--format", "json")
    assert run.code == 0, run.err
    rows = [json.loads(line) for line in run.out.splitlines()]
    assert [row["units"] for row in rows] == [128, 64, 64, 64, 64]
    assert rows[0]["shape"] == [4, 4, 3]
    assert rows[3]["layer"] == "blocks.7.token_mixing.fc1"
    assert sorted(rows[3]["order"]) == list(range(64))
    for row in rows:
        with Image.open(row["file"]) as image:
            assert image.width == 1200
    again = mixer("visualize", "cifar10", "-o", out, "--block", "0")
    assert again.code == 1
    assert "--force" in again.err
    assert mixer("visualize", "cifar10", "-o", out, "--block", "0", "--force").code == 0


def test_wrong_blocks_and_places_leave_nothing(mixer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = mixer("visualize", "cifar10", "-o", tmp_path / "units", "--block", "8")
    assert run.code == 1
    assert "no block 8; expected 0 to 7" in run.err
    assert mixer("visualize", "cifar10", "-o", tmp_path / "units", "--block", "x").code == 2
    run = mixer("visualize", "cifar10", "-o", tmp_path / "no" / "units")
    assert run.code == 1
    assert "create it first" in run.err
    assert list(tmp_path.iterdir()) == []
