"""Finds an image's embeddings: in the cache, in an encode that is under way, or by encoding it now.

Runs on one asyncio event loop and never imports Triton.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from embedding_cache import CONTENT_ID_PREFIX, EmbeddingCache, ImageEmbedding
from encode_queue import CropBox, EncodeQueue, OverloadedError
from image_ids import InvalidRequestError, check_content_id, check_id, quoted, sha256
from pending_names import PendingNames


class ImageNotFoundError(LookupError):
    """No image of that id is kept, and the request brought no bytes to encode."""


@dataclass(frozen=True)
class ServiceLimits:
    """Longest image file and image id, in bytes."""

    max_image_bytes: int
    max_image_id_bytes: int


@dataclass
class ServiceCounts:
    """Requests so far: hits came from the cache, misses waited for an encode, joined ones for another's."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    unknown_ids: int = 0
    overloaded: int = 0
    encodes: int = 0
    failed_encodes: int = 0


@dataclass(frozen=True)
class Found:
    """An image's embeddings and the id to call it by."""

    embedding: ImageEmbedding
    image_id: str


@dataclass
class _Flight:
    """An encode that is under way, shared by all who ask for the same bytes."""

    task: asyncio.Task[ImageEmbedding]
    image: str  # the digest, also where a crop of it is encoded
    keep: bool = True


class EmbeddingService:
    """The four cases of an image and its id, and single flight per image; for one tenant.

    Another tenant has another service and another cache: of each other's images they learn nothing, not even
    by how long an answer takes. What they share is the queue before the encoder, and the budget.

    An encode belongs to nobody: a caller that is cancelled leaves it running, and its result ends in the
    cache. A name is given to an image once its encode has succeeded, so that a broken file never takes an
    id from a good image, encoded or not; until then requests by that name wait for the newest image.
    """

    def __init__(
        self,
        cache: EmbeddingCache,
        queue: EncodeQueue,
        limits: ServiceLimits,
    ) -> None:
        self.cache = cache
        self._queue = queue
        self._limits = limits
        self._flights: dict[str, _Flight] = {}
        self._pending_names = PendingNames()
        self.counts = ServiceCounts()

    @property
    def pending_encodes(self) -> int:
        return len(self._flights)

    async def find(
        self, image: bytes | None, image_id: str | None, crop_box: CropBox | None = None
    ) -> Found:
        """Embeddings for image bytes, for an id, or for both (then the id becomes that image's name).

        With a crop box those of that part, which is kept under the image, if that is kept; names nothing.

        Raises:
            InvalidRequestError: neither was given, too large an image, an unusable id, or a content id of
                other bytes.
            ImageNotFoundError: an id alone that stands for nothing.
            OverloadedError: the image needs an encode and too many are pending, in all or of this tenant's.
        """
        if image_id is not None:
            check_id(image_id, self._limits.max_image_id_bytes)
        # Before it is hashed and copied: sam2_preprocess, which has the same limit, comes after both.
        if image is not None and len(image) > self._limits.max_image_bytes:
            raise InvalidRequestError(
                f"image: expected at most {self._limits.max_image_bytes} bytes (max_image_bytes), got"
                f" {len(image)}"
            )
        if crop_box is not None and (image is not None or image_id is not None):
            return await self._find_crop(image, image_id, crop_box)
        if image is not None:
            return await self._find_by_content(image, image_id)
        if image_id is not None:
            return await self._find_by_id(image_id)
        raise InvalidRequestError("expected image, image_id or both, got neither")

    def forget(self, image_id: str) -> None:
        """Drops the image that an id stands for, and with it its other ids.

        Raises:
            InvalidRequestError: an unusable id.
            ImageNotFoundError: the id stands for nothing.
        """
        check_id(image_id, self._limits.max_image_id_bytes)
        digest = self._resolve(image_id)
        if digest is None:
            raise ImageNotFoundError(f"image_id: nothing is kept under {quoted(image_id)}")
        self.cache.forget(digest)
        for flight in self._flights.values():
            if flight.image == digest:
                flight.keep = False
        # Nor do its names fall back to images that it would have taken them from.
        for name in self._pending_names.granted(digest):
            self.cache.unname(name)

    async def _find_by_content(self, image: bytes, image_id: str | None) -> Found:
        digest = await sha256(image)
        content_id = CONTENT_ID_PREFIX + digest
        check_content_id(image_id, content_id)
        embedding = self.cache.get(digest)
        if embedding is not None:
            self.counts.hits += 1
            if image_id is not None:
                # This image came under the name later than any that is still being encoded.
                self._pending_names.settle(image_id)
                self.cache.name(image_id, digest)
            return Found(embedding, image_id or content_id)
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._take_off(digest, image, digest, None)
        else:
            flight.keep = True
            self.counts.joined += 1
        self.counts.misses += 1
        if image_id is not None and image_id != content_id:
            self._pending_names.claim(image_id, digest)
        # The shield keeps one caller's cancellation from taking the encode away from the others.
        return Found(await asyncio.shield(flight.task), image_id or content_id)

    async def _find_by_id(self, image_id: str) -> Found:
        digest = self._resolve(image_id)
        if digest is not None:
            embedding = self.cache.get(digest)
            if embedding is not None:
                self.counts.hits += 1
                return Found(embedding, image_id)
            flight = self._flights.get(digest)
            if flight is not None:
                self.counts.misses += 1
                self.counts.joined += 1
                return Found(await asyncio.shield(flight.task), image_id)
        self.counts.unknown_ids += 1
        raise ImageNotFoundError(
            f"image_id: no image is kept under {quoted(image_id)} (never sent, evicted, or the server"
            " restarted); send the image again"
        )

    async def _find_crop(
        self, image: bytes | None, image_id: str | None, crop_box: CropBox
    ) -> Found:
        if image is not None:
            digest = await sha256(image)
            check_content_id(image_id, CONTENT_ID_PREFIX + digest)
        else:
            digest = self._resolve(image_id or "") or ""
        name = image_id or CONTENT_ID_PREFIX + digest
        key = f"{digest}/{','.join(map(str, crop_box))}"
        embedding = self.cache.get(key)
        if embedding is not None:
            self.counts.hits += 1
            return Found(embedding, name)
        flight = self._flights.get(key)
        if flight is not None:
            self.counts.joined += 1
        elif image is not None:
            flight = self._take_off(key, image, digest, crop_box)
        else:
            self.counts.unknown_ids += 1
            raise ImageNotFoundError(
                f"image_id: this part of {quoted(name)} is not kept, and the server keeps no image files"
                " to make it from; send the image again"
            )
        self.counts.misses += 1
        return Found(await asyncio.shield(flight.task), name)

    def _resolve(self, image_id: str) -> str | None:
        pending = self._pending_names.latest(image_id)
        if pending is not None:
            return pending
        kept = self.cache.resolve(image_id)
        if kept is None and image_id.startswith(CONTENT_ID_PREFIX):
            digest = image_id[len(CONTENT_ID_PREFIX) :]
            flight = self._flights.get(digest)
            return None if flight is None or flight.image != digest else digest
        return kept

    def _take_off(self, key: str, image: bytes, digest: str, crop_box: CropBox | None) -> _Flight:
        try:
            self._queue.take_place(self.cache.tenant, len(image))
        except OverloadedError:
            self.counts.overloaded += 1
            raise
        task = asyncio.get_running_loop().create_task(self._fly(key, image, digest, crop_box))
        # An encode whose last caller left may fail unheard; its outcome is counted where it happens.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        flight = self._flights[key] = _Flight(task, digest)
        return flight

    async def _fly(
        self, key: str, image: bytes, digest: str, crop_box: CropBox | None
    ) -> ImageEmbedding:
        is_whole = key == digest
        try:
            async with self._queue.turn(self.cache.tenant):
                self.counts.encodes += 1
                embedding = await self._queue.encode(image, crop_box)
        except BaseException:
            self.counts.failed_encodes += 1
            if is_whole:
                self._pending_names.failed(digest)
            del self._flights[key]
            raise
        finally:
            self._queue.give_back(self.cache.tenant, len(image))
        flight = self._flights.pop(key)
        if not is_whole:
            if flight.keep:
                self.cache.put(key, embedding, crop_of=digest)
            return embedding
        names = self._pending_names.granted(digest)
        kept = flight.keep and self.cache.put(digest, embedding)
        for name in names:
            if kept:
                self.cache.name(name, digest)
            else:
                self.cache.unname(name)
        return embedding
