"""A Mixer's forward pass in training: stochastic depth, dropout, gradient checkpointing.

Random numbers are drawn before the pass, by `draw`, and passed as arrays: a block that is
recomputed for its gradient (`mx.checkpoint`) would draw new ones.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mixer_mlx.config import MixerConfig
from mixer_mlx.lora import add_adapters, has_adapters, is_thin
from mixer_mlx.model import MlpMixer
from mixer_mlx.runtime.backend import gpu_is_default

from .optimizer import Weights
from .recipe import Recipe

Noise = dict[str, mx.array]
"""Random factors for a batch of N: "depth" (blocks, 2, N, 1, 1), "pre_logits" (N, C)."""


def prepared(model: MlpMixer, recipe: Recipe) -> MlpMixer:
    """The model, which gets the recipe's adapters in place unless it has some."""
    if recipe.lora_rank and not has_adapters(model):
        add_adapters(model, recipe.lora_rank, recipe.lora_scale, seed=recipe.seed)
    return model


def weights_of(model: MlpMixer) -> Weights:
    """All parameters by name, as float32."""
    parameters = dict(tree_flatten(model.parameters()))
    return {name: w.astype(mx.float32) for name, w in parameters.items()}


def put(model: MlpMixer, weights: Weights) -> None:
    """Set these parameters of a model; others are unchanged."""
    model.update(tree_unflatten(list(weights.items())))


def halfway(start: Weights, end: Weights) -> Weights:
    """The mean of two points in weight space.

    Of adapters, whose products are the weights: as those of the start are zero, the mean has half
    of B and all of A.
    """
    return {
        name: value if name.endswith("lora_a") else (start[name] + value) / 2
        for name, value in end.items()
    }


def trained_names(config: MixerConfig, recipe: Recipe, names: list[str]) -> set[str]:
    """Names of the parameters that the recipe doesn't freeze."""
    if recipe.lora_rank:
        return {name for name in names if is_thin(name) or name.startswith("head.")}
    if recipe.freeze is None:
        return set(names)
    parts = ["head."]
    if recipe.unfreeze_last:
        first = max(0, config.num_blocks - recipe.unfreeze_last)
        parts += ["norm.", *(f"blocks.{i}." for i in range(first, config.num_blocks))]
    return {name for name in names if name.startswith(tuple(parts))}


def draw(key: mx.array, size: int, config: MixerConfig, recipe: Recipe) -> Noise:
    """The noise of a batch of `size` examples; empty for a recipe without noise.

    Block i of L drops each of its two branches independently for each example, with probability
    i / (L - 1) * drop_path, as big_vision does (without rescaling). gMLP's blocks have only one.
    """
    depth_key, dropout_key = mx.random.split(key)
    noise = {}
    if recipe.drop_path:
        L = config.num_blocks
        keep = 1 - recipe.drop_path * mx.arange(L) / max(1, L - 1)
        keep = keep.reshape(L, 1, 1, 1, 1)
        kept = mx.random.uniform(shape=(L, 2, size, 1, 1), key=depth_key) < keep
        noise["depth"] = kept / keep if recipe.drop_path_rescale else kept.astype(mx.float32)
    if recipe.dropout:
        shape = (size, config.hidden_dim)
        kept = mx.random.uniform(shape=shape, key=dropout_key) < 1 - recipe.dropout
        noise["pre_logits"] = kept / (1 - recipe.dropout)
    return noise


def part(noise: Noise, start: int, end: int) -> Noise:
    """The noise of examples start..end of the batch."""
    cut = {"depth": (slice(None), slice(None)), "pre_logits": ()}
    return {name: value[(*cut[name], slice(start, end))] for name, value in noise.items()}


def forward(model: MlpMixer, x: mx.array, noise: Noise, *, checkpoint: bool) -> mx.array:
    """Normalised images (N, H, W, in) -> logits; without noise, the same as `model(x)`.

    `checkpoint`: only a block's input is kept, and the block is recomputed for its gradient.
    On a GPU, biases without effect are left out, see `MixerBlock.lean`; their gradient is zero.
    """
    x = model.embed(x)
    lean = gpu_is_default() and "depth" not in noise and not checkpoint
    lean = lean and model.config.model_type == "mlp_mixer"
    for i, block in enumerate(model.blocks):
        if lean:
            x = block.lean(x)
            continue
        keep = noise["depth"][i].astype(x.dtype) if "depth" in noise else None
        x = _recomputed(block, x, keep) if checkpoint else block(x, keep)
    pre_logits = model.pool(x)
    if "pre_logits" in noise:
        pre_logits = pre_logits * noise["pre_logits"].astype(x.dtype)
    return model.classify(pre_logits)


def _recomputed(block: nn.Module, x: mx.array, keep: mx.array | None) -> mx.array:
    def run(parameters: dict[str, object], x: mx.array, *keep: mx.array) -> mx.array:
        block.update(parameters)
        return block(x, *keep)

    # Gradients flow only through arguments, so all that the result depends on must be one.
    arguments = () if keep is None else (keep,)
    return mx.checkpoint(run)(block.parameters(), x, *arguments)
