"""A run's model card: what users and files are called can't change its layout."""

import pytest

from mixer_mlx.config import MixerConfig
from mixer_mlx.training.pages import card, code, plain, validated
from mixer_mlx.training.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("cat", "`cat`"),
        ("a`b", "`` a`b ``"),
        ("``", "``` `` ```"),
        ("a\n# b\x1b\u2028c", "`a # b  c`"),
        ("<b>", "`<b>`"),  # in a code span, HTML means nothing
    ],
)
def test_code_spans(text: str, span: str) -> None:
    assert code(text) == span


def test_names_change_no_layout() -> None:
    names = [
        "a\n\n# heading",
        "<img src=x onerror=alert(1)>",
        "`</code><script>",
        "[x](javascript:y)",
    ]
    text = card(
        name="<script>*run*\n# two",
        command="train",
        origin="[a](b) <i>\n- c",
        config=MixerConfig.variant("S/32"),
        recipe_name="my`recipe",
        recipe=Recipe(epochs=1),
        counts=dict.fromkeys(names, 3),
        accuracy=validated(None, 5),
    )
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        r"# &lt;script&gt;\*run\* \# two"
    ]
    assert r"started from \[a\](b) &lt;i&gt; - c." in text
    assert "Trained on 12 images" in text
    for name in names:
        assert f"- {code(name)}: 3\n" in text
    assert "<" not in text.replace(code(names[1]), "").replace(code(names[2]), "")
    assert plain("plain text, e.g. 3.5 %") == "plain text, e.g. 3.5 %"
