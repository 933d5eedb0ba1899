"""Images that are being encoded or wait for it: how many, of whom, and whose turn is next.

For one asyncio event loop; never imports Triton, how an image is encoded is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from embedding_cache import ImageEmbedding
from fair_turns import FairTurns
from tenant_shares import ShareFullError, TenantShares

# x0, y0, x1, y1 in pixels of the upright image.
CropBox = tuple[int, int, int, int]
Encode = Callable[[bytes, CropBox | None], Awaitable[ImageEmbedding]]


class OverloadedError(RuntimeError):
    """More images wait to be encoded than the server takes on, from everybody or from this tenant."""


@dataclass(frozen=True)
class EncodeLimits:
    """How many images may be encoded at once, and how many images and bytes may be encoded or wait."""

    max_concurrent_encodes: int
    max_pending_encodes: int
    max_pending_image_bytes: int
    # What a tenant may have of what may be pending.
    tenant_percent: int = 100


class EncodeQueue:
    """One for all tenants, who have their turns one after another.

    Whoever takes a place waits for a turn, encodes, and gives the place back.
    """

    def __init__(self, encode: Encode, limits: EncodeLimits) -> None:
        self.encode = encode
        self._places = TenantShares(
            f"max_pending_encodes {limits.max_pending_encodes}",
            limits.max_pending_encodes,
            limits.tenant_percent,
        )
        self._bytes = TenantShares(
            f"max_pending_image_bytes {limits.max_pending_image_bytes}",
            limits.max_pending_image_bytes,
            limits.tenant_percent,
        )
        self._turns = FairTurns(limits.max_concurrent_encodes)

    def take_place(self, tenant: str, image_bytes: int) -> None:
        """A place for one image; raises OverloadedError where there is none."""
        try:
            self._places.check(tenant)
            self._bytes.check(tenant, image_bytes)
        except ShareFullError as error:
            raise OverloadedError(
                f"image: as many images wait to be encoded already as may ({error}); try again in a moment"
            ) from error
        self._places.take(tenant)
        self._bytes.take(tenant, image_bytes)

    def turn(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Waits for the encoder and holds it, for whoever has a place."""
        return self._turns.turn(tenant)

    def give_back(self, tenant: str, image_bytes: int) -> None:
        """The image is encoded, or will not be."""
        self._places.give_back(tenant)
        self._bytes.give_back(tenant, image_bytes)
