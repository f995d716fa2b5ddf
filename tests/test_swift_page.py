"""docs/swift.md against the real keys and shapes: neither its table nor its code goes stale."""

import re
from pathlib import Path

from mixer_mlx import MixerConfig, MlpMixer
from mixer_mlx.checkpoint import parameter_shapes

PAGE = (Path(__file__).parents[1] / "docs" / "swift.md").read_text("utf-8")
# All sizes differ, so that no two letters can be mistaken for each other.
CONFIG = MixerConfig(
    image_size=(8, 12),
    patch_size=2,
    num_blocks=2,
    hidden_dim=5,
    tokens_mlp_dim=7,
    channels_mlp_dim=11,
    num_classes=13,
)
SIZES = {"S": 24, "P": 2, "C": 5, "D_S": 7, "D_C": 11, "K": 13, "in": 3}
MLXNN = {"Linear": ["weight", "bias"], "LayerNorm": ["weight", "bias"]}


def test_table() -> None:
    shapes = {}
    for key, letters in re.findall(r"^\| `([\w.{}]+)` \| \(([^)]*)\)", PAGE, re.M):
        shape = tuple(SIZES[letter] for letter in letters.split(", "))
        for i in range(CONFIG.num_blocks):
            shapes[key.replace("{i}", str(i))] = shape
    assert shapes == parameter_shapes(MlpMixer(CONFIG))


def properties(code: str) -> dict[str, list[tuple[str, str]]]:
    """Class -> (key, type) of its stored properties, as MLXNN finds them by reflection."""
    classes = {}
    for name, body in re.findall(r"^class (\w+).*?\{\n(.*?)^\}", code, re.M | re.S):
        stored = re.findall(r"^    let (\w+): (\[?\w+\]?)$", body, re.M)
        renamed = re.findall(r'^    @ModuleInfo\(key: "(\w+)"\) var \w+: ([\w<>]+)$', body, re.M)
        classes[name] = stored + renamed
    return classes


def keys(classes: dict[str, list[tuple[str, str]]], kind: str, prefix: str = "") -> set[str]:
    """Key paths below a module of a class, e.g. "MlpBlock<Linear>"."""
    name, _, argument = kind.rstrip(">").partition("<")
    if name in MLXNN:
        return {prefix + part for part in MLXNN[name]}
    found = set()
    for key, of in classes[name]:
        of = argument if of == "Layer" else of
        if of == "MLXArray":
            found.add(prefix + key)
        elif of.startswith("["):
            for i in range(CONFIG.num_blocks):
                found |= keys(classes, of.strip("[]"), f"{prefix}{key}.{i}.")
        else:
            found |= keys(classes, of, f"{prefix}{key}.")
    return found


def test_code() -> None:
    code = PAGE.split("```swift\n")[1].split("```")[0]
    assert keys(properties(code), "MlpMixer") == set(parameter_shapes(MlpMixer(CONFIG)))
    # JSONDecoder turns snake_case into these names.
    stored = re.findall(r"^    let ([\w, ]+):", code.split("class ")[0], re.M)
    names = [name for line in stored for name in line.split(", ")]
    snake = {re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name) for name in names}
    assert set(CONFIG.to_dict()) - snake == {"model_type"}
    assert snake <= set(CONFIG.to_dict())


def test_the_page_says_that_it_was_not_compiled() -> None:
    assert "wasn't compiled" in PAGE
