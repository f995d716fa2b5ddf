"""The Flax Mixer that benchmarks run, against what the official code computed."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MISSING = "NOT RUN: needs JAX and Flax (pip install -r benchmarks/requirements.txt)"
pytest.importorskip("jax", reason=MISSING)
pytest.importorskip("flax", reason=MISSING)


def run(model: Any, parameters: Any, expected: Any) -> tuple[Any, dict[str, Any]]:
    """The logits, and the intermediates by name."""
    import jax

    with jax.default_matmul_precision("highest"):
        apply = jax.jit(partial(model.apply, mutable=["intermediates"]))
        logits, kept = apply({"params": parameters}, expected["images"])
    return logits, kept["intermediates"]


@pytest.mark.parametrize("name", ["jax_tiny", "jax_square", "jax_from_timm"])
def test_every_intermediate(golden: Path, name: str) -> None:
    from reference import flax_mixer

    weights, expected = np.load(golden / f"{name}.npz"), np.load(golden / f"{name}_expected.npz")
    logits, found = run(flax_mixer.like(weights), flax_mixer.parameters(weights), expected)
    found |= {"stem": found["stem_output"], "logits": (logits,)}
    names = set(expected.files) - {"images"}
    assert len(names) >= 4
    for key in names:
        (value,) = found[key]
        actual = np.reshape(value, expected[key].shape)
        np.testing.assert_allclose(actual, expected[key], atol=1e-5, err_msg=key)


def test_erf_form_gives_what_timm_computed(golden: Path) -> None:
    from reference import flax_mixer

    weights, theirs = np.load(golden / "jax_from_timm.npz"), golden / "timm_tiny_expected.npz"
    expected = np.load(theirs)
    model = flax_mixer.like(weights, approximate_gelu=False)
    logits, _ = run(model, flax_mixer.parameters(weights), expected)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
