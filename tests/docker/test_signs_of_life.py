"""Processes that no longer run, on a made-up /proc."""

from pathlib import Path

import pytest
from sam2_server.signs_of_life import HUNG_SECONDS, SUSPECT_SECONDS, SignsOfLife

PROCESS = 7


class Kernel:
    def __init__(self, proc: Path, threads: int) -> None:
        self._tasks = proc / str(PROCESS) / "task"
        self._counts = dict.fromkeys(range(threads), 0)
        for thread in self._counts:
            (self._tasks / str(thread)).mkdir(parents=True)
            self.switch(thread)

    def switch(self, thread: int) -> None:
        self._counts[thread] += 1
        (self._tasks / str(thread) / "status").write_text(
            f"Name:\tstub\nvoluntary_ctxt_switches:\t{self._counts[thread]}\n"
            "nonvoluntary_ctxt_switches:\t3\n"
        )


def first_missing(signs: SignsOfLife, begin: float, suspects: set[str] = frozenset()) -> float:
    """Seconds after `begin` until the process is called hung, looked at every two seconds."""
    for elapsed in range(0, 200, 2):
        if signs.missing({PROCESS: "encoder_0_0"}, suspects, begin + elapsed):
            return float(elapsed)
    raise AssertionError("never")


def live(kernel: Kernel, signs: SignsOfLife, seconds: int, threads: int) -> None:
    for now in range(0, seconds, 2):
        kernel.switch(now // 2 % threads)  # another thread each time
        kernel.switch(0)
        assert signs.missing({PROCESS: "encoder_0_0"}, set(), float(now)) == []


@pytest.mark.parametrize("threads", [1, 5, 500])
def test_a_stopped_process_is_missed_in_time_however_many_threads_it_has(
    tmp_path: Path, threads: int
) -> None:
    kernel, signs = Kernel(tmp_path, threads), SignsOfLife(tmp_path)
    live(kernel, signs, 60, threads)
    for thread in range(threads):
        kernel.switch(thread)  # what stopping does to each
    assert HUNG_SECONDS - 2 <= first_missing(signs, 60.0) <= HUNG_SECONDS + 6


def test_a_suspect_is_missed_sooner(tmp_path: Path) -> None:
    kernel, signs = Kernel(tmp_path, 3), SignsOfLife(tmp_path)
    live(kernel, signs, 60, 3)
    assert SUSPECT_SECONDS - 2 <= first_missing(signs, 60.0, {"encoder_0_0"}) <= SUSPECT_SECONDS + 6


def test_who_never_was_seen_running_is_not_missed(tmp_path: Path) -> None:
    Kernel(tmp_path, 3)
    with pytest.raises(AssertionError, match="never"):
        first_missing(SignsOfLife(tmp_path), 0.0)


def test_one_that_stops_at_once_is_missed_for_what_others_of_its_kind_do(tmp_path: Path) -> None:
    kernel, signs = Kernel(tmp_path, 1), SignsOfLife(tmp_path)
    live(kernel, signs, 60, 1)
    (tmp_path / "8" / "task" / "8").mkdir(parents=True)
    (tmp_path / "8" / "task" / "8" / "status").write_text("voluntary_ctxt_switches:\t1\n")
    names = {PROCESS: "encoder_0_0", 8: "encoder_0_1"}
    missing: list[tuple[str, float]] = []
    for now in range(60, 100, 2):
        kernel.switch(0)
        missing = missing or signs.missing(names, set(), float(now))
    assert missing == [("encoder_0_1", HUNG_SECONDS)]


def test_who_pauses_and_goes_on_is_given_more_time(tmp_path: Path) -> None:
    kernel, signs = Kernel(tmp_path, 1), SignsOfLife(tmp_path)
    live(kernel, signs, 60, 1)
    for now in range(60, 72, 2):
        assert signs.missing({PROCESS: "encoder_0_0"}, set(), float(now)) == []
    kernel.switch(0)
    assert first_missing(signs, 72.0) > 2 * HUNG_SECONDS


def test_a_launcher_that_was_stopped_itself_blames_nobody(tmp_path: Path) -> None:
    kernel, signs = Kernel(tmp_path, 1), SignsOfLife(tmp_path)
    live(kernel, signs, 60, 1)
    assert signs.missing({PROCESS: "encoder_0_0"}, set(), 5000.0) == []
