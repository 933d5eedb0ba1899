"""The cache against a naive model that keeps everything in lists and recomputes what must be there."""

import itertools

import numpy as np
from embedding_cache import CONTENT_ID_PREFIX, EmbeddingCache, ImageEmbedding
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.models.factories import cache_of, embedding

DIGESTS = [f"{n:064x}" for n in range(6)]
NAMES = ["a", "b", "c", "d"]
BUDGET = 3000
IDLE_SECONDS = 10
MAX_NAMES = 2


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class CacheAgainstNaiveModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = cache_of(BUDGET, IDLE_SECONDS, MAX_NAMES, self.clock)
        self.kept: list[dict] = []  # least recently used first
        self.marks = itertools.count(1)

    def find(self, digest):
        return next((image for image in self.kept if image["digest"] == digest), None)

    def use(self, image):
        image["used"] = self.clock.seconds
        self.kept.remove(image)
        self.kept.append(image)

    @rule(digest=st.sampled_from(DIGESTS), size=st.integers(0, 4000), weights=st.integers(1, 2))
    def put(self, digest, size, weights):
        value = embedding(size, weights, next(self.marks) % 2000)
        kept = self.cache.put(digest, value)
        assert kept == (value.size_bytes <= BUDGET)
        if not kept:
            return
        old = self.find(digest)
        names = old["names"] if old else []
        self.kept = [image for image in self.kept if image["digest"] != digest]
        while sum(i["value"].size_bytes for i in self.kept) + value.size_bytes > BUDGET:
            self.kept.pop(0)
        self.kept.append(
            {"digest": digest, "value": value, "names": names, "used": self.clock.seconds}
        )

    @rule(digest=st.sampled_from(DIGESTS))
    def get(self, digest):
        expected = self.find(digest)
        if expected and self.clock.seconds - expected["used"] > IDLE_SECONDS:
            self.kept.remove(expected)
            expected = None
        found = self.cache.get(digest)
        assert found is (expected["value"] if expected else None)
        if expected:
            self.use(expected)

    @rule(name=st.sampled_from(NAMES), digest=st.sampled_from(DIGESTS))
    def name(self, name, digest):
        self.cache.name(name, digest)
        target = self.find(digest)
        if target is None:
            return
        for image in self.kept:
            if name in image["names"]:
                image["names"].remove(name)
        target["names"] = [*target["names"], name][-MAX_NAMES:]

    @rule(name=st.sampled_from(NAMES))
    def unname(self, name):
        self.cache.unname(name)
        for image in self.kept:
            image["names"] = [kept for kept in image["names"] if kept != name]

    @rule(digest=st.sampled_from(DIGESTS))
    def forget(self, digest):
        assert self.cache.forget(digest) == (self.find(digest) is not None)
        self.kept = [image for image in self.kept if image["digest"] != digest]

    @rule(seconds=st.floats(0.1, 6))
    def wait(self, seconds):
        self.clock.seconds += seconds

    @rule()
    def expire(self):
        self.cache.expire()
        now = self.clock.seconds
        self.kept = [image for image in self.kept if now - image["used"] <= IDLE_SECONDS]

    @rule(weights=st.integers(1, 2))
    def retire(self, weights):
        self.cache.retire(weights)
        self.kept = [image for image in self.kept if image["value"].fingerprint != weights]

    @invariant()
    def within_budget_and_counted_right(self):
        assert self.cache.size_bytes <= BUDGET
        assert self.cache.size_bytes == sum(i["value"].size_bytes for i in self.kept)
        assert len(self.cache) == len(self.kept)
        assert self.cache.names == sum(len(image["names"]) for image in self.kept)

    @invariant()
    def every_name_stands_for_its_own_image(self):
        for name in NAMES:
            holder = next((i["digest"] for i in self.kept if name in i["names"]), None)
            assert self.cache.resolve(name) == holder
        for digest in DIGESTS:
            expected = digest if self.find(digest) else None
            assert self.cache.resolve(CONTENT_ID_PREFIX + digest) == expected


CacheAgainstNaiveModel.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
TestCacheAgainstNaiveModel = CacheAgainstNaiveModel.TestCase


def cache_and_clock(budget: int = BUDGET) -> tuple[EmbeddingCache, Clock]:
    clock = Clock()
    return cache_of(budget, IDLE_SECONDS, MAX_NAMES, clock), clock


def test_the_least_recently_used_image_goes_first():
    cache, _ = cache_and_clock()
    for digest in DIGESTS[:2]:
        cache.put(digest, embedding())
    cache.get(DIGESTS[0])
    cache.put(DIGESTS[2], embedding())
    assert [digest in cache for digest in DIGESTS[:3]] == [True, False, True]
    assert cache.counts.evictions == 1


def test_an_image_larger_than_the_budget_is_counted_and_not_kept():
    cache, _ = cache_and_clock(budget=100)
    assert not cache.put(DIGESTS[0], embedding())
    assert (len(cache), cache.counts.rejected) == (0, 1)


def test_an_idle_image_is_gone_even_before_the_next_sweep():
    cache, clock = cache_and_clock()
    cache.put(DIGESTS[0], embedding())
    clock.seconds = IDLE_SECONDS + 0.1
    assert cache.get(DIGESTS[0]) is None
    assert cache.counts.expirations == 1


def test_a_1024_px_image_takes_at_most_8_5_megabytes():
    full = ImageEmbedding(
        image_embed=np.zeros((1, 256, 64, 64), np.float16),
        high_res_feats_0=np.zeros((1, 32, 256, 256), np.float16),
        high_res_feats_1=np.zeros((1, 64, 128, 128), np.float16),
        encoder_fingerprint=np.zeros((1, 1), np.int64),
        original_hw=np.zeros(2, np.int32),
    )
    assert full.size_bytes <= 8_500_000


def cache_for(images: int, clock: Clock | None = None) -> EmbeddingCache:
    """Room for so many embeddings of embedding()'s size."""
    budget = images * embedding().size_bytes
    return cache_of(budget, IDLE_SECONDS, MAX_NAMES, clock or Clock())


def test_a_crop_goes_when_its_image_goes():
    for leave in (
        lambda cache: cache.forget("a"),
        lambda cache: cache.retire(1),
        lambda cache: [cache.put(name, embedding()) for name in ("b", "c", "d")],
    ):
        cache = cache_for(3)
        cache.put("a", embedding())
        assert cache.put("a/1", embedding(), crop_of="a")
        leave(cache)
        assert "a" not in cache
        assert "a/1" not in cache
        assert cache.size_bytes == len(cache) * embedding().size_bytes


def test_a_crop_alone_leaves_its_image():
    cache = cache_for(2)
    cache.put("a", embedding())
    cache.put("a/1", embedding(), crop_of="a")
    assert cache.get("a") is not None  # the crop is now the least recently used
    cache.put("a/2", embedding(), crop_of="a")
    assert ("a" in cache, "a/1" in cache, "a/2" in cache) == (True, False, True)
    cache.forget("a")
    assert len(cache) == cache.size_bytes == 0


def test_asking_for_a_crop_keeps_its_image_young():
    clock = Clock()
    cache = cache_for(3, clock)
    for digest in ("a", "b"):
        cache.put(digest, embedding())
    cache.put("a/1", embedding(), crop_of="a")
    clock.seconds = IDLE_SECONDS
    assert cache.get("a/1") is not None
    clock.seconds += 1
    cache.expire()
    assert ("a" in cache, "a/1" in cache, "b" in cache) == (True, True, False)
    clock.seconds += IDLE_SECONDS + 1
    cache.expire()
    assert len(cache) == cache.size_bytes == 0


def test_a_crop_without_its_image_is_not_kept():
    cache = cache_for(1)
    assert not cache.put("a/1", embedding(), crop_of="a")
    cache.put("a", embedding())
    assert not cache.put("a/1", embedding(), crop_of="a")  # either, not both
    assert cache.size_bytes == len(cache) * embedding().size_bytes


def test_an_image_that_is_put_again_keeps_its_crops_in_hand():
    cache = cache_for(3)
    cache.put("a", embedding())
    cache.put("a/1", embedding(), crop_of="a")
    cache.put("a", embedding(mark=1))
    cache.forget("a")
    assert len(cache) == 0
