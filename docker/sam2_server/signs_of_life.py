"""Which processes no longer run at all: stopped, frozen, stuck in the kernel.

Triton's Python stubs wake several times a second, tritonserver does so too, whatever their models are busy
with. A process none of whose threads has run for long is hung, also where no request happens to meet it. On a
starved machine threads run late, but they run.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECK_SECONDS = 2.0
# Without any sign of life for so long, a process that used to give some is hung …
HUNG_SECONDS = 20.0
# … and so much sooner, where requests have already been told so by Triton.
SUSPECT_SECONDS = 6.0
# A process that has paused and gone on is given several times that pause from then on.
PAUSE_FACTOR = 5.0
# Only a kind of process of which one was seen running so often is expected to go on with it: also one that
# was stopped as soon as it had begun, and that of the next start.
EXPECTED_AFTER_CHECKS = 3
SERVER = "tritonserver"
STUB = "stub"
# Whoever looks so late has been stopped together with those it looks at.
OWN_PAUSE_SECONDS = 6.0


@dataclass
class _Watched:
    alive_at: float
    switches: dict[str, int] | None = None  # thread ► context switches, while the liveliest rests
    liveliest: str | None = None
    liveliest_switches: int | None = None
    alive_checks: int = 0
    longest_pause_seconds: float = 0.0


class SignsOfLife:
    """Looks at processes every now and then; `proc` is where the kernel tells of them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._watched: dict[int, _Watched] = {}
        self._expected_kinds: set[str] = set()
        self._checked_at = float("-inf")

    def missing(
        self, names: Mapping[int, str], suspects: Container[str], now: float
    ) -> list[tuple[str, float]]:
        """Of the processes (id ► name), those that are hung, with the seconds since they last ran."""
        elapsed = now - self._checked_at
        if elapsed < CHECK_SECONDS:
            return []
        self._checked_at = now
        if elapsed > OWN_PAUSE_SECONDS:
            self._watched.clear()
        self._watched = {pid: self._watched.get(pid) or _Watched(alive_at=now) for pid in names}
        silent_seconds = {pid: self._silent_seconds(pid, now) for pid in names}
        self._expected_kinds.update(
            _kind(name)
            for pid, name in names.items()
            if self._watched[pid].alive_checks >= EXPECTED_AFTER_CHECKS
        )
        return [
            (name, silent_seconds[pid])
            for pid, name in names.items()
            if _kind(name) in self._expected_kinds
            and silent_seconds[pid] >= self._limit(pid, name in suspects)
        ]

    def _silent_seconds(self, pid: int, now: float) -> float:
        watched = self._watched[pid]
        silent_seconds = now - watched.alive_at
        if not self._has_run(pid, watched):
            return silent_seconds
        if watched.alive_checks:
            watched.longest_pause_seconds = max(
                watched.longest_pause_seconds, silent_seconds - CHECK_SECONDS
            )
        watched.alive_checks += 1
        watched.alive_at = now
        return 0.0

    def _limit(self, pid: int, suspect: bool) -> float:
        watched = self._watched[pid]
        usual = SUSPECT_SECONDS if suspect else HUNG_SECONDS
        return max(usual, PAUSE_FACTOR * watched.longest_pause_seconds)

    def _has_run(self, pid: int, watched: _Watched) -> bool:
        """Whether a thread was switched since the last look.

        The liveliest one is asked first, which usually is enough. Where it rests, all are remembered, and
        compared at the next look: what was remembered longer ago would tell of times long past.
        """
        thread = watched.liveliest
        if thread is not None:
            switches = self._switches(pid, thread)
            if switches not in (None, watched.liveliest_switches):
                watched.liveliest_switches = switches
                watched.switches = None
                return True
        try:
            threads = [path.name for path in (self._proc / str(pid) / "task").iterdir()]
        except OSError:
            return True  # it has ended, which others notice
        before = watched.switches
        found = {thread: self._switches(pid, thread) for thread in threads}
        now = watched.switches = {thread: n for thread, n in found.items() if n is not None}
        if before is None:
            return False
        gained = {thread: n - before.get(thread, 0) for thread, n in now.items()}
        if not any(gained.values()):
            return False
        watched.liveliest = max(gained, key=lambda thread: gained[thread])
        watched.liveliest_switches = now[watched.liveliest]
        return True

    def _switches(self, pid: int, thread: str) -> int | None:
        """How often a thread was given a processor, None where it has ended."""
        try:
            status = (self._proc / str(pid) / "task" / thread / "status").read_text()
        except OSError:
            return None
        return sum(
            int(line.rpartition(":")[2])
            for line in status.splitlines()
            if line.startswith(("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))
        )


def _kind(name: str) -> str:
    return SERVER if name == SERVER else STUB
