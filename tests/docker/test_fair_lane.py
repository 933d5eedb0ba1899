"""Short requests in a row, long ones in turns, both bounded; the steps wait to be told."""

import os
import threading
from collections.abc import Iterator

import pytest
from background import NICENESS
from fair_lane import FairLane, LaneFullError, Place, Steps, take_on

from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def lanes() -> Iterator[list[FairLane]]:
    made: list[FairLane] = []
    yield made
    for lane in made:
        lane.close()


def lane_of(lanes: list[FairLane], max_jobs: int = 10, max_bytes: int = 1000) -> FairLane:
    lanes.append(FairLane(max_jobs, max_bytes, "test", "too many (max_things); try again"))
    return lanes[-1]


def numbered(log: list[str], name: str, steps: int) -> Steps:
    for number in range(steps):
        log.append(f"{name}{number}")
        yield None


def waiting_for(gate: threading.Event) -> Steps:
    assert gate.wait(PATIENCE_SECONDS)
    yield None


def test_long_ones_take_turns_in_the_order_in_which_they_came(lanes: list[FairLane]) -> None:
    lane, gate, log = lane_of(lanes), threading.Event(), list[str]()
    assert lane.take(waiting_for(gate), 0)
    for name, steps in (("a", 3), ("b", 1), ("c", 2)):
        assert lane.take(numbered(log, name, steps), 0)
    gate.set()
    lane.close()
    assert log == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert lane.jobs == 0


def test_requests_and_bytes_are_bounded_and_given_back(lanes: list[FairLane]) -> None:
    lane, gate = lane_of(lanes, max_jobs=3, max_bytes=100), threading.Event()
    log: list[str] = []
    assert lane.take(waiting_for(gate), 60)
    assert not lane.take(numbered(log, "too large", 1), 41)
    assert lane.take(numbered(log, "fits", 1), 40)
    assert lane.take(numbered(log, "fits", 1), 0)
    assert not lane.take(numbered(log, "one too many", 1), 0)
    with pytest.raises(LaneFullError, match="max_things"):
        lane.check_room()
    gate.set()
    while lane.jobs:
        threading.Event().wait(0.01)
    lane.check_room()
    assert lane.take(numbered(log, "again", 1), 100)
    lane.close()
    assert log == ["fits0", "fits0", "again0"]


def test_one_alone_is_taken_whatever_it_holds(lanes: list[FairLane]) -> None:
    log: list[str] = []
    lane = lane_of(lanes, max_bytes=1)
    assert lane.take(numbered(log, "huge", 1), 1 << 40)
    lane.close()
    assert log == ["huge0"]


def test_one_that_fails_leaves_its_place_and_the_others(lanes: list[FairLane]) -> None:
    def failing() -> Steps:
        yield None
        raise ValueError("its own business")

    lane, log = lane_of(lanes), list[str]()
    assert lane.take(failing(), 10)
    assert lane.take(numbered(log, "a", 3), 10)
    lane.close()
    assert log == ["a0", "a1", "a2"]
    assert lane.jobs == 0


def test_a_request_goes_on_in_the_lane_that_it_names_or_hears_that_it_is_full(
    lanes: list[FairLane],
) -> None:
    lane, gate, log = lane_of(lanes, max_jobs=2), threading.Event(), list[str]()

    def request(name: str, place: Place | None) -> Steps:
        try:
            if place is not None:
                log.append(f"{name} asks")
                yield place
            log.append(f"{name} is answered")
        except LaneFullError as error:
            log.append(f"{name}: {error}")

    take_on(request("short", None))
    assert lane.take(waiting_for(gate), 0)
    take_on(request("first", Place(lane, 1)))
    take_on(request("second", Place(lane, 1)))
    gate.set()
    lane.close()
    assert log == [
        "short is answered",
        "first asks",
        "second asks",
        "second: too many (max_things); try again",
        "first is answered",
    ]


def test_short_ones_do_not_wait_for_another_lane(lanes: list[FairLane]) -> None:
    long, short = lane_of(lanes), lane_of(lanes)
    gate, log = threading.Event(), list[str]()
    assert long.take(waiting_for(gate), 0)
    assert short.take(numbered(log, "short", 1), 0)
    short.close()
    assert log == ["short0"]
    assert long.jobs == 1
    gate.set()


@pytest.mark.parametrize("gives_way", [False, True])
def test_only_a_lane_that_gives_way_has_a_lower_priority(
    lanes: list[FairLane], gives_way: bool
) -> None:
    lane = FairLane(1, 1, "test", "full", gives_way=gives_way)
    lanes.append(lane)
    own, seen = os.getpriority(os.PRIO_PROCESS, 0), list[int]()

    def looking() -> Steps:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        yield None

    assert lane.take(looking(), 0)
    lane.close()
    assert seen == [max(own, NICENESS) if gives_way else own]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
