"""Two tenants' sessions beside each other: the same ids, nothing of one seen or taken by the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from video_errors import NotHeldError, OverloadedError

from tests.models.video.test_video_service import TABLE_LIMITS, World


def test_the_same_id_is_two_sessions() -> None:
    async def story() -> None:
        world = World()
        for tenant in ("alice", "bob"):
            await world.do("clip", "start", tenant=tenant)
        await world.click("clip", tenant="alice")
        assert len(world.table.find("clip", "alice").state.objects) == 1
        assert not world.table.find("clip", "bob").state.objects
        await world.do("clip", "close", tenant="bob")
        await world.track("clip", 1, tenant="alice")

    asyncio.run(story())


@pytest.mark.parametrize(
    "command", ["prompt", "track", "status", "reset", "close", "remove_object"]
)
def test_anothers_session_is_not_there(command: str) -> None:
    async def story() -> None:
        world = World()
        await world.do("clip", "start", tenant="alice")
        await world.click("clip", tenant="alice")
        given: dict[str, Any] = {"frame_index": 0, "object_id": 1}
        words = set()
        for session_id in ("clip", "none"):
            with pytest.raises(NotHeldError) as refused:
                await world.do(session_id, command, tenant="bob", **given)
            words.add(str(refused.value).replace(session_id, "..."))
        assert len(words) == 1
        await world.track("clip", 1, tenant="alice")

    asyncio.run(story())


def test_a_tenant_has_a_share_of_the_sessions() -> None:
    async def story() -> None:
        world = World(replace(TABLE_LIMITS, max_sessions=4))
        for session_id in "ab":
            await world.do(session_id, "start", tenant="alice")
        with pytest.raises(OverloadedError, match="max_sessions 4, of which a tenant has 2"):
            await world.do("c", "start", tenant="alice")
        for session_id in "ab":
            await world.do(session_id, "start", tenant="bob")

    asyncio.run(story())


async def full_session(world: World, session_id: str, tenant: str) -> None:
    world.now += 1
    await world.do(session_id, "start", tenant=tenant)
    await world.click(session_id, tenant=tenant)
    for frame in range(1, 16):
        await world.track(session_id, frame, tenant=tenant)


def test_nobody_below_an_even_share_gives_way() -> None:
    async def story() -> None:
        measured = World()
        await full_session(measured, "a", "alice")
        full = measured.table.size_bytes
        world = World(replace(TABLE_LIMITS, max_sessions=20, memory_budget_bytes=3 * full))
        await full_session(world, "quiet", "alice")
        kept = world.table.find("quiet", "alice").state.size_bytes
        for number in range(8):
            await full_session(world, f"flood {number}", "bob")
            assert world.table.size_bytes <= 3 * full
        assert world.table.find("quiet", "alice").state.size_bytes == kept
        assert world.table.counts.evicted_sessions > 0
        # And who held all of it makes room for a newcomer.
        await full_session(world, "new", "carol")
        assert world.table.find("quiet", "alice").state.size_bytes == kept

    asyncio.run(story())


def test_tenants_steps_run_in_turns() -> None:
    async def story() -> list[str]:
        world = World(replace(TABLE_LIMITS, max_sessions=12))
        for tenant, count in (("alice", 5), ("bob", 1)):
            for number in range(count):
                await world.do(str(number), "start", tenant=tenant)
                await world.click(str(number), tenant=tenant)
        order: list[str] = []

        async def step(tenant: str, number: int) -> None:
            await world.track(str(number), 1, tenant=tenant)
            order.append(tenant)

        flood = [asyncio.create_task(step("alice", number)) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.gather(step("bob", 0), *flood)
        return order

    assert asyncio.run(story()).index("bob") < 3
