"""What MLX raises as RuntimeError when a GPU or the memory fails, as sentences with a next step."""

import re
from collections.abc import Sequence

_MEMORY = re.compile(r"malloc\w*\]|insufficient memory|out ?of ?memory", re.IGNORECASE)
_WATCHDOG = re.compile(r"impacting ?interactivity|gpu ?timeout|error ?timeout", re.IGNORECASE)
_GPU = re.compile(r"\[(metal|cuda)", re.IGNORECASE)


def sentence(error: BaseException, arguments: Sequence[str]) -> str | None:
    """The message for an error in `mixer ARGUMENTS`; None if it isn't MLX's or Python's memory's.

    MLX's texts begin with the failing part, as in "[METAL] Command buffer execution failed: ..."
    or "[metal::malloc] ...", and Metal's own reason comes last.
    """
    text = " ".join(str(error).split())
    training = arguments[:1] in (["train"], ["fine-tune"])
    if isinstance(error, MemoryError) or (_is_mlx(error) and _MEMORY.search(text)):
        what, step = "There isn't enough memory", _MEMORY_STEP[training]
    elif _is_mlx(error) and _WATCHDOG.search(text):
        what, step = (
            "macOS stopped the GPU because it kept the display waiting",
            _SLOW_STEP[training],
        )
    elif _is_mlx(error) and _GPU.match(text):
        what, step = "The GPU failed", _GPU_STEP[training]
    else:
        return None
    reason = f" ({text[:300].rstrip('.')})" if text else ""
    return f"{what}{reason}; {step}."


def _is_mlx(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith("[")


# Indexed by whether the command trains.
_MEMORY_STEP = (
    "close other programs, or use a smaller batch (-b)",
    "use --grad-accum to compute each batch in parts, or a smaller -b; a run that was saved "
    "continues with the same options and --resume",
)
_SLOW_STEP = (
    "use a smaller batch (-b)",
    "continue with --resume; if it happens again, start over with --grad-accum or a smaller -b",
)
_GPU_STEP = (
    "run the command again, with --device cpu if it fails twice",
    "continue with --resume",
)
