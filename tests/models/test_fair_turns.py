"""Turns: who is next, of whom how many at once, and what becomes of those who leave the line."""

import asyncio

from fair_turns import FairTurns
from hypothesis import given
from hypothesis import strategies as st


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 10))


class Line:
    """Tasks that hold their turns until told, and the order in which they had them."""

    def __init__(self, turns: FairTurns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.held: list[tuple[str, asyncio.Event]] = []

    def join(self, tenant: str) -> asyncio.Task:
        return asyncio.create_task(self._wait(tenant))

    async def _wait(self, tenant: str) -> None:
        async with self.turns.turn(tenant):
            self.order.append(tenant)
            end = asyncio.Event()
            self.held.append((tenant, end))
            try:
                await end.wait()
            finally:
                self.held.remove((tenant, end))

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end_one(self) -> None:
        self.held[0][1].set()
        await self.settle()


def test_tenants_have_turns_one_after_another():
    async def scenario():
        line = Line(FairTurns(1))
        tasks = [line.join(tenant) for tenant in "aaaabbc"]
        await line.settle()
        while line.held:
            await line.end_one()
        assert "".join(line.order) == "aabcaba"
        await asyncio.gather(*tasks)

    run(scenario())


def test_a_tenant_has_no_more_at_once_than_it_may_and_others_go_by():
    async def scenario():
        line = Line(FairTurns(3, tenant_at_once=1))
        tasks = [line.join(tenant) for tenant in ["a", "a", "b", "", "", ""]]
        await line.settle()
        assert line.order == ["a", "b", ""]
        await line.end_one()  # a's: a's next
        assert sorted(tenant for tenant, _ in line.held) == ["", "a", "b"]
        while line.held:
            await line.end_one()
        assert sorted(line.order) == ["", "", "", "a", "a", "b"]
        await asyncio.gather(*tasks)

    run(scenario())


def test_whoever_leaves_the_line_is_passed_over():
    async def scenario():
        line = Line(FairTurns(1))
        first, leaving, last = (line.join("a") for _ in range(3))
        await line.settle()
        leaving.cancel()
        await line.settle()
        await line.end_one()
        await line.end_one()
        await asyncio.gather(first, last)
        assert leaving.cancelled()
        assert len(line.order) == 2

    run(scenario())


def test_a_turn_that_comes_as_its_holder_leaves_is_somebody_elses():
    async def scenario():
        line = Line(FairTurns(1))
        first, leaving, last = (line.join(tenant) for tenant in "abc")
        await line.settle()
        line.held[0][1].set()
        await asyncio.sleep(0)  # the turn is leaving's now, who has not woken yet
        leaving.cancel()
        await line.settle()
        assert [tenant for tenant, _ in line.held] == ["c"]
        await line.end_one()
        await asyncio.gather(first, last)

    run(scenario())


@given(
    steps=st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from("jec")), max_size=40),
    at_once=st.integers(1, 3),
    each=st.integers(1, 3),
)
def test_no_turn_is_lost_or_given_twice(steps, at_once, each):
    async def scenario():
        line = Line(FairTurns(at_once, each))
        tasks: list[asyncio.Task] = []
        for tenant, step in steps:
            if step == "j":
                tasks.append(line.join(tenant))
            elif step == "e" and line.held:
                line.held[0][1].set()
            elif tasks:
                tasks.pop(0).cancel()
            await asyncio.sleep(0)
            held = [name for name, _ in line.held]
            assert len(held) <= at_once
            assert max(held.count("a"), held.count("b")) <= each
        await line.settle()
        while line.held:
            await line.end_one()
        assert all(task.done() for task in tasks)
        again = [line.join("") for _ in range(at_once + 1)]
        await line.settle()
        assert len(line.held) == at_once  # all turns are there
        while line.held:
            await line.end_one()
        await asyncio.gather(*again)

    run(scenario())
