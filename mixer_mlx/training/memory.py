"""What a training step takes of memory, estimated; and recipes that fit into a machine."""

from mixer_mlx.config import MixerConfig
from mixer_mlx.runtime.streams import MOST_IN_TRAINING, rounds

from .recipe import Recipe

MEMORY_SHARE = 0.6
"""The share of the memory that a run should take: the rest is for the system and the pictures."""


def estimated_bytes(config: MixerConfig, recipe: Recipe) -> float:
    """The peak of a training step: above what is measured, by up to a half, seldom by more.

    What a block keeps for its gradient are the inputs of its two layer norms and what they give,
    and of each MLP what goes into its GELU and what comes out. The factors for what is on the way
    were measured on MLX's CPU backend.
    """
    S, C = config.num_tokens, config.hidden_dim
    inside = 3 * S * C + 2 * config.tokens_mlp_dim * C + 2 * S * config.channels_mlp_dim
    size = -(-recipe.batch_size // recipe.accumulation)
    parts = rounds(config, size, MOST_IN_TRAINING)[0]
    if recipe.gradient_checkpointing:  # each keeps its input, and a few at a time the rest
        kept = 1.0 * config.num_blocks * S * C + (7 if len(parts) == 1 else 4) * inside
    else:
        kept = (1.2 * config.num_blocks + 5) * (S * C + inside)
    _, at_once = parts[-1]
    activations = at_once * kept * (4 if recipe.dtype == "float32" else 2)
    moments = 1 if recipe.optimizer == "sgd" else 2
    # Weights, gradients, moments, and what is new before the old is gone.
    copies = 3 + moments + (recipe.ema_decay is not None) + 2 * (recipe.accumulation > 1)
    return activations + 4 * copies * config.num_parameters


def fitted(config: MixerConfig, recipe: Recipe, memory_bytes: float) -> Recipe:
    """The recipe in as many parts (`accumulation`) as keep it under `MEMORY_SHARE` of the memory.

    The same updates, in less memory. A recipe that has parts already stays as it is, and one that
    can't fit gets parts of one picture.
    """
    if recipe.accumulation > 1:
        return recipe
    parts = 1
    while (
        estimated_bytes(config, recipe) > MEMORY_SHARE * memory_bytes and parts < recipe.batch_size
    ):
        parts = min(2 * parts, recipe.batch_size)
        recipe = recipe.replace(accumulation=parts)
    return recipe
