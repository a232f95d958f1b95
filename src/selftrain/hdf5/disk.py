"""A disk that may be full while HDF5 writes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class Disk(io.FileIO):
    """A file that HDF5 writes to, which never fails in its sight.

    HDF5 (2.0) does not survive a disk that is full: it brings the process down as it closes what it could not write. So
    the first error is kept, and so is, in memory, what is written from then on, which HDF5 may read again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the error that was kept, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        """Write all of the content."""
        place, left = self.tell(), memoryview(content)
        try:
            while len(left) and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._kept.append((place, bytes(content)))
            self.seek(place + len(content))
        return len(content)

    def readinto(self, content: Any) -> int:
        """Read back what was written."""
        place, read = self.tell(), super().readinto(content)
        if self.error is None:
            return read
        whole = bytearray(memoryview(content)[:read]) + bytes(len(content) - read)
        for start, piece in self._kept:
            first, last = max(place, start), min(place + len(whole), start + len(piece))
            whole[max(0, first - place) : max(0, last - place)] = piece[first - start : max(first, last) - start]
        memoryview(content)[:] = whole
        self.seek(place + len(whole))
        return len(whole)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0
