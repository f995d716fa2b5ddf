"""Every parser that meets files of strangers, by name."""

from importlib.util import find_spec

from fuzz import archives, images, texts, weights

TARGETS = {**images.TARGETS, **archives.TARGETS, **weights.TARGETS, **texts.TARGETS}
if find_spec("torch"):
    from fuzz import torch_files

    TARGETS |= torch_files.TARGETS
