"""A script that reads one PyTorch file and writes its weights as .safetensors.

`torch_file` runs it in a process of its own, so that a hostile file meets PyTorch's weights-only
loader, a memory limit and a timeout, outside of the user's process. It imports nothing from this
package. Arguments: the file, and the .safetensors to write. The last line on stdout is a JSON
object: {"notes": [phrases]}, or {"fault": what is wrong, to follow the file's name}.
"""

import argparse
import importlib
import json
import re
import resource
import sys
from pathlib import Path
from typing import Any

STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training code puts the state dict, in timm's order; the first that exists is used."""

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""What counters and masks hold; the caller leaves them out."""

# By name, since the package is checked and built without PyTorch.
torch: Any = importlib.import_module("torch")
save_file: Any = importlib.import_module("safetensors.torch").save_file


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """What is wrong with the file, to follow the file's name in a sentence."""


def main(source: str, target: str) -> None:
    """Write the tensors of `source` as the .safetensors file `target`, and print an answer."""
    torch.set_num_threads(1)  # threads reserve address space
    _limit_memory(4 * Path(source).stat().st_size + 2**29)
    try:
        weights, notes = _state_dict(_load(source))
        _check(weights, most=2 * Path(source).stat().st_size)
        # Cloned, since views and tied tensors share memory, which .safetensors can't say.
        copies = {name: _plain(tensor) for name, tensor in weights.items()}
        _save(copies, target)
        answer: dict[str, object] = {"notes": notes}
    except Refused as refused:
        answer = {"fault": str(refused)[:1000]}
    except Exception as error:  # a broken file raises anything at all
        answer = {"fault": _explain(error)}
    sys.stdout.write("\n" + json.dumps(answer))


def _limit_memory(more: int) -> None:
    """Allow `more` bytes of addresses beyond those that PyTorch took to start."""
    taken = _taken()
    if taken is None:
        return
    if sys.platform == "darwin":
        more += 2**32  # its allocators reserve more than they use
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    finite = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([taken + more, *finite]), hard))


def _taken() -> int | None:
    """Bytes of addresses that this process has; None if the system doesn't show them."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[0]) * resource.getpagesize()
    return _least_limit() if sys.platform == "darwin" else None


def _least_limit() -> int | None:
    """The lowest limit that the system accepts, to 16 MiB; None if it accepts any, or none.

    macOS refuses a limit below what is mapped already, hundreds of GiB, and has no other way
    without a library to ask for that number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def accepted(limit: int) -> bool:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        except (OSError, ValueError):
            return False
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return True

    low, high = 2**24, 2**47 if hard == resource.RLIM_INFINITY else min(2**47, hard)
    if accepted(low) or not accepted(high):
        return None
    while high - low > 2**24:
        middle = (low + high) // 2
        low, high = (low, middle) if accepted(middle) else (middle, high)
    return high


def _load(source: str) -> object:
    """The content of the file, in memory.

    Not memory-mapped: then PyTorch doesn't compare the size of a tensor with its record's, and
    reads what lies behind it. An open file, since a path that ends in .safetensors is read as one.
    """
    with open(source, "rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _state_dict(content: object) -> tuple[dict[Any, Any], list[str]]:
    """Names -> tensors, and what was chosen."""
    if not isinstance(content, dict):
        raise Refused(f"holds a value of type {type(content).__name__} instead of a state dict")
    named = [key for key in STATE_DICTS if isinstance(content.get(key), dict)]
    if chosen := next((key for key in named if _is_state_dict(content[key])), None):
        others = " and ".join(key for key in named if key != chosen)
        return content[chosen], [f"weights of {chosen}, not of {others}"] if others else []
    if _is_state_dict(content):
        return content, []
    nested = _nested(content)
    if len(nested) > 1:
        raise Refused(
            f"holds several state dicts ({', '.join(nested)}); save the one to use in a file of "
            "its own"
        )
    for key, weights in nested.items():
        return weights, [f"weights of {key}, the only state dict in the file"]
    return content[named[0]] if named else content, []


def _nested(content: dict[Any, Any]) -> dict[str, dict[Any, Any]]:
    """The state dicts in a dictionary, or if it has none, in the dictionaries in it."""
    inner = {str(key): value for key, value in content.items() if isinstance(value, dict)}
    if found := {key: value for key, value in inner.items() if _is_state_dict(value)}:
        return found
    return {
        f"{outer}.{key}": value
        for outer, values in inner.items()
        for key, value in values.items()
        if _is_state_dict(value)
    }


def _is_state_dict(value: object) -> bool:
    """Whether it is a dictionary of named tensors; only scalars and vectors make no network."""
    return (
        isinstance(value, dict)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
        and any(tensor.ndim > 1 for tensor in value.values())
    )


def _check(weights: dict[Any, Any], most: int) -> None:
    """Refuse all but plain tensors of numbers that take at most `most` bytes together."""
    if not weights:
        raise Refused("holds no tensors")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise Refused(
                f"holds {name!r} of type {type(value).__name__} where a state dict has named "
                f"tensors; it must be the whole file, the only one in it, or be under "
                f"{', '.join(STATE_DICTS)}"
            )
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in (*FLOATS, *INTEGERS):
            raise Refused(f"can't be used: {name} holds {dtype}, not floating-point numbers")
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise Refused(f"can't be used: {name} isn't a dense tensor with values")
    # With strides of 0, a tensor of any shape is stored as a single number.
    if sum(value.nbytes for value in weights.values()) > most:
        raise Refused("can't be used: its tensors are larger than the file")


def _plain(tensor: Any) -> Any:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _save(tensors: dict[str, Any], target: str) -> None:
    try:
        save_file(tensors, target)
    except Exception as error:  # Rust's, for a full disk or names that aren't valid Unicode
        raise Refused(f"can't be written to {Path(target).parent} ({error})") from error


def _explain(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "needs more memory to be read than a file of its size should"
    # PyTorch takes "builtins." off the names.
    if found := re.search(r"GLOBAL (.+?) (?:was not an allowed|whose module)", text):
        return (
            f"holds {found[1][:300]}, which is code, and code in a file is never run; give a "
            "file that holds only a state dict (torch.save(model.state_dict(), ...))"
        )
    # The loader's own message stands between an introduction and a link to the manual.
    parts = text.split("\n\n")
    reason = parts[-2] if text.startswith("Weights only load failed") else parts[0]
    sentence = re.split(r"\n|\. ", reason.strip())[0].removesuffix(".")[:300]
    return f"isn't a readable PyTorch file: {sentence or type(error).__name__}"


if __name__ == "__main__":
    main(*sys.argv[1:])
