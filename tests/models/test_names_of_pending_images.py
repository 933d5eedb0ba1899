"""Which image a name stands for while encodes are under way, succeed, fail and are forgotten: against a log
of who came under the name, in which a broken image's line is struck out."""

import asyncio

import pytest
from embedding_cache import CONTENT_ID_PREFIX
from embedding_service import EmbeddingService, ImageNotFoundError, ServiceLimits
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pending_names import PendingNames

from tests.models.factories import cache_of, embedding, queue_of

IMAGES = [b"image %d" % n for n in range(4)]
NAMES = ["photo", "page-1"]
FORGOTTEN = b""
TICKS = 5


def test_a_name_falls_back_when_the_latest_claim_fails():
    pending = PendingNames()
    for digest in ("a", "b", "c", "b"):
        pending.claim("photo", digest)
    assert pending.latest("photo") == "b"
    pending.failed("b")
    assert pending.latest("photo") == "c"
    pending.failed("a")
    assert pending.granted("c") == ["photo"]
    assert pending.latest("photo") is None
    assert not len(pending)


def test_a_sound_image_voids_earlier_claims_and_leaves_later_ones():
    pending = PendingNames()
    for digest in ("a", "b", "c"):
        pending.claim("photo", digest)
    assert pending.granted("b") == ["photo"]
    assert pending.granted("a") == []
    assert pending.latest("photo") == "c"


class NamesAgainstALog(RuleBasedStateMachine):
    """The service with an encoder that ends when told; the log knows neither flights nor a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.under_way: dict[bytes, asyncio.Future] = {}
        self.log: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.asked: list[tuple[asyncio.Task, bytes]] = []
        self.sent: list[asyncio.Task] = []
        limits = ServiceLimits(1 << 20, 80)
        self.service = EmbeddingService(cache_of(100_000), queue_of(self.encode), limits)

    async def encode(self, image, crop_box=None):
        self.under_way[image] = self.loop.create_future()
        return await self.under_way[image]

    def start(self, coroutine) -> asyncio.Task:
        task = self.loop.create_task(coroutine)
        self.tick()
        return task

    def tick(self) -> None:
        for _ in range(TICKS):
            self.loop.run_until_complete(asyncio.sleep(0))

    def stands_for(self, name) -> bytes | None:
        return (self.log[name][-1] or None) if self.log[name] else None

    @rule(image=st.sampled_from(IMAGES), name=st.sampled_from(NAMES))
    def send(self, image, name):
        self.sent.append(self.start(self.service.find(image, name)))
        self.log[name].append(image)

    @rule(image=st.sampled_from(IMAGES), sound=st.booleans())
    def end_encode(self, image, sound):
        waiting = self.under_way.pop(image, None)
        if waiting is None:
            return
        if sound:
            waiting.set_result(embedding(mark=IMAGES.index(image)))
        else:
            waiting.set_exception(ValueError("image: broken"))
            for name in NAMES:
                self.log[name] = [line for line in self.log[name] if line != image]
        self.tick()
        for task in [task for task, asked in self.asked if asked == image]:
            assert task.done()
            assert (task.exception() is None) == sound
            assert not sound or task.result().embedding.image_embed.flat[0] == IMAGES.index(image)
        self.asked = [(task, asked) for task, asked in self.asked if asked != image]

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name):
        image = self.stands_for(name)
        if image is None:
            with pytest.raises(ImageNotFoundError):
                self.service.forget(name)
            return
        self.service.forget(name)
        for other in NAMES:
            self.log[other] = [FORGOTTEN if line == image else line for line in self.log[other]]

    @invariant()
    def a_name_stands_for_what_the_log_says(self):
        for name in NAMES:
            image = self.stands_for(name)
            task = self.start(self.service.find(None, name))
            if image in self.under_way:
                assert not task.done()
                self.asked.append((task, image))
            elif image is None:
                assert isinstance(task.exception(), ImageNotFoundError)
            else:
                assert task.result().embedding.image_embed.flat[0] == IMAGES.index(image)

    def teardown(self):
        for waiting in self.under_way.values():
            waiting.set_result(embedding())
        self.tick()
        for task in [*self.sent, *(task for task, _ in self.asked)]:
            assert task.done()
            task.exception()
        assert self.service.pending_encodes == 0
        self.loop.close()


NamesAgainstALog.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestNamesAgainstALog = NamesAgainstALog.TestCase


def test_a_content_id_is_found_whatever_becomes_of_a_name():
    """As the report had it: A is being encoded as page-1, B is broken and comes under the same name."""

    async def scenario():
        gates = {image: asyncio.get_running_loop().create_future() for image in IMAGES[:2]}

        async def encode(image, crop_box):
            return await gates[image]

        limits = ServiceLimits(1 << 20, 80)
        service = EmbeddingService(cache_of(100_000), queue_of(encode), limits)
        sound = asyncio.create_task(service.find(IMAGES[0], "page-1"))
        broken = asyncio.create_task(service.find(IMAGES[1], "page-1"))
        while service.pending_encodes < 2:
            await asyncio.sleep(0)
        gates[IMAGES[1]].set_exception(ValueError("image: broken"))
        with pytest.raises(ValueError, match="broken"):
            await broken
        gates[IMAGES[0]].set_result(embedding(mark=7))
        answered = await sound
        assert answered.image_id == "page-1"
        again = await service.find(None, answered.image_id)
        assert again.embedding is answered.embedding
        content = (await service.find(IMAGES[0], None)).image_id
        assert content.startswith(CONTENT_ID_PREFIX)

    asyncio.run(asyncio.wait_for(scenario(), 10))
