"""Every error that the library raises on purpose.

    MixerError              something the user can mend; its text is one sentence with the next step
    ├── ConfigError         a size, a name or a setting that no model can have
    ├── CheckpointError     a native model folder that is missing, broken or in the way
    ├── SourceError         foreign weights that can't be reached or read
    ├── ConversionError     foreign weights that were read and are no MLP-Mixer we know
    ├── ImageError          an image that can't be read
    ├── BackendError        a device or dtype that MLX doesn't have here
    └── TrainingError       a run that can't go on, or whose saved state can't be used

Texts may quote file, class or tensor names as they came; whoever prints them to a terminal
escapes control characters first (the command line does).
"""


class MixerError(Exception):
    """Base of all errors raised on purpose; catch it to catch them all."""


class ConfigError(MixerError, ValueError):
    """A size, a name or a setting that no model can have."""


class CheckpointError(MixerError):
    """A native model folder that is missing, broken or in the way."""


class SourceError(MixerError):
    """Foreign weights that can't be reached or read."""


class ConversionError(MixerError):
    """Foreign weights that were read and are no MLP-Mixer we know."""


class ImageError(MixerError):
    """An image that can't be read."""


class BackendError(MixerError):
    """A device or dtype that MLX doesn't have here."""


class TrainingError(MixerError):
    """A run that can't go on, or whose saved state can't be used."""
