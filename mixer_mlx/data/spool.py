"""Bytes that were decoded once, laid in a temporary file and read from there in any order.

The file has no name: it is gone with the process, however that ends. It lies in TMPDIR, else in
/var/tmp, which unlike /tmp is a disk everywhere.
"""

import os
import shutil
import tempfile
from threading import Lock

from mixer_mlx.errors import ConfigError
from mixer_mlx.images.archives import OpenFile


class Spool:
    """Takes pieces of bytes, and gives each back by its place. Safe in threads."""

    def __init__(self, expected_bytes: int = 0) -> None:
        """Raises ConfigError where there is no room for so many bytes, or no temporary file."""
        self.folder = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # a file without a name
        try:
            free = shutil.disk_usage(self.folder).free
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self._file = OpenFile(os.dup(file.fileno()))
        except OSError as error:
            raise self._error(str(error.strerror)) from error
        if free < expected_bytes:
            raise self._error(f"it takes {_gib(expected_bytes)}, and {_gib(free)} are free")
        self._end = 0
        self._lock = Lock()

    def add(self, data: bytes | memoryview) -> int:
        """Where the bytes begin from now on. Raises ConfigError when the disk is full."""
        with self._lock:
            place = self._end
            try:
                self._file.write(place, data)
            except OSError as error:
                raise self._error(str(error.strerror)) from error
            self._end += len(data)
        return place

    def read(self, place: int, size: int) -> bytes:
        """Raises OSError."""
        return self._file.read(place, size)

    def _error(self, why: str) -> ConfigError:
        return ConfigError(
            f"There is no room for the pictures in {self.folder} ({why}); set TMPDIR to a folder "
            "that has it."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
