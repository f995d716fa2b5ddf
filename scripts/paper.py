"""Statements of the paper (arXiv 2105.01601), shown with numbers, and docs/paper.md.

python scripts/paper.py                 run every command of docs/paper.md and write its output
python scripts/paper.py table1          parameters and multiplications of each variant
python scripts/paper.py cost            multiplications by image size, beside a ViT
python scripts/paper.py convolution     token and channel mixing as convolutions
python scripts/paper.py permutation     a Mixer with permuted weights on permuted images
python scripts/paper.py resolution      a tiled image after the block-diagonal rule
"""

import sys
from pathlib import Path
from typing import get_args

import mlx.core as mx
import numpy as np

from mixer_mlx import MixerConfig, MlpMixer, load
from mixer_mlx.choices import Variant
from mixer_mlx.resolution import resize

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from commands import written  # noqa: E402

PAGE = ROOT / "docs" / "paper.md"
DATA = "data/cifar10"


def table1() -> None:
    """Without a head, as Table 1 counts."""
    print("variant  parameters   GMACs")
    for name in get_args(Variant):
        config = MixerConfig.variant(name, num_classes=0)
        if config.model_type != "mlp_mixer":
            continue
        print(f"{name:7}  {config.num_parameters / 1e6:8.1f} M  {config.num_macs / 1e9:6.2f}")


def vit_macs(tokens: int, dim: int, mlp_dim: int, blocks: int, patch: int = 16) -> int:
    """A ViT without class token and head: projections, attention, the MLP, the patches."""
    block = 4 * tokens * dim**2 + 2 * tokens**2 * dim + 2 * tokens * dim * mlp_dim
    return blocks * block + tokens * patch**2 * 3 * dim


def cost() -> None:
    """B/16 at larger images, its widths unchanged."""
    print("image  tokens  Mixer-B/16  per token  ViT-B/16  per token  (GMACs, MMACs per token)")
    for side in (224, 448, 896, 1792):
        config = MixerConfig.variant("B/16", num_classes=0).replace(image_size=(side, side))
        S, mixer = config.num_tokens, config.num_macs
        vit = vit_macs(S, 768, 3072, 12)
        print(
            f"{side:5}  {S:6}  {mixer / 1e9:10.1f}  {mixer / S / 1e6:9.1f}"
            f"  {vit / 1e9:8.1f}  {vit / S / 1e6:9.1f}"
        )


def token_linear_as_convolution(x: mx.array, weight: mx.array, grid: tuple[int, int]) -> mx.array:
    """`weight` (out, S) on tokens (N, S, C), by a depthwise convolution: (N, out, C).

    Each row of the weight is a kernel as large as the image, the same for all channels: the images
    of one channel each are the convolution's examples, without padding.
    """
    N, _, C = x.shape
    h, w = grid
    images = x.transpose(0, 2, 1).reshape(N * C, h, w, 1)
    found = mx.conv2d(images, weight.reshape(-1, h, w, 1))  # (N*C, 1, 1, out)
    return found.reshape(N, C, -1).transpose(0, 2, 1)


def channel_linear_as_convolution(x: mx.array, weight: mx.array, grid: tuple[int, int]) -> mx.array:
    """`weight` (out, C) on tokens (N, S, C), by a 1 x 1 convolution: (N, S, out)."""
    N, S, C = x.shape
    found = mx.conv2d(x.reshape(N, *grid, C), weight[:, None, None, :])
    return found.reshape(N, S, -1)


def convolution_differences(model: MlpMixer) -> dict[str, float]:
    """The largest differences between a block's linear maps and convolutions, relative."""
    config, block = model.config, model.blocks[0]
    (H, W), P = config.image_size, config.patch_size
    grid = H // P, W // P
    x = mx.array(np.random.default_rng(0).normal(size=(2, config.num_tokens, config.hidden_dim)))
    x = x.astype(mx.float32)
    tokens, channels = block.token_mixing.fc1, block.channel_mixing.fc1
    by_tokens = token_linear_as_convolution(x, tokens.weight, grid) + tokens.bias[:, None]
    by_channels = channel_linear_as_convolution(x, channels.weight, grid) + channels.bias
    return {
        "token mixing": _difference(tokens(x), by_tokens),
        "channel mixing": _difference(channels(x), by_channels),
    }


def convolution() -> None:
    """On the built-in model."""
    for name, value in convolution_differences(load("cifar10", dtype="float32").model).items():
        print(f"{name} and its convolution differ by at most {value:.0e} of the largest value")


def permuted_images(x: mx.array, patch: int, patches: mx.array, pixels: mx.array) -> mx.array:
    """Images (N, H, W, C) with patches in another order, and pixels inside each, too."""
    N, H, W, C = x.shape
    h, w = H // patch, W // patch
    x = x.reshape(N, h, patch, w, patch, C).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(N, h * w, patch * patch, C)[:, patches][:, :, pixels]
    x = x.reshape(N, h, w, patch, patch, C).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(N, H, W, C)


def permute_weights(model: MlpMixer, patches: mx.array, pixels: mx.array) -> None:
    """Make a Mixer take permuted images: its rows are only named in another order."""
    weight = model.stem.weight
    model.stem.weight = weight.reshape(len(weight), -1, weight.shape[3])[:, pixels].reshape(
        weight.shape
    )
    for block in model.blocks:
        mlp = block.token_mixing
        mlp.fc1.weight = mlp.fc1.weight[:, patches]
        mlp.fc2.weight, mlp.fc2.bias = mlp.fc2.weight[patches], mlp.fc2.bias[patches]


def permutation_difference(model: MlpMixer) -> float:
    """The relative difference of the logits; permutes the model's weights."""
    config, rng = model.config, np.random.default_rng(0)
    images = mx.array(rng.normal(size=(2, *config.image_size, config.in_channels)))
    images = images.astype(mx.float32)
    before = model(images)
    patches = mx.array(rng.permutation(config.num_tokens))
    pixels = mx.array(rng.permutation(config.patch_size**2))
    permute_weights(model, patches, pixels)
    return _difference(before, model(permuted_images(images, config.patch_size, patches, pixels)))


def permutation() -> None:
    """On the built-in model."""
    value = permutation_difference(load("cifar10", dtype="float32").model)
    print(f"logits differ by at most {value:.0e} of the largest logit")


def resolution() -> None:
    """On the built-in model: 32 x 32 to 64 x 64."""
    model = load("cifar10", dtype="float32").model
    images = mx.array(np.random.default_rng(0).normal(size=(2, 32, 32, 3))).astype(mx.float32)
    value = _difference(model(images), resize(model, (64, 64))(mx.tile(images, (1, 2, 2, 1))))
    print(f"logits of a tiled image differ by at most {value:.0e} of the largest logit")


def _difference(expected: mx.array, found: mx.array) -> float:
    return float(mx.abs(expected - found).max() / mx.abs(expected).max())


COMMANDS = {f.__name__: f for f in (table1, cost, convolution, permutation, resolution)}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        COMMANDS[sys.argv[1]]()
    else:
        page = PAGE.read_text("utf-8")
        page = written(page, ROOT, runs=lambda text: DATA not in text or (ROOT / DATA).exists())
        PAGE.write_text(page, encoding="utf-8")
