"""Two tenants beside each other: whatever one does, the other one's images, ids, counts and answers are what
they would be without it; and nobody takes more than a share from anybody."""

import asyncio
import hashlib
import itertools
from collections import Counter

import pytest
from cache_budget import CacheBudget
from embedding_cache import CONTENT_ID_PREFIX, CacheLimits, EmbeddingCache
from embedding_service import ImageNotFoundError, ServiceLimits
from encode_queue import EncodeLimits, OverloadedError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tenants import TenantLimits, Tenants, TooManyTenantsError

from tests.models.factories import embedding

TENANTS = ["alice", "bob"]
# Both send the same pictures under the same names.
IMAGES = [b"image %d" % n for n in range(4)]
NAMES = ["page-1", "photo"]
IDS = [*NAMES, *(CONTENT_ID_PREFIX + hashlib.sha256(image).hexdigest() for image in IMAGES)]
IDLE_SECONDS = 60
ROOM = 1 << 20


def limits_of(budget_bytes=ROOM, max_tenants=10, at_once=2, pending=8, **percents) -> TenantLimits:
    return TenantLimits(
        budget_bytes=budget_bytes,
        cache_percent=percents.get("cache_percent", 100),
        max_tenants=max_tenants,
        cache=CacheLimits(IDLE_SECONDS, 4),
        service=ServiceLimits(1 << 20, 80),
        encodes=EncodeLimits(at_once, pending, 1000, percents.get("pending_percent", 50)),
    )


async def at_once(image, crop_box):
    if image.startswith(b"broken"):
        raise ValueError("image: broken")
    return embedding(mark=image[-1])


class World:
    """A Tenants with a loop and a clock of its own, whose answers can be compared."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.seconds = 0.0
        self.encodes: list[bytes] = []
        self.tenants = Tenants(limits_of(), self.encode, lambda: self.seconds)

    async def encode(self, image, crop_box):
        self.encodes.append(image)
        return await at_once(image, crop_box)

    def ask(self, tenant, image, image_id):
        """What a client sees (which picture's masks, which id; or an error's words), and the work done."""
        before = len(self.encodes)
        service = self.tenants.service_of(tenant)
        try:
            found = self.loop.run_until_complete(service.find(image, image_id))
        except (ImageNotFoundError, ValueError) as error:
            answer = (type(error), str(error))
        else:
            answer = (int(found.embedding.image_embed.flat[0]), found.image_id)
        return answer, self.encodes[before:]

    def forget(self, tenant, image_id):
        try:
            self.tenants.service_of(tenant).forget(image_id)
        except ImageNotFoundError as error:
            return str(error)
        return None

    def figures(self, tenant):
        service = self.tenants.service_of(tenant)
        return (
            vars(service.counts),
            vars(service.cache.counts),
            len(service.cache),
            service.cache.names,
        )


class EachAsIfAlone(RuleBasedStateMachine):
    """One world for both, and one for each: the answers are the same, and so is the work behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.both = World()
        self.alone = {tenant: World() for tenant in TENANTS}

    @rule(
        tenant=st.sampled_from(TENANTS),
        image=st.sampled_from([None, b"broken", *IMAGES]),
        image_id=st.sampled_from([None, *IDS]),
    )
    def ask(self, tenant, image, image_id):
        seen = self.both.ask(tenant, image, image_id)
        assert seen == self.alone[tenant].ask(tenant, image, image_id)

    @rule(tenant=st.sampled_from(TENANTS), image_id=st.sampled_from(IDS))
    def forget(self, tenant, image_id):
        assert self.both.forget(tenant, image_id) == self.alone[tenant].forget(tenant, image_id)

    @rule(seconds=st.sampled_from([1, IDLE_SECONDS // 2, IDLE_SECONDS + 1]))
    def time_passes(self, seconds):
        for world in (self.both, *self.alone.values()):
            world.seconds += seconds
            world.tenants.keep_house()

    @rule()
    def other_weights(self):
        for world in (self.both, *self.alone.values()):
            world.tenants.retire(1)
        assert self.both.tenants.any_of(1) is None

    @invariant()
    def figures_are_each_ones_own(self):
        for tenant in TENANTS:
            assert self.both.figures(tenant) == self.alone[tenant].figures(tenant)

    def teardown(self):
        for world in (self.both, *self.alone.values()):
            world.loop.close()


EachAsIfAlone.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEachAsIfAlone = EachAsIfAlone.TestCase


class NobodyBelowAnEvenShareLosesAnything(RuleBasedStateMachine):
    """Caches of three tenants, put into in any order."""

    BUDGET = 9000

    def __init__(self) -> None:
        super().__init__()
        budget = CacheBudget(self.BUDGET)
        self.caches = [
            EmbeddingCache(CacheLimits(60, 2), lambda: 0.0, budget, name)
            for name in ("a", "b", "c")
        ]
        self.digests = map(str, itertools.count())

    @rule(who=st.integers(0, 2), payload=st.integers(1, 5000))
    def put(self, who, payload):
        value = embedding(payload)
        before = [(cache.size_bytes, len(cache)) for cache in self.caches]
        kept = self.caches[who].put(next(self.digests), value)
        for number, (size, count) in enumerate(before):
            cache = self.caches[number]
            if number != who and size <= self.BUDGET / 3:
                assert (cache.size_bytes, len(cache)) == (size, count)
        if value.size_bytes <= self.BUDGET / 3:
            assert kept

    @invariant()
    def within_the_budget(self):
        assert sum(cache.size_bytes for cache in self.caches) <= self.BUDGET


NobodyBelowAnEvenShareLosesAnything.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestNobodyBelowAnEvenShareLosesAnything = NobodyBelowAnEvenShareLosesAnything.TestCase


def test_whoever_is_alone_has_the_whole_budget_until_another_one_comes():
    size = embedding().size_bytes
    budget = CacheBudget(10 * size)
    alice, bob = (
        EmbeddingCache(CacheLimits(60, 2), lambda: 0.0, budget, name) for name in ("alice", "bob")
    )
    for number in range(30):
        alice.put(f"a{number}", embedding())
    assert len(alice) == 10
    for number in range(4):
        bob.put(f"b{number}", embedding())
    assert (len(alice), len(bob)) == (6, 4)
    for number in range(30):  # a flood takes nothing from bob, who holds less
        alice.put(f"c{number}", embedding())
    assert (len(alice), len(bob)) == (6, 4)
    for number in range(30):
        bob.put(f"d{number}", embedding())
    assert (len(alice), len(bob)) == (5, 5)


def test_a_tenants_share_of_the_budget_can_be_less_than_all():
    size = embedding().size_bytes
    budget = CacheBudget(10 * size, tenant_percent=40)
    alice = EmbeddingCache(CacheLimits(60, 2), lambda: 0.0, budget, "alice")
    nobody = EmbeddingCache(CacheLimits(60, 2), lambda: 0.0, budget)
    for number in range(20):
        alice.put(str(number), embedding())
    assert len(alice) == 4
    assert not alice.put("large", embedding(5 * size))
    for number in range(20):
        nobody.put(str(number), embedding())
    assert (len(nobody), len(alice)) == (6, 4)


async def flood(tenants, name, count):
    """So many images of a tenant at once; the tasks that were taken on, and how many were not."""
    taken, refused = [], 0
    for number in range(count):
        task = asyncio.create_task(
            tenants.service_of(name).find(b"%s %d" % (name.encode(), number), None)
        )
        await asyncio.sleep(0)
        if task.done() and isinstance(task.exception(), OverloadedError):
            refused += 1
        else:
            taken.append(task)
    return taken, refused


def test_a_flood_of_one_tenants_images_leaves_places_and_turns_to_others():
    async def scenario():
        gate, order = asyncio.Event(), []

        async def encode(image, crop_box):
            order.append(image.split()[0].decode())
            await gate.wait()
            return embedding()

        tenants = Tenants(limits_of(at_once=1, pending=8), encode, lambda: 0.0)
        alices, refused = await flood(tenants, "alice", 20)
        assert (len(alices), refused) == (4, 16)
        bobs, refused = await flood(tenants, "bob", 2)
        assert (len(bobs), refused) == (2, 0)
        gate.set()
        await asyncio.gather(*alices, *bobs)
        # bob waits for what was begun, and then has every other turn.
        assert order == ["alice", "alice", "bob", "alice", "bob", "alice"]
        again, refused = await flood(tenants, "alice", 1)
        assert refused == 0
        await asyncio.gather(*again)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_without_tenants_everything_is_one_callers():
    async def scenario():
        gate = asyncio.Event()

        async def encode(image, crop_box):
            await gate.wait()
            return embedding()

        tenants = Tenants(limits_of(pending=8, cache_percent=10), encode, lambda: 0.0)
        taken, refused = await flood(tenants, "", 10)
        assert (len(taken), refused) == (8, 2)
        gate.set()
        await asyncio.gather(*taken)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_tenants_who_have_nothing_here_make_room_for_others():
    async def scenario():
        seconds = 0.0
        tenants = Tenants(limits_of(max_tenants=2), at_once, lambda: seconds)
        await tenants.service_of("alice").find(IMAGES[0], "page-1")
        for number in range(5):
            tenants.service_of(f"passer-by {number}")
        await tenants.service_of("bob").find(IMAGES[0], "page-1")
        with pytest.raises(TooManyTenantsError, match="max_tenants.*try again"):
            tenants.service_of("carol")
        assert {name for name, _ in tenants.services()} == {"", "alice", "bob"}
        tenants.service_of("bob").forget("page-1")
        tenants.service_of("carol")
        seconds = IDLE_SECONDS + 1
        tenants.keep_house()  # alice's image goes, and she with it
        assert {name for name, _ in tenants.services()} == {""}

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_what_one_is_refused_says_nothing_of_others():
    async def scenario():
        words = Counter()
        for others in (0, 4):
            tenants = Tenants(limits_of(pending=8), lambda *_: asyncio.sleep(60), lambda: 0.0)
            await flood(tenants, "bob", others)
            await flood(tenants, "alice", 4)
            with pytest.raises(OverloadedError) as refused:
                await tenants.service_of("alice").find(b"one more", None)
            words[str(refused.value).replace(", of which a tenant has 4", "")] += 1
        assert len(words) == 1

    asyncio.run(asyncio.wait_for(scenario(), 10))
