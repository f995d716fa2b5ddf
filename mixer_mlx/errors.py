"""Every error that the library raises on purpose.

    MixerError              something the user can fix; its message ends with the next step
    ├── ConfigError         an invalid size, name or setting
    ├── CheckpointError     a native model folder that is missing, damaged or in the way
    ├── SourceError         foreign weights that can't be reached or read
    ├── ConversionError     foreign weights that were read, but aren't a known MLP-Mixer
    ├── ImageError          an image that can't be read
    ├── BackendError        a device or dtype that MLX doesn't have here
    └── TrainingError       a run that can't continue, or whose saved state can't be used

Messages name arguments and functions between backticks, never options; the command line has its
own names for them (`cli/terminal/arguments.py`).
Messages may quote names of files, classes and tensors verbatim; escape control characters before
printing them to a terminal (the command line does).
"""


class MixerError(Exception):
    """Base of all errors raised on purpose; catch it to catch them all."""


class ConfigError(MixerError, ValueError):
    """An invalid size, name or setting."""


class CheckpointError(MixerError):
    """A native model folder that is missing, damaged or in the way."""


class SourceError(MixerError):
    """Foreign weights that can't be reached or read."""


class ConversionError(MixerError):
    """Foreign weights that were read, but aren't a known MLP-Mixer."""


class ImageError(MixerError):
    """An image that can't be read."""


class BackendError(MixerError):
    """A device or dtype that MLX doesn't have here."""


class TrainingError(MixerError):
    """A run that can't continue, or whose saved state can't be used."""
