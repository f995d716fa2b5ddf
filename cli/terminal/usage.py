"""What the command line says of wrong usage, in our words, and options that had another name."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from . import output

_RENAMED = {"--accumulation": "--grad-accum", "--erasing": "--random-erasing"}
"""Old names, which work for one version more."""

# What pydantic, inside Typer, says of a value.
_SENTENCES = (
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1."),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1."),
    (r"Input should be a valid integer.*", "it must be a whole number."),
    (r"Input should be a valid number.*", "it must be a number."),
    (r"Value error, ", ""),
)


def is_wrong(error: BaseException) -> bool:
    """Whether the option parser, whose classes Typer keeps to itself, refuses the usage."""
    return getattr(error, "exit_code", None) == 2 and hasattr(error, "format_message")


def explain(error: Any) -> int:
    """Print what is wrong, without the parser's own phrases; the exit code."""
    for pattern, ours in _SENTENCES:
        error.message = re.sub(pattern, ours, error.message)
    error.show()
    return int(error.exit_code)


def renamed(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with the present name of each option; says so for those that were renamed."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
            return
        name, equals, value = argument.partition("=")
        if name == "--output":
            yield f"--out{equals}{value}"
        elif name == "--freeze":  # its only value was backbone
            _say_renamed(name, "--freeze-backbone")
            if not equals:
                next(rest, None)
            yield "--freeze-backbone"
        elif name in _RENAMED:
            _say_renamed(name, _RENAMED[name])
            yield f"{_RENAMED[name]}{equals}{value}"
        else:
            yield argument


def _say_renamed(old: str, new: str) -> None:
    output.say(f"Warning: {old} is now called {new}; the old name will go.")


def arguments() -> list[str]:
    """Those of this process, as `renamed` gives them."""
    return list(renamed(sys.argv[1:]))
