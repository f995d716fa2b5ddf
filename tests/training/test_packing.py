"""Training with all weights in a few long arrays, as on a GPU: the same run, and the same files."""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from training.synthetic import CONFIG, PREPROCESS, Synthetic, tiny_model, weights

from mixer_mlx.training import step as step_module
from mixer_mlx.training.loop import Saved, fit
from mixer_mlx.training.network import trained_names, weights_of
from mixer_mlx.training.packing import Packing
from mixer_mlx.training.recipe import Recipe
from mixer_mlx.training.state import State
from mixer_mlx.training.step import first_arrays, make_step

RECIPES = {
    "adamw": Recipe(epochs=2, lr=0.01, weight_decay=0.1, clip_norm=0.5, ema_decay=0.8),
    "layers": Recipe(epochs=2, lr=0.01, weight_decay=0.1, layer_decay=0.7),
    "muon": Recipe(epochs=2, lr=0.01, optimizer="muon", ema_decay=0.8),
    "sgd": Recipe(epochs=2, lr=0.01, optimizer="sgd", weight_decay=0.1, accumulation=2),
    "frozen": Recipe(epochs=2, lr=0.01, freeze="backbone", unfreeze_last=1),
    "float16": Recipe(epochs=2, lr=0.01, dtype="float16", clip_norm=1.0),
}


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """g++ would take most of the time; what a GPU compiles is in tests/test_launches.py."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_of_single_arrays(name: str) -> None:
    recipe = RECIPES[name]
    all_weights = weights_of(tiny_model())
    trained = trained_names(CONFIG, recipe, list(all_weights))
    frozen = {key: w for key, w in all_weights.items() if key not in trained}
    ours = {key: w for key, w in all_weights.items() if key in trained}
    single = together = first_arrays(ours, recipe)
    steps = [make_step(CONFIG, recipe, PREPROCESS, packed=packed) for packed in (False, True)]
    packing = Packing.of(recipe, {key: w.shape for key, w in ours.items()})
    for number, (pixels, labels) in enumerate(Synthetic().epoch(0)):
        single, expected = steps[0](single, frozen, pixels, labels, number, 0.01)
        together, found = steps[1](together, frozen, pixels, labels, number, 0.01)
        assert mx.allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert together["weights"].keys() == packing.groups.keys()
    apart = packing.unpacked(together)
    for kind, arrays in single.items():
        assert apart[kind].keys() == arrays.keys()
        for key, value in arrays.items():
            limit = 2e-2 if recipe.dtype == "float16" else 1e-4
            if not key.endswith("token_mixing.fc2.bias"):  # noise, see test_golden.py
                assert mx.allclose(apart[kind][key], value, rtol=limit, atol=limit / 10), (
                    kind,
                    key,
                )


@pytest.mark.parametrize("name", ["adamw", "layers", "muon"])
def test_resumed_to_the_bit_and_saved_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[name].replace(save_every=3)

    def run(folder: Path, state: State | None = None) -> State:
        model = tiny_model()
        events = fit(
            model, Synthetic(), None, recipe, preprocess=PREPROCESS, folder=folder, resume=state
        )
        for event in events:
            if state is None and folder.name == "broken" and isinstance(event, Saved):
                return event.state
        last = event.state  # type: ignore[attr-defined]
        for key, value in last.by_name()["weights"].items():
            assert np.array_equal(weights(model)[key], value)
        return last

    single = run(tmp_path / "single")
    monkeypatch.setattr(step_module, "gpu_is_default", lambda: True)
    whole = run(tmp_path / "whole")
    assert whole.arrays["weights"].keys() != whole.by_name()["weights"].keys()
    run(tmp_path / "broken")
    again = run(tmp_path / "broken", State.load(tmp_path / "broken", tiny_model()))
    names = [sorted(mx.load(str(tmp_path / f / "arrays.safetensors"))) for f in ("single", "whole")]
    assert names[0] == names[1]
    for kind, arrays in whole.by_name().items():
        assert arrays.keys() == single.arrays[kind].keys()
        for key, value in arrays.items():
            assert mx.array_equal(again.by_name()[kind][key], value), (kind, key)


def test_groups_are_of_what_is_updated_alike() -> None:
    shapes = {name: w.shape for name, w in weights_of(tiny_model()).items()}
    assert len(Packing.of(Recipe(steps=1), shapes).groups) == 2  # those that decay, and the others
    depth = Packing.of(Recipe(steps=1, layer_decay=0.5), shapes)
    assert len(depth.groups) == 2 * (CONFIG.num_blocks + 2)
    muon = Packing.of(Recipe(steps=1, optimizer="muon"), shapes).groups
    assert sum(len(names) == 1 for names in muon.values()) == 4 * CONFIG.num_blocks
    values = {name: mx.random.normal(shape) for name, shape in shapes.items()}
    back = depth.unpack(depth.pack(values))
    assert list(back) == list(values)
    assert all(mx.array_equal(back[name], value) for name, value in values.items())
