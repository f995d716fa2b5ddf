"""Recipes by name, with their expected results and sources."""

from dataclasses import dataclass

from mixer_mlx.errors import ConfigError

from .recipe import Recipe


@dataclass(frozen=True)
class NamedRecipe:
    """`about` states the purpose, the command, the expected result, and the source."""

    recipe: Recipe
    about: str


# Without RandAugment and mixup, which depend on the data and the model's size.
_PAPER_PRETRAINING = Recipe(
    epochs=300,
    batch_size=4096,
    lr=1e-3,
    end_lr=1e-5,
    warmup=10_000,
    schedule="linear",
    weight_decay=0.1,
    loss="sigmoid",
    head_bias=-6.9,
    drop_path=0.1,
    augmentation="crop",
)

RECIPES = {
    "quick": NamedRecipe(
        Recipe(
            epochs=20,
            min_steps=200,
            max_steps=1500,
            batch_size=32,
            batch_fraction=0.25,
            lr=5e-4,
            weight_decay=0.05,
            label_smoothing=0.1,
            ema_decay=0.99,
            head="ridge",
            best_by="halfway",
            patience=5,
            cooldown=0.2,
            validate_every=20,
        ),
        """Fine-tunes on 50 to 5,000 images, from a head fitted to their features.

Command   mixer fine-tune photos/ -o my-model
Expect    from the model `cifar10`, on 126 of CIFAR-10's cats, dogs and frogs 79 %, as the ridge
          probe; where its features don't fit 6 to 18 points more (docs/training.md)
Source    this project's own: AdamW and EMA, which are robust on small datasets
""",
    ),
    "paper-finetune": NamedRecipe(
        Recipe(
            steps=10_000,
            batch_size=512,
            optimizer="sgd",
            lr=0.03,
            warmup=500,
            augmentation="crop",
        ),
        """Fine-tunes as the paper does: SGD with momentum 0.9, no weight decay, new zero head.

Command   mixer fine-tune cifar10/ -m mixer_b16_224.goog_in21k --recipe paper-finetune -o my-model
Expect    CIFAR-10 from the ImageNet-21k weights: B/16 96.82 %, L/16 98.34 %; from the ImageNet
          weights: B/16 96.72 %, L/16 96.59 % (published; not run here)
Source    arXiv 2105.01601, section 3 and appendix; google-research/vision_transformer. 10,000 steps
          are CIFAR's; the paper gives ImageNet 20,000, Pets and Flowers 500, VTAB 2,500
""",
    ),
    "paper-imagenet": NamedRecipe(
        _PAPER_PRETRAINING.replace(rand_augment=(2, 15), mixup=0.5),
        """Trains on ImageNet from scratch, as in big_vision.

Command   mixer train imagenet/ --variant B/16 --recipe paper-imagenet -o my-model
Expect    B/16 76.44 %, L/16 71.76 % (paper); B/16 76.3 % (big_vision, whose 60 epochs give 70.5 %);
          published, not run here
Source    arXiv 2105.01601, table 4; big_vision `configs/mlp_mixer_i1k.py`: sigmoid loss, head bias,
          stochastic depth that isn't rescaled, decay 0.1 x learning rate on kernels alone,
          RandAugment with 2 layers of magnitude 15, mixup 0.5
""",
    ),
    "paper-imagenet21k": NamedRecipe(
        _PAPER_PRETRAINING.replace(rand_augment=(2, 10), mixup=0.2),
        """Trains on ImageNet-21k from scratch; with these settings, a Mixer-B.

Command   mixer train imagenet21k/ --variant B/16 --recipe paper-imagenet21k -o my-model
          L/16 is regularised more in the paper: --rand-augment 2x20 --mixup 0.5
Expect    after fine-tuning on ImageNet at 224 pixels B/16 80.64 %, L/16 82.89 % (paper); published,
          not run here
Source    arXiv 2105.01601, table 4; the loss, the head bias and RandAugment's 2 layers as in
          `paper-imagenet`
""",
    ),
    "cifar": NamedRecipe(
        Recipe(
            epochs=40,
            batch_size=128,
            lr=2e-3,
            weight_decay=0.05,
            label_smoothing=0.1,
            augmentation="pad",
        ),
        """Trains a Mixer of about a million parameters on CIFAR-10 from scratch.

Command   mixer train cifar10/ --recipe cifar -o my-model
Expect    with --epochs 10 --val-fraction 0.1 71.2 % on the validation and 70.9 % on the test
          images, as timm's `MlpMixer` on the same batches (docs/from-scratch.md)
Source    this project's own; timm's code reached 77.90 % by nearly the same
""",
    ),
    "cifar-muon": NamedRecipe(
        Recipe(
            epochs=26,
            batch_size=128,
            optimizer="muon",
            lr=6e-3,
            momentum=0.95,
            warmup=0.03,
            schedule="linear",
            weight_decay=0.1,
            label_smoothing=0.1,
            augmentation="pad",
            cutmix=0.2,
        ),
        """Trains the model `cifar10` on CIFAR-10 from scratch, in 1 h 58 min on two CPU cores.

Command   mixer train cifar10/train --like cifar10 --recipe cifar-muon --val-fraction 0.04 -o run
Expect    83.04 % on the test images (docs/cifar10.md)
Source    this project's own: Muon (Jordan et al., kellerjordan.github.io/posts/muon) because steps
          are few, CutMix (arXiv 1905.04899) against overfitting
""",
    ),
}


def named(name: str) -> NamedRecipe:
    """The recipe of that name. Raises ConfigError."""
    if name not in RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
