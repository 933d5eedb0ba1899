"""Threads whose work may wait: they get processors that no click wants at the moment."""

from __future__ import annotations

import os
import threading

# A tenth of a processor where others want all of it, all of it where nobody does.
NICENESS = 10


def give_way() -> None:
    """Lowers the calling thread's own priority, for good; Linux keeps one for each thread."""
    thread = threading.get_native_id()
    # Never higher than it is: that would want a privilege.
    if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
