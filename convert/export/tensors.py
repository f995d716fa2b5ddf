"""A model's weights under the names that other code gives them: the tables backwards."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mixer_mlx.model import MlpMixer

from ..names import Layout


def foreign_tensors(model: MlpMixer, layout: Layout) -> dict[str, np.ndarray]:
    """Every parameter under its foreign name, float32, axes in the foreign order."""
    ours: Mapping[str, mx.array] = dict(tree_flatten(model.parameters()))
    config = model.config
    names = layout.names(config.num_blocks, head=config.num_classes > 0)
    tensors = {}
    for name, (foreign, axes) in names.items():
        value = np.array(ours[name].astype(mx.float32))
        if axes:
            dropped = [axis for axis in range(max(axes)) if axis not in axes]
            value = np.expand_dims(value.transpose(np.argsort(axes)), dropped)
        tensors[foreign] = np.ascontiguousarray(value)
    return tensors
