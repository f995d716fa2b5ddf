import pytest

from mixer_mlx import VARIANTS, ConfigError, MixerConfig

# Parameters with 1000 classes and without a head, and GMACs at 224 x 224. The first column is what
# google-research/vision_transformer asserts in `models_test.py` for B/16, B/32 and L/16; all follow
# from the paper's Table 1, whose own counts are these, rounded to a million.
COUNTS = {
    "S/32": (19_104_624, 18_591_624, 1.00),
    "S/16": (18_528_264, 18_015_264, 3.78),
    "S/8": (20_646_504, 20_133_504, None),
    "B/32": (60_293_428, 59_524_428, 3.24),
    "B/16": (59_880_472, 59_111_472, 12.60),
    "L/32": (206_939_264, 205_914_264, 11.25),
    "L/16": (208_196_168, 207_171_168, 44.55),
    "H/14": (432_350_952, 431_069_952, 120.99),
    # Of timm's models: parameters as timm counts them, GMACs as PyTorch's FlopCounterMode does, see
    # tests/reference/make_siblings.py.
    "ResMLP-S12": (15_350_872, 14_965_872, 3.01),
    "ResMLP-S24": (30_020_680, 29_635_680, 5.96),
    "ResMLP-S36": (44_690_488, 44_305_488, 8.91),
    "ResMLP-B24/8": (129_138_280, 128_369_280, 100.23),
    "gMLP-Ti/16": (5_867_328, 5_738_328, 1.33),
    "gMLP-S/16": (19_422_656, 19_165_656, 4.39),
    "gMLP-B/16": (73_075_392, 72_562_392, 15.72),
    "gMixer-12": (12_701_080, 12_316_080, 2.66),
    "gMixer-24": (24_721_096, 24_336_096, 5.26),
}
SMALL = MixerConfig(
    image_size=(24, 32),
    patch_size=8,
    num_blocks=2,
    hidden_dim=32,
    tokens_mlp_dim=24,
    channels_mlp_dim=64,
    num_classes=7,
)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_every_variant(name: str) -> None:
    with_head, without, gmacs = COUNTS[name]
    config = MixerConfig.variant(name)
    assert config.num_parameters == with_head
    assert config.replace(num_classes=0).num_parameters == without
    if gmacs is not None:
        assert round(config.num_macs / 1e9, 2) == gmacs


def test_variants_are_the_papers() -> None:
    assert set(VARIANTS) == set(COUNTS)
    assert MixerConfig.variant("b16") == MixerConfig.variant("B_16") == MixerConfig.variant("B/16")
    assert MixerConfig.variant("B/16").variant_name == "B/16"
    assert MixerConfig.variant("resmlp_b24_8") == MixerConfig.variant("ResMLP-B24/8")
    assert SMALL.variant_name is None


def test_unknown_variant_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'XL/2'.*S/32.*H/14"):
        MixerConfig.variant("XL/2")


def test_a_size_that_the_patch_does_not_divide_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"225x224.*16x16"):
        MixerConfig.variant("B/16", image_size=(225, 224))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_blocks", 0),
        ("num_blocks", 10**9),
        ("num_blocks", True),
        ("num_blocks", 2.0),
        ("num_blocks", "2"),
        ("hidden_dim", 10**18),
        ("in_channels", -1),
        ("num_classes", -1),
        ("image_size", [24]),
        ("image_size", 24),
        ("image_size", [24, 10**9]),
        ("image_size", [0, 0]),
        ("hidden_act", "relu"),
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", 0),
    ],
)
def test_values_that_no_model_can_have(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        SMALL.replace(**{field: value})


@pytest.mark.parametrize(
    ("model_type", "changes", "says"),
    [
        ("vit", {}, r"model_type.*mlp_mixer, resmlp, gmlp, gmixer"),
        ("mlp_mixer", {"tokens_mlp_dim": 0}, "tokens_mlp_dim"),
        ("resmlp", {}, r"tokens_mlp_dim is 24.*0"),
        ("gmlp", {}, r"tokens_mlp_dim is 24.*0"),
        ("gmlp", {"tokens_mlp_dim": 0, "channels_mlp_dim": 65}, r"channels_mlp_dim.*halves"),
        ("gmixer", {"tokens_mlp_dim": 23}, r"tokens_mlp_dim.*halves"),
        ("gmixer", {"tokens_mlp_dim": 0}, "tokens_mlp_dim"),
    ],
)
def test_widths_that_a_family_can_not_have(
    model_type: str, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        SMALL.replace(model_type=model_type, **changes)


def test_more_parameters_than_anybody_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="parameters"):
        SMALL.replace(hidden_dim=65_536, channels_mlp_dim=262_144, num_blocks=1024)


def test_dict_is_plain_and_complete() -> None:
    values = SMALL.to_dict()
    assert values["image_size"] == [24, 32]
    assert MixerConfig.from_dict(values) == SMALL
    with pytest.raises(ConfigError, match="lacks num_blocks"):
        MixerConfig.from_dict({key: values[key] for key in values if key != "num_blocks"})
    with pytest.raises(ConfigError, match="depth"):
        MixerConfig.from_dict({**values, "depth": 3})
