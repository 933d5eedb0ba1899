"""What an image id may be, and the id that every image has: the hash of its bytes."""

from __future__ import annotations

import asyncio
import hashlib

from embedding_cache import CONTENT_ID_PREFIX

# Hashing less than this takes well under a millisecond: not worth a thread.
HASH_INLINE_BYTES = 1 << 18


class InvalidRequestError(ValueError):
    """The request names no image, or names it wrongly."""


def check_id(image_id: str, max_image_id_bytes: int) -> None:
    """Raises InvalidRequestError for an id that is empty or too long."""
    length_bytes = len(image_id.encode())
    if not 1 <= length_bytes <= max_image_id_bytes:
        raise InvalidRequestError(
            f"image_id: expected 1 to {max_image_id_bytes} bytes (max_image_id_bytes), got"
            f" {length_bytes}"
        )


def check_content_id(image_id: str | None, content_id: str) -> None:
    """Raises InvalidRequestError for a content id of other bytes than those that came with it."""
    if image_id is not None and image_id.startswith(CONTENT_ID_PREFIX) and image_id != content_id:
        raise InvalidRequestError(
            f"image_id: expected {content_id}, which is what image hashes to, or a name without"
            f" {CONTENT_ID_PREFIX}, got {quoted(image_id)}"
        )


async def sha256(data: bytes) -> str:
    """The hash in hex."""
    if len(data) < HASH_INLINE_BYTES:
        return hashlib.sha256(data).hexdigest()
    # hashlib lets other threads run meanwhile, so cached clicks are answered.
    digest = await asyncio.get_running_loop().run_in_executor(None, hashlib.sha256, data)
    return digest.hexdigest()


def quoted(image_id: str) -> str:
    """An id, short enough for a message."""
    shown = image_id if len(image_id) <= 80 else image_id[:77] + "..."
    return repr(shown)
