"""What a container's limits leave of a machine, by files as Linux shows them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixer_mlx.runtime import machine

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="control groups are Linux's")
GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty /sys/fs/cgroup, on a machine of 64 cores and 256 GiB."""
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**26, "SC_PAGE_SIZE": 2**12}.get)
    machine._quota.cache_clear()
    yield tmp_path
    machine._quota.cache_clear()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        ({}, 64, 256),
        ({"own": "0::/"}, 64, 256),
        ({"own": "0::/", "cpu.max": "max 100000", "memory.max": "max"}, 64, 256),
        ({"own": "0::/", "cpu.max": "250000 100000", "memory.max": str(GIB)}, 3, 1),
        # a group inside another, whose limit is lower
        ({"own": "0::/a/b", "a/memory.max": str(2 * GIB), "a/b/memory.max": str(4 * GIB)}, 64, 2),
        # the path is the host's, and what the container sees is its own group
        ({"own": "0::/docker/1f", "cpu.max": "50000 100000", "memory.max": str(GIB)}, 1, 1),
        # version 1
        (
            {
                "own": "5:memory:/box\n3:cpu,cpuacct:/\n1:name=systemd:/",
                "memory/box/memory.limit_in_bytes": str(3 * GIB),
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu/cpu.cfs_quota_us": "400000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            4,
            3,
        ),
        (
            {"own": "3:cpu:/", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            64,
            256,
        ),
    ],
)
def test_limits(groups: Path, files: dict[str, str], cores: int, gib: int) -> None:
    write(groups, files)
    assert machine.cores() == cores
    assert machine.memory_bytes() == gib * GIB
