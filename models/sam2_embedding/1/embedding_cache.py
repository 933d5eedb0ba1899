"""What the server remembers of a tenant's images: embeddings by content, and ids as names for them.

Pure bookkeeping for one thread: no Triton, no clock of its own, no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from cache_budget import CacheBudget
from tenant_shares import NO_TENANT

CONTENT_ID_PREFIX = "sha256:"


@dataclass(frozen=True)
class ImageEmbedding:
    """One image's embeddings, the weights they come from, and the size they are for.

    Shapes: image_embed float16 [1, C, S/16, S/16]; high_res_feats_0 float16 [1, C/8, S/4, S/4];
    high_res_feats_1 float16 [1, C/4, S/8, S/8]; encoder_fingerprint int64 [1, 1]; original_hw int32 [2].
    """

    image_embed: npt.NDArray[np.float16]
    high_res_feats_0: npt.NDArray[np.float16]
    high_res_feats_1: npt.NDArray[np.float16]
    encoder_fingerprint: npt.NDArray[np.int64]
    original_hw: npt.NDArray[np.int32]

    @property
    def fingerprint(self) -> int:
        return int(self.encoder_fingerprint.flat[0])

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())


@dataclass(frozen=True)
class CacheLimits:
    """How long an image is kept that nobody asks for, and how many ids it may have."""

    idle_seconds: float
    max_names_per_image: int


@dataclass
class CacheCounts:
    """What left the cache so far, by reason; rejected counts embeddings that had no room at all."""

    evictions: int = 0
    expirations: int = 0
    rejected: int = 0
    forgotten: int = 0
    retired: int = 0


@dataclass
class _Entry:
    embedding: ImageEmbedding
    last_used: float
    image: str | None = None  # whose crop it is
    crops: set[str] = field(default_factory=set)
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)


class EmbeddingCache:
    """Embeddings keyed by the sha256 of the image file, least recently used first out.

    `digest` is that hash in hex. A name belongs to one image at a time; naming another image with it moves
    it. Every image is also reachable as `sha256:<digest>`, which no other image can take.

    A crop of an image is an entry of its own that goes when the image does; asking for it is asking for the
    image.

    Each tenant has a cache of its own, which knows of no other. What they share is the budget: another
    tenant's images may push out this one's (see CacheBudget).
    """

    def __init__(
        self,
        limits: CacheLimits,
        now: Callable[[], float],
        budget: CacheBudget,
        tenant: str = NO_TENANT,
    ) -> None:
        self._limits = limits
        self._now = now
        self._budget = budget
        self.tenant = tenant
        budget.join(self)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._digest_of_name: dict[str, str] = {}
        self._bytes = 0
        self.counts = CacheCounts()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def names(self) -> int:
        return len(self._digest_of_name)

    def get(self, digest: str) -> ImageEmbedding | None:
        """The embeddings of this image, now the most recently used; None where they are not kept."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if self._is_idle(entry):
            self._drop(digest)
            self.counts.expirations += 1
            return None
        self._touch(digest)
        if entry.image is not None:
            self._touch(entry.image)
        return entry.embedding

    def put(self, digest: str, embedding: ImageEmbedding, crop_of: str | None = None) -> bool:
        """Keeps an image, at the cost of less recently used ones; False where the budget has no room for it.

        An image that is there already is replaced and keeps its names and crops. A crop (`crop_of` an
        image, which `digest` then is no hash of) is kept as long as its image is: False where that is not,
        or would have to go.
        """
        if not self._budget.may_hold(self, embedding.size_bytes):
            self.counts.rejected += 1
            return False
        if crop_of is not None:
            if crop_of not in self._entries:
                return False
            self._touch(crop_of)
        previous = self._entries.pop(digest, None)
        entry = _Entry(embedding, self._now(), crop_of)
        if previous is not None:
            self._bytes -= previous.embedding.size_bytes
            entry.names, entry.crops = previous.names, previous.crops
        has_room = self._budget.make_room(self, embedding.size_bytes)
        if not has_room or (crop_of is not None and crop_of not in self._entries):
            self.counts.rejected += 1
            if previous is not None:
                self._let_go(digest, previous)
            return False
        if crop_of is not None:
            self._entries[crop_of].crops.add(digest)
        self._entries[digest] = entry
        self._bytes += embedding.size_bytes
        return True

    def name(self, name: str, digest: str) -> None:
        """Makes `name` stand for an image that is kept, taking it from any other; else does nothing.

        Beyond the cap on names per image, the name given longest ago goes.
        """
        entry = self._entries.get(digest)
        if entry is None:
            return
        if name == CONTENT_ID_PREFIX + digest:
            return
        holder = self._entries.get(self._digest_of_name.get(name, ""))
        if holder is not None:
            del holder.names[name]
        entry.names[name] = None
        self._digest_of_name[name] = digest
        if len(entry.names) > self._limits.max_names_per_image:
            oldest, _ = entry.names.popitem(last=False)
            del self._digest_of_name[oldest]

    def unname(self, name: str) -> None:
        """Takes a name from the image that has it, if any has."""
        digest = self._digest_of_name.pop(name, None)
        if digest is not None:
            del self._entries[digest].names[name]

    def resolve(self, image_id: str) -> str | None:
        """The digest that an id stands for; None where no kept image has that id."""
        if image_id.startswith(CONTENT_ID_PREFIX):
            digest = image_id[len(CONTENT_ID_PREFIX) :]
            entry = self._entries.get(digest)
            return None if entry is None or entry.image is not None else digest
        return self._digest_of_name.get(image_id)

    def evict_oldest(self) -> bool:
        """Drops the least recently used image, to make room; False where there is none."""
        if not self._entries:
            return False
        self._drop(next(iter(self._entries)))
        self.counts.evictions += 1
        return True

    def forget(self, digest: str) -> bool:
        """Drops an image and all of its names; False where it was not kept."""
        if digest not in self._entries:
            return False
        self._drop(digest)
        self.counts.forgotten += 1
        return True

    def expire(self) -> None:
        """Drops every image that nobody asked for within the idle time."""
        # In order of last use, so the first one that is young enough ends the walk.
        for digest in list(self._entries):
            if digest not in self._entries:  # a crop that went with its image
                continue
            if not self._is_idle(self._entries[digest]):
                return
            self._drop(digest)
            self.counts.expirations += 1

    def retire(self, fingerprint: int) -> int:
        """Drops every image that the weights of this fingerprint encoded; returns how many."""
        retired = [
            digest
            for digest, entry in self._entries.items()
            if entry.embedding.fingerprint == fingerprint
        ]
        for digest in retired:
            self._drop(digest)
        self.counts.retired += len(retired)
        return len(retired)

    def any_of(self, fingerprint: int) -> ImageEmbedding | None:
        """Some embedding by the weights of this fingerprint; it is not younger for that."""
        kept = (entry.embedding for entry in self._entries.values())
        return next((one for one in kept if one.fingerprint == fingerprint), None)

    def _is_idle(self, entry: _Entry) -> bool:
        return self._now() - entry.last_used > self._limits.idle_seconds

    def _touch(self, digest: str) -> None:
        self._entries[digest].last_used = self._now()
        self._entries.move_to_end(digest)

    def _drop(self, digest: str) -> None:
        """Drops an image with its crops and names; nothing where it is gone already."""
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self._bytes -= entry.embedding.size_bytes
        self._let_go(digest, entry)

    def _let_go(self, digest: str, entry: _Entry) -> None:
        """Of an entry that was taken out: its crops, its names, its place under its image."""
        for crop in entry.crops:
            self._drop(crop)
        holder = self._entries.get(entry.image or "")
        if holder is not None:
            holder.crops.discard(digest)
        for name in entry.names:
            del self._digest_of_name[name]
