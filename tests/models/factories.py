"""Small embeddings for tests of the cache."""

from collections.abc import Callable

import numpy as np
from cache_budget import CacheBudget
from embedding_cache import CacheLimits, EmbeddingCache, ImageEmbedding
from encode_queue import EncodeLimits, EncodeQueue


def embedding(payload_bytes: int = 1000, fingerprint: int = 1, mark: int = 0) -> ImageEmbedding:
    """Embeddings of about this size, recognisable by `mark`."""
    empty = np.zeros((1, 0, 0, 0), np.float16)
    return ImageEmbedding(
        image_embed=np.full((1, 1, 1, payload_bytes // 2), mark, np.float16),
        high_res_feats_0=empty,
        high_res_feats_1=empty,
        encoder_fingerprint=np.array([[fingerprint]]),
        original_hw=np.array([1, 1], np.int32),
    )


def cache_of(
    budget_bytes: int,
    idle_seconds: float = 60,
    max_names: int = 10,
    now: Callable[[], float] = lambda: 0.0,
) -> EmbeddingCache:
    """The cache of the only tenant."""
    return EmbeddingCache(CacheLimits(idle_seconds, max_names), now, CacheBudget(budget_bytes))


def queue_of(
    encode, at_once: int = 10, pending: int = 10, pending_bytes: int = 1000
) -> EncodeQueue:
    """The way to an encoder."""
    return EncodeQueue(encode, EncodeLimits(at_once, pending, pending_bytes))
