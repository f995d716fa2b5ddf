"""Jobs of worker_mlx.py: forward passes of any size, a Mixer's or a ViT's."""

from typing import Any

import mlx.core as mx
import serve
from mlx import nn
from serve import Case, Plain

from mixer_mlx import Classifier, MixerConfig, MlpMixer, Preprocess
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.runtime import backend

HEAD_DIM = 64


class Attention(nn.Module):
    """Multi-head self-attention, (N, S, C) -> (N, S, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        N, S, C = x.shape
        qkv = self.qkv(x).reshape(N, S, 3, C // HEAD_DIM, HEAD_DIM).transpose(2, 0, 3, 1, 4)
        x = mx.fast.scaled_dot_product_attention(*qkv, scale=HEAD_DIM**-0.5)  # (N, heads, S, 64)
        return self.out(x.transpose(0, 2, 1, 3).reshape(N, S, C))


class ViT(nn.Module):
    """A Vision Transformer (arXiv 2010.11929): a Mixer whose tokens are mixed by attention.

    Stem, channel MLPs, GELU, norms, the mean over tokens and the head are the Mixer's own, so that
    only the mixing differs; it has learned positions and no class token.
    """

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.mixer = MlpMixer(config)
        self.positions = mx.zeros((config.num_tokens, config.hidden_dim))
        self.attention = [Attention(config.hidden_dim) for _ in range(config.num_blocks)]
        for block in self.mixer.blocks:
            del block.token_mixing

    def __call__(self, images: mx.array) -> mx.array:
        x = self.mixer.embed(images) + self.positions
        for attention, block in zip(self.attention, self.mixer.blocks, strict=True):
            x = x + attention(block.norm1(x))
            x = x + block.channel_mixing(block.norm2(x))
        return self.mixer.classify(self.mixer.pool(x))


KINDS = {"mixer": MlpMixer, "vit": ViT}


def macs(kind: str, config: MixerConfig) -> int:
    """Multiply-accumulates of the matrix products for one image."""
    if kind == "mixer":
        return config.num_macs
    S, C = config.num_tokens, config.hidden_dim
    mixing = 2 * S * C * config.tokens_mlp_dim
    attention = 4 * S * C * C + 2 * S * S * C  # the four linear maps; q k^T and the sum over v
    return config.num_macs + config.num_blocks * (attention - mixing)


class Scaling(Plain):
    """`Classifier.logits` of a batch."""

    def __init__(self, case: Case) -> None:
        self.kind, self.batch = case["kind"], case["batch"]
        self.config = MixerConfig(**{**case["config"], "num_classes": 1000})
        device, dtype = backend.device(case["device"]), getattr(mx, case["dtype"])
        mx.set_default_device(device)
        model: Any = KINDS[self.kind](self.config)
        model.set_dtype(dtype)
        info = ModelInfo(self.config, Preprocess(self.config.image_size))
        self.classifier = Classifier(model, info, device)
        sides = list(self.config.image_size)
        self.pixels = serve.noise({"batch": self.batch, "image_size": sides})
        mx.reset_peak_memory()

    def run(self) -> None:
        mx.eval(self.classifier.forward(self.pixels))

    def facts(self) -> dict[str, Any]:
        """`peak` is MLX's peak allocation in bytes, weights included."""
        return {"peak": mx.get_peak_memory(), "macs": self.batch * macs(self.kind, self.config)}
