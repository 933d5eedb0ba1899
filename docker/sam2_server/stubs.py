"""Watching the Python stubs: Triton neither restarts one that died nor says that it did."""

import contextlib
import time
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server.shared_memory import SHARED_MEMORY_DIR

RESCAN_SECONDS = 1.0
# Triton reaps a stub that it ended itself (a model being unloaded) at once; a crashed one stays a
# zombie. The grace covers a busy machine between the two steps.
ZOMBIE_GRACE_SECONDS = 0.5
# The same for a stub that was reaped but whose region, which an unload removes, is still there.
VANISHED_GRACE_SECONDS = 2.0
# The same for one that died before it could be seen, so that only its remains are left to judge by.
UNSEEN_GRACE_SECONDS = 3.0
UNSEEN = "a model"


@dataclass
class Stub:
    process: psutil.Process
    instance: str  # <model>_<group>_<index>
    region: str
    dead_since: float | None = None


class StubWatcher:
    """Tells a crashed stub from one that Triton ended because its model was unloaded."""

    def __init__(self, server_pid: int, shm_prefix: str) -> None:
        self._server_pid = server_pid
        self._shm_prefix = shm_prefix
        self._stubs: dict[int, Stub] = {}
        self._unseen_dead_since: dict[int, float] = {}
        self._scanned_at = float("-inf")

    def crashed(self) -> list[str]:
        """The model instances whose process has died; cheap enough for several times a second."""
        now = time.monotonic()
        if now - self._scanned_at > RESCAN_SECONDS:
            self._scan(now)
            self._scanned_at = now
        crashed = [
            stub.instance for stub in list(self._stubs.values()) if self._has_crashed(stub, now)
        ]
        unseen = self._unseen_dead_since.values()
        if not crashed and any(now - since >= UNSEEN_GRACE_SECONDS for since in unseen):
            return [UNSEEN]
        return crashed

    def processes(self) -> dict[int, str]:
        """Process id ► model instance, of those that live."""
        return {pid: stub.instance for pid, stub in self._stubs.items() if stub.dead_since is None}

    def _scan(self, now: float) -> None:
        try:
            children = psutil.Process(self._server_pid).children()
        except psutil.NoSuchProcess:
            return
        unseen_dead = {}
        for child in children:
            if child.pid not in self._stubs:
                with contextlib.suppress(psutil.Error):
                    if child.status() == psutil.STATUS_ZOMBIE:
                        unseen_dead[child.pid] = self._unseen_dead_since.get(child.pid, now)
                    else:
                        self._add(child)
        self._unseen_dead_since = unseen_dead

    def _add(self, child: psutil.Process) -> None:
        # stub MODEL.PY REGION SHM_DEFAULT SHM_GROWTH SERVER_PID BACKENDS OFFSET INSTANCE RUNTIME_DIR
        arguments = child.cmdline()
        region = next((word for word in arguments if word.startswith(self._shm_prefix)), None)
        if region is not None:
            self._stubs[child.pid] = Stub(child, arguments[-2], region)

    def _has_crashed(self, stub: Stub, now: float) -> bool:
        try:
            zombie = stub.process.status() == psutil.STATUS_ZOMBIE
            if not zombie and stub.process.is_running():
                stub.dead_since = None
                return False
        except psutil.NoSuchProcess:
            zombie = False
        if stub.dead_since is None:
            stub.dead_since = now
        dead_seconds = now - stub.dead_since
        if zombie:
            return dead_seconds >= ZOMBIE_GRACE_SECONDS
        if not (SHARED_MEMORY_DIR / stub.region).exists():
            del self._stubs[stub.process.pid]
            return False
        return dead_seconds >= VANISHED_GRACE_SECONDS
