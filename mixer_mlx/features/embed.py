"""Images -> feature vectors, of any layer of a Mixer.

In timm's words the default, the pre-logits pooled over tokens, is
`forward_head(forward_features(x), pre_logits=True)`, and with pool "none" `forward_features(x)`.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mixer_mlx.checks import check_choice
from mixer_mlx.choices import Pool
from mixer_mlx.config import MixerConfig
from mixer_mlx.errors import ConfigError, ImageError
from mixer_mlx.forward import Forward, described, everything
from mixer_mlx.images.inputs import ImageInput, ImagesInput
from mixer_mlx.loaded import LoadedModel
from mixer_mlx.model import MlpMixer
from mixer_mlx.model_info import ModelInfo
from mixer_mlx.quantization import dequantize

PRE_LOGITS = "pre-logits"


class Embedding(NamedTuple):
    """An image and its vector, or the error if it can't be read.

    `vector` is float32, (C,), or with pool "none" (S, C).
    """

    image: ImageInput
    vector: NDArray[np.float32] | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class Features:
    """Which features of a Mixer.

    `layer` is "stem", "blocks.N" (a block's output, from 0), or "pre-logits" (after the last norm);
    `pool` "mean" (over tokens) or "none"; `normalize` scales each vector to length 1.
    """

    layer: str = PRE_LOGITS
    pool: Pool = "mean"
    normalize: bool = False

    def __post_init__(self) -> None:
        check_choice("pool", self.pool, Pool)

    def check(self, config: MixerConfig) -> None:
        """Raise ConfigError if a model of these sizes doesn't have the layer."""
        self._blocks(config)

    def shape(self, config: MixerConfig) -> tuple[int, ...]:
        """The shape of an image's vector."""
        C = config.hidden_dim
        return (C,) if self.pool == "mean" else (config.num_tokens, C)

    def __call__(self, model: MlpMixer, x: mx.array) -> mx.array:
        """Normalised images (N, H, W, in) -> float32 (N, C), or (N, S, C) with pool "none"."""
        x = model.embed(x)
        for block in model.blocks[: self._blocks(model.config)]:
            x = block(x)
        if self.layer == PRE_LOGITS:
            x = model.norm(x)
        x = x.astype(mx.float32)
        if self.pool == "mean":
            x = x.mean(axis=1)
        return normalized(x) if self.normalize else x

    def _blocks(self, config: MixerConfig) -> int:
        """How many blocks come before the layer."""
        if self.layer == "stem":
            return 0
        if self.layer == PRE_LOGITS:
            return config.num_blocks
        number = re.fullmatch(r"blocks\.([0-9]{1,4})", self.layer)
        if number and int(number[1]) < config.num_blocks:
            return int(number[1]) + 1
        raise ConfigError(
            f"The model has no layer {self.layer!r}; expected stem, blocks.0 to "
            f"blocks.{config.num_blocks - 1}, or {PRE_LOGITS}."
        )


def normalized(vectors: mx.array) -> mx.array:
    """Vectors (..., C) scaled to length 1; zeros stay zeros."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class Embedder(LoadedModel):
    """A model, with or without a head, that turns images into vectors.

    Raises ConfigError for a layer that the model doesn't have.
    """

    def __init__(
        self,
        model: MlpMixer,
        info: ModelInfo,
        device: mx.Device | None = None,
        features: Features = Features(),
    ):
        super().__init__(model, info, device)
        features.check(info.config)
        self._features = features
        self._network = Forward(model, info.preprocess, self.device, features, "features")

    def __repr__(self) -> str:
        return f"Embedder({described(self.model, self.info, self.device, self.features.layer)})"

    @property
    def features(self) -> Features:
        """Which features it gives."""
        return self._features

    def _options(self) -> dict[str, Any]:
        return {"features": self._features}

    def stream(
        self, images: ImagesInput, *, batch_size: int = 32, exact: bool = False
    ) -> Iterator[Embedding]:
        """Embeddings in the order of the images, including those that can't be read.

        `images` is an iterable of images, one image, or an array (N, H, W, C). Images are read
        lazily, in threads, as in `Classifier.predict`: memory doesn't depend on their number.
        """
        rows = self._network.stream(images, everything, _rows, batch_size=batch_size, exact=exact)
        for image, found in rows:
            if isinstance(found, ImageError):
                yield Embedding(image, error=found)
            else:
                yield Embedding(image, found)

    def array(
        self, images: ImagesInput, *, batch_size: int = 32, exact: bool = False
    ) -> NDArray[np.float32]:
        """One row per image: (N, C) or (N, S, C). Raises ImageError for an unreadable one."""
        vectors = []
        for _, vector, error in self.stream(images, batch_size=batch_size, exact=exact):
            if error is not None:
                raise error
            vectors.append(vector)
        shape = self.features.shape(self.info.config)
        return np.array(vectors, np.float32).reshape(len(vectors), *shape)

    def pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of images that are already preprocessed, uint8 (N, H, W, in)."""
        return np.array(self._network(pixels)[0])


def _rows(found: tuple[mx.array, ...]) -> list[NDArray[np.float32]]:
    return list(np.array(found[0]))


# By name, so that a further field with a default doesn't make users' files of vectors strange.
CONFIG_FIELDS = (
    *("model_type", "image_size", "patch_size", "num_blocks", "hidden_dim", "tokens_mlp_dim"),
    *("channels_mlp_dim", "in_channels", "hidden_act", "layer_norm_eps"),
)
PREPROCESS_FIELDS = ("image_size", "resize_mode", "crop_pct", "interpolation", "mean", "std")


def fingerprint(model: MlpMixer, info: ModelInfo) -> str:
    """Equal for models that give the same features: everything but the head, in 16 hex digits.

    The weights count as float16, so that a model loaded in float32 and in float16 is the same.
    """
    config, preprocess = info.config.to_dict(), info.preprocess.to_dict()
    known = [
        {name: config[name] for name in CONFIG_FIELDS},
        {name: preprocess[name] for name in PREPROCESS_FIELDS},
    ]
    text = json.dumps(known, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    parameters: dict[str, mx.array] = dict(tree_flatten(dequantize(model).parameters()))
    for name, value in sorted(parameters.items()):
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(np.array(value.astype(mx.float16)).tobytes())
    return digest.hexdigest()
