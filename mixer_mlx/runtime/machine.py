"""The cores and the memory that this process may use: in a container, fewer than the machine's."""

import functools
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return min(len(os.sched_getaffinity(0)), _quota() or sys.maxsize)


@functools.cache  # its files take longer to read than a small model to start a batch
def _quota() -> int | None:
    """The cores that control groups leave, if they limit them."""
    counts = []
    quotas = [text.split() for text in _values("", "cpu.max")]
    older = [_values("cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    for quota, period in (*quotas, *zip(*older, strict=True)):
        if quota.isdigit():  # neither "max" nor -1
            counts.append(max(1, math.ceil(int(quota) / int(period))))
    return min(counts, default=None)


def memory_bytes() -> int:
    """How much memory this process may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        limits += [int(text) for text in _values(controller, name) if text.isdigit()]
    return min(limits)


def _values(controller: str, name: str) -> Iterator[str]:
    """A file of this process's control group and of those above it; controller "": version 2.

    A container may show its own group as the root.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = _GROUPS / controller / path.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError):
                    yield (folder / name).read_text().strip()
