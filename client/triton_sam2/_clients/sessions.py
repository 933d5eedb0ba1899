"""Which predictions of which session wait, run, or are over."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from triton_sam2._results.segmentation import Segmentation

STATUSES = ("pending", "completed", "cancelled", "failed")


@dataclass(eq=False)
class Prediction:
    """One request of a session."""

    request_id: str
    is_in_flight: bool = False
    future: "Future[Segmentation] | None" = None

    def cancel(self) -> bool:
        """Cancel it, and its RPC if there is one; whether there was something left to cancel."""
        return self.future is not None and self.future.cancel()


@dataclass
class Session:
    """A session's predictions; those that are over are only counted, so that nothing grows."""

    slots: asyncio.Semaphore
    live: dict[str, Prediction] = field(default_factory=dict)
    over: Counter[str] = field(default_factory=Counter)

    def status(self) -> dict[str, int]:
        """How many predictions are pending, completed, cancelled and failed."""
        counts = self.over | Counter(pending=len(self.live))
        return {status: counts[status] for status in STATUSES}

    def finish(self, prediction: Prediction) -> None:
        """Count a prediction whose future is done."""
        future = prediction.future
        if future is None or self.live.pop(prediction.request_id, None) is None:
            return
        if future.cancelled():
            self.over["cancelled"] += 1
        else:
            self.over["completed" if future.exception() is None else "failed"] += 1


class Sessions:
    """All sessions of a client, under one lock."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._by_id: dict[str, Session] = {}
        # Cancelling a future runs its callbacks in the same thread, which take the lock again.
        self.lock = threading.RLock()

    def open(self, session_id: str) -> Session:
        """The session of this id, new if need be."""
        with self.lock:
            if session_id not in self._by_id:
                self._by_id[session_id] = Session(asyncio.Semaphore(self._max_in_flight))
            return self._by_id[session_id]

    def cancel(self, session_id: str) -> int:
        """Cancel what is pending in a session; how many predictions that were."""
        with self.lock:
            session = self._by_id.get(session_id)
            return (
                sum(prediction.cancel() for prediction in list(session.live.values()))
                if session
                else 0
            )

    def status(self, session_id: str) -> dict[str, int]:
        """Counts by status; zeros for a session that does not exist."""
        with self.lock:
            session = self._by_id.get(session_id)
            return session.status() if session else dict.fromkeys(STATUSES, 0)

    def remove(self, session_id: str) -> None:
        """Cancel what is pending in a session and forget it."""
        self.cancel(session_id)
        with self.lock:
            self._by_id.pop(session_id, None)
