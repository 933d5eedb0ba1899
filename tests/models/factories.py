"""Small embeddings for tests of the cache."""

import numpy as np
from embedding_cache import ImageEmbedding


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
