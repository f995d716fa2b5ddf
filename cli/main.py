"""The command `mixer`: runs one subcommand, and is the one place where errors become sentences."""

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TextIO

from mixer_mlx.errors import MixerError

from .commands import application
from .terminal import mlx_errors, output, signals
from .terminal.arguments import as_options


def main() -> None:
    """Run the command line and exit.

    0 success, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 ended (SIGTERM), 129 hung up.
    `MIXER_MLX_DEBUG=1` shows the traceback of an error that is otherwise a sentence.
    """
    signals.listen()
    warnings.showwarning = _show_warning
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for good
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = list(renamed(sys.argv[1:]))
            code = application(_named(arguments))(arguments, standalone_mode=False)
            sys.exit(code if isinstance(code, int) else 0)
        finally:
            sys.stdout.flush()
    except BaseException as error:
        code = _end(error)
        if code is None:
            raise
        sys.exit(code)


def _named(arguments: Sequence[str]) -> str | None:
    """The command among the arguments; None if the shell asks for completions of any."""
    if any(name.endswith("_COMPLETE") for name in os.environ):
        return None
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _end(error: BaseException) -> int | None:
    """Report how the command ended; the exit code, or None for an exception to let through."""
    if (code := signals.exit_code()) is not None:  # whatever the exception turned into
        with suppress(OSError):  # a terminal that is gone
            output.say(_sentences("Interrupted.", error))
        _drop_stdout()
        return code
    # Typer calls a closed pipe a failure; for `| head` it is the end of the job.
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        _drop_stdout()
        return 0
    if is_wrong_usage(error):
        return say_usage(error)
    if os.environ.get("MIXER_MLX_DEBUG"):
        return None
    if isinstance(error, MixerError):
        output.say(_sentences(f"Error: {as_options(str(error))}", error))
        return 1
    if isinstance(error, OSError):
        output.say(_sentences(f"Error: {_of_the_system(error)}", error))
        if error.filename is None:
            _drop_stdout()
        return 1
    if not isinstance(error, RuntimeError | MemoryError):
        return None
    if text := mlx_errors.sentence(error, sys.argv[1:]):
        output.say(_sentences(f"Error: {text}", error))
    return 1 if text else None


def _of_the_system(error: OSError) -> str:
    """What the system refused, of what is left after the library's own errors."""
    if error.filename is None:
        what = "output can't be written" if error.errno in _CANT_WRITE else "system refused"
        return f"The {what}: {error.strerror or error}."
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    if error.errno == errno.ENAMETOOLONG:
        return f"The name {name[:60]}... is too long; choose a shorter one."
    if isinstance(error, PermissionError):
        from mixer_mlx.runtime.macos import refusal

        return f"{name} can't be used. {refusal(error)}"
    return f"{name!s} can't be used: {error.strerror}."


_CANT_WRITE = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}


def _sentences(text: str, error: BaseException) -> str:
    return " ".join([text, *getattr(error, "__notes__", ())])


def _drop_stdout() -> None:
    """Discard what stdout still buffers, which Python would otherwise try to write at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    output.say(f"Warning: {message}")


_RENAMED = {"--accumulation": "--grad-accum", "--erasing": "--random-erasing"}
"""Former names, which work for one more version."""

# What pydantic, inside Typer, says about a value, and what we say.
_SENTENCES = (
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1."),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1."),
    (r"Input should be a valid integer.*", "it must be a whole number."),
    (r"Input should be a valid number.*", "it must be a number."),
    (r"Value error, ", ""),
)


def is_wrong_usage(error: BaseException) -> bool:
    """Whether the option parser, whose classes Typer keeps private, rejected the usage."""
    return getattr(error, "exit_code", None) == 2 and hasattr(error, "format_message")


def say_usage(error: Any) -> int:
    """Print what is wrong, without pydantic's phrases; returns the exit code."""
    for pattern, ours in _SENTENCES:
        error.message = re.sub(pattern, ours, error.message)
    if getattr(error, "param", True) is None:  # it isn't one value that is invalid
        error.format_message = lambda: error.message
    error.show()
    return int(error.exit_code)


def renamed(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments with the current name of each option; warns about former names."""
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
