"""Whether an answer fits into shared memory, asked before it is sent.

Triton's Python backend puts an answer there as it sends it. Where that fails, the response sender takes no
other answer in its place and the client would wait for ever; and the error names the region.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

SHARED_MEMORY_DIR = "/dev/shm"  # noqa: S108 - where POSIX shared memory lives on Linux
# Set by the launcher: what a region grows by at least. Else the launcher's own default.
GROWTH_VARIABLE = "SAM2_SHM_GROWTH_BYTES"
DEFAULT_GROWTH_BYTES = 64 << 20
# Names, shapes and the allocator's own book-keeping, beside the tensors' bytes.
OVERHEAD_BYTES = 1 << 16


class NoSharedMemoryError(RuntimeError):
    """The answer has no room; the message says what to do instead."""


def bytes_of(arrays: Iterable[Any]) -> int:
    """What arrays take in shared memory; elements of BYTES tensors have their length in front."""
    return sum(
        sum(len(element) + 4 for element in array.flat) if array.dtype.hasobject else array.nbytes
        for array in arrays
    )


def fits(needed_bytes: int, region_free: int, growth_bytes: int, directory_free: int) -> bool:
    """Whether there is room in the region, or for what the region would grow by."""
    return needed_bytes <= region_free or max(needed_bytes, growth_bytes) <= directory_free


def check_room(arrays: Iterable[Any]) -> None:
    """Raises NoSharedMemoryError where an answer of these tensors would not fit."""
    from c_python_backend_utils import shared_memory  # noqa: PLC0415 - there in a stub's process alone

    free = os.statvfs(SHARED_MEMORY_DIR)
    if not fits(
        bytes_of(arrays) + OVERHEAD_BYTES,
        shared_memory.free_memory(),
        int(os.environ.get(GROWTH_VARIABLE, DEFAULT_GROWTH_BYTES)),
        free.f_bavail * free.f_frsize,
    ):
        raise NoSharedMemoryError(
            "the server has no shared memory left for an answer of this size; ask for rle or png, or for"
            " fewer objects at a time, or try again in a moment"
        )
