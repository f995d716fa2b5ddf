"""The models that contenders run: the same weights in three formats."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
from harness import Row

import mixer_mlx
from mixer_mlx import MixerConfig, MlpMixer, ModelInfo, Preprocess, checkpoint
from mixer_mlx.convert.export import formats

BUILT_IN = "cifar10"


@contextmanager
def files(name: str, *, hidden_act: str = "gelu") -> Iterator[Row]:
    """Write the weights of "cifar10", or random ones of a variant such as "B/16".

    Returns their fields of a case: the folders `native` and `timm`, the file `jax`, preprocessing,
    and `classes`. Siblings of the Mixer have no `jax`.
    """
    model, info = make(name, hidden_act)
    with TemporaryDirectory(prefix="mixer-mlx-benchmark-") as folder:
        paths = {kind: str(Path(folder) / kind) for kind in ("native", "timm")}
        checkpoint.save(paths["native"], model, info)
        formats.export(model, info, paths["timm"], format="timm")
        config = info.config
        if config.model_type == "mlp_mixer":  # the official code has no siblings
            paths["jax"] = str(Path(folder) / "jax.npz")
            formats.export(model, info, paths["jax"], format="jax")
        yield {
            **paths,
            "image_size": list(config.image_size),
            "mean": list(info.preprocess.mean),
            "std": list(info.preprocess.std),
            "classes": config.num_classes,
            "hidden_act": config.hidden_act,
        }


def make(name: str, hidden_act: str = "gelu") -> tuple[MlpMixer, ModelInfo]:
    """A model in memory. A variant's weights, the head's too, are initialized as in Flax."""
    if name == BUILT_IN:
        classifier = mixer_mlx.load(BUILT_IN, dtype="float32", device="cpu")
        return classifier.model, classifier.info
    mx.random.seed(0)
    config = MixerConfig.variant(name)
    if config.model_type == "mlp_mixer":
        config = config.replace(hidden_act=hidden_act)
    model = MlpMixer(config)
    shape = model.head.weight.shape
    model.head.weight = mx.random.normal(shape) * config.hidden_dim**-0.5
    mx.eval(model.parameters())
    return model, ModelInfo(config, Preprocess(config.image_size))
