"""Several decoding processes: started when they are needed, used again, never more than there is room for."""

import os
import threading

import image_processes
import numpy as np
import psutil
import pytest
from image_processes import ImageProcesses, usable_processors

from tests.models.test_image_process import COINS, SIDE, limits
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def processes():
    several = ImageProcesses(limits(), "TYPE_UINT8", 2)
    yield several
    several.close()


def test_one_starts_when_the_others_are_busy_and_is_kept(processes):
    with processes.one() as first:
        alone = first.prepare(COINS, SIDE).resized
        with processes.one() as second:
            assert second.pid != first.pid
            assert np.array_equal(second.prepare(COINS, SIDE).resized, alone)
        with processes.one() as third:
            assert third is second
    with processes.one() as last_used:
        assert last_used is first
    pids = {first.pid, second.pid}
    processes.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_there_is_room_for_so_many(processes):
    entered = threading.Event()

    def enter() -> None:
        processes.wait_for_room()
        entered.set()

    processes.wait_for_room()
    processes.wait_for_room()
    third = threading.Thread(target=enter)
    third.start()
    assert not entered.wait(0.2)
    processes.leave()
    third.join(PATIENCE_SECONDS)
    assert entered.is_set()


def test_a_process_that_failed_is_used_again(processes):
    with pytest.raises(KeyError), processes.one() as failed:
        raise KeyError
    with processes.one() as again:
        assert again is failed


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("1600000 100000", 8),
        (None, 8),
    ],
)
def test_processors_are_those_that_a_container_may_use(tmp_path, monkeypatch, cpu_max, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    if cpu_max is not None:
        file.write_text(cpu_max + "\n")
    assert usable_processors(file) == expected
    assert image_processes.CGROUP_CPU.name == "cpu.max"
