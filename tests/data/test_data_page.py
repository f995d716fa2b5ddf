"""The example in docs/data.md works as shown."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_data_page_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(ROOT)
    exec(block, {})  # noqa: S102
    first, second = capsys.readouterr().out.splitlines()
    assert first == "('cat', 'dog') {'cat': 1, 'dog': 1} 2"
    with Image.open("examples/cat.png") as cat:
        assert re.fullmatch(rf".*/pets\.zip/cat/[12]\.png {re.escape(str(cat.size))}", second)
