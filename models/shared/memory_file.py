"""Memory without a name (memfd) that two processes share: bytes go over without a copy through a pipe."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


class MemoryFile:
    """A memfd; `fd` is what a child process inherits under the same number."""

    def __init__(self, name: str, fd: int | None = None) -> None:
        self._fd: int | None = os.memfd_create(name) if fd is None else fd

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise RuntimeError("this memory was given back")
        return self._fd

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        """Has these bytes replace what was there. Raises OSError where the machine has no room."""
        os.ftruncate(self.fd, len(data))
        if data:
            with mmap.mmap(self.fd, len(data)) as memory:
                memory[:] = data

    def read(self) -> bytes:
        size = self.size_bytes
        if not size:
            return b""
        with mmap.mmap(self.fd, size, prot=mmap.PROT_READ) as memory:
            return memory[:]

    def read_array(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        return np.frombuffer(self.read(), np.dtype(dtype)).reshape(shape)

    def open(self) -> BinaryIO:
        """A file over it with a position of its own, which the other process's do not move."""
        return Path(f"/proc/self/fd/{self.fd}").open("rb", buffering=0)

    def empty(self) -> None:
        """Nothing of a client's stays behind, and the memory returns."""
        os.ftruncate(self.fd, 0)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
