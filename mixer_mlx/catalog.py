"""Published Mixers and siblings by name: their source, preprocessing and accuracy, as data.

Sources: the listing of Google's bucket in google-research/vision_transformer's notebook; the
repositories of pytorch-image-models (timm) on the Hugging Face Hub, its `timm/models/mlp_mixer.py`
(preprocessing, licences) and its `results/*.csv`; the paper (arXiv 2105.01601), Table 3. The
weights come from "ImageNet-21K Pretraining for the Masses" (arXiv 2104.10972) for miil, "When
Vision Transformers Outperform ResNets without Pretraining or Strong Data Augmentations" (arXiv
2106.01548) for sam, "Surrogate Gap Minimization Improves Sharpness-Aware Training" (arXiv
2203.08065) for gsam, "ResMLP" (arXiv 2105.03404) for fb, timm's author for ra3, and the paper for
the others.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mixer_mlx import labels
from mixer_mlx.images.preprocess import Preprocess

from .choices import BUILT_IN, LabelList
from .config import VARIANTS, MixerConfig

BUILT_IN_FOLDER = Path(__file__).parent / "models" / BUILT_IN

TIMM_NAMES = {
    **{name: f"mixer_{name.replace('/', '').lower()}_224" for name in VARIANTS if name[1] == "/"},
    "ResMLP-S12": "resmlp_12_224",
    "ResMLP-S24": "resmlp_24_224",
    "ResMLP-S36": "resmlp_36_224",
    "ResMLP-B24/8": "resmlp_big_24_224",
    "gMLP-Ti/16": "gmlp_ti16_224",
    "gMLP-S/16": "gmlp_s16_224",
    "gMLP-B/16": "gmlp_b16_224",
    "gMixer-12": "gmixer_12_224",
    "gMixer-24": "gmixer_24_224",
}
"""timm's names for our variants."""
del TIMM_NAMES["S/8"], TIMM_NAMES["H/14"]  # timm lacks these two

_TIMM = "timm's results-imagenet.csv and results-imagenet-real.csv"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels; the preprocessing of the published ResMLP and gMixer."""
_PAPER = "the paper, Table 3"
_MISLABELLED = (
    "mislabelled: trained on ImageNet-1k from scratch, not on ImageNet-21k before, as an author of "
    "the paper says in pull request 651 of pytorch-image-models"
)

_DINO = "features without labels (DINO): its head isn't trained; embed images, or fine-tune it"


@dataclass(frozen=True)
class CatalogEntry:
    """A published model.

    `source` is "hf://repository", a path in Google's bucket, or None for the built-in model.
    `label_list` is a `choices.LabelList`. `top1` and `real` (ReaL labels) are in percent on
    ImageNet-1k's validation set (`cifar10`: CIFAR-10's test set), as published by
    `accuracy_source`, or None if no published value is known.
    """

    name: str
    source: str | None
    config: MixerConfig
    preprocess: Preprocess
    label_list: LabelList | None = "imagenet1k"
    top1: float | None = None
    real: float | None = None
    accuracy_source: str | None = None
    licence: str = "Apache-2.0"
    note: str | None = None

    @property
    def download_bytes(self) -> int:
        """Size of the weights to download, without the few kB of a header; 0 if built in."""
        return 0 if self.source is None else 4 * self.config.num_parameters

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, or nothing."""
        return labels.read_list(self.label_list) if self.label_list else ()


def _google(
    folder: str, variant: str, top1: float | None = None, real: float | None = None
) -> CatalogEntry:
    classes = 21_843 if folder == "imagenet21k" else 1000
    scale, patch = variant.split("/")
    return CatalogEntry(
        name=f"mixer_{scale.lower()}{patch}_224.{folder}",
        source=f"{folder}/Mixer-{scale}_{patch}.npz",
        config=MixerConfig.variant(variant, num_classes=classes, hidden_act="gelu_tanh"),
        preprocess=Preprocess((224, 224)),
        label_list="imagenet21k_goog" if folder == "imagenet21k" else "imagenet1k",
        top1=top1,
        real=real,
        accuracy_source=_PAPER if top1 else None,
    )


def _timm(
    variant: str,
    tag: str,
    *,
    classes: int = 1000,
    label_list: LabelList | None = "imagenet1k",
    top1: float | None = None,
    real: float | None = None,
    note: str | None = None,
) -> CatalogEntry:
    config = MixerConfig.variant(variant, num_classes=classes)
    preprocess = Preprocess((224, 224))
    if tag.startswith("miil"):
        preprocess = replace(preprocess, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    elif config.model_type in ("resmlp", "gmixer"):
        preprocess = replace(preprocess, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    name = f"{TIMM_NAMES[variant]}.{tag}"
    return CatalogEntry(
        name=name,
        source=f"hf://timm/{name}",
        config=config,
        preprocess=preprocess,
        label_list=label_list,
        top1=top1,
        real=real,
        accuracy_source=_TIMM if top1 else None,
        note=note,
    )


def _built_in() -> CatalogEntry:
    return CatalogEntry(
        name=BUILT_IN,
        source=None,
        config=MixerConfig(
            image_size=(32, 32),
            patch_size=4,
            num_blocks=8,
            hidden_dim=128,
            tokens_mlp_dim=64,
            channels_mlp_dim=512,
            num_classes=10,
        ),
        preprocess=Preprocess((32, 32), crop_pct=1.0),
        label_list=None,
        top1=83.04,
        accuracy_source="its card, on CIFAR-10's test images as JPEG files",
        note="ships in the package: ten classes, 32 x 32 pixels",
    )


CATALOG = {
    entry.name: entry
    for entry in [
        _built_in(),
        _timm("B/16", "miil_in21k_ft_in1k", top1=82.314, real=87.230),
        _timm("B/16", "miil_in21k", classes=11_221, label_list="imagenet21k_miil"),
        _timm("B/16", "goog_in21k_ft_in1k", top1=76.616, real=82.012, note=_MISLABELLED),
        _timm("L/16", "goog_in21k_ft_in1k", top1=72.084, real=77.306, note=_MISLABELLED),
        _timm("B/16", "goog_in21k", classes=21_843, label_list="imagenet21k_goog"),
        _timm("L/16", "goog_in21k", classes=21_843, label_list="imagenet21k_goog"),
        _timm("ResMLP-B24/8", "fb_in22k_ft_in1k", top1=84.414, real=89.024),
        _timm("ResMLP-B24/8", "fb_distilled_in1k", top1=83.594, real=88.441),
        _timm("ResMLP-B24/8", "fb_in1k", top1=81.034, real=85.697),
        _timm("ResMLP-S36", "fb_distilled_in1k", top1=81.150, real=86.980),
        _timm("ResMLP-S36", "fb_in1k", top1=79.772, real=85.623),
        _timm("ResMLP-S24", "fb_distilled_in1k", top1=80.766, real=86.635),
        _timm("ResMLP-S24", "fb_in1k", top1=79.380, real=85.277),
        _timm("ResMLP-S24", "fb_dino", label_list=None, note=_DINO),
        _timm("ResMLP-S12", "fb_distilled_in1k", top1=77.948, real=84.724),
        _timm("ResMLP-S12", "fb_in1k", top1=76.660, real=83.566),
        _timm("ResMLP-S12", "fb_dino", label_list=None, note=_DINO),
        _timm("gMLP-S/16", "ra3_in1k", top1=79.652, real=85.362),
        _timm("gMixer-24", "ra3_in1k", top1=78.048, real=83.972),
        _google("imagenet1k", "B/16", top1=76.44, real=82.36),
        _google("imagenet1k", "L/16", top1=71.76, real=77.08),
        _google("imagenet21k", "B/16"),
        _google("imagenet21k", "L/16"),
        _google("sam", "B/16"),
        _google("sam", "B/32"),
        _google("gsam", "B/16"),
        _google("gsam", "B/32"),
        _google("gsam", "S/16"),
        _google("gsam", "S/32"),
        _google("gsam", "S/8"),
    ]
}
"""All published models, by name."""
