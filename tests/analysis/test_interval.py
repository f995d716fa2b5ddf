"""Intervals of accuracies, against values that other programs print."""

import pytest

from mixer_mlx.analysis.interval import wilson, with_interval

# R 4: binom::binom.confint(x, n, methods = "wilson"), and Newcombe (1998), table I.
KNOWN = {
    (0, 10): (0.0, 0.2775),
    (1, 10): (0.0179, 0.4042),
    (8, 10): (0.4902, 0.9433),
    (10, 10): (0.7225, 1.0),
    (50, 100): (0.4038, 0.5962),
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
}


@pytest.mark.parametrize(("counts", "expected"), KNOWN.items())
def test_wilson(counts: tuple[int, int], expected: tuple[float, float]) -> None:
    assert wilson(*counts) == pytest.approx(expected, abs=6e-5)


def test_no_images_mean_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_accuracy_in_words() -> None:
    assert with_interval(0.8, 10) == "80.0% (49.0-94.3% at 95%)"
    assert with_interval(0.5, 100, digits=2) == "50.00% (40.4-59.6% at 95%)"
