"""Waiting without counting on speed: until something is so, or longer than any loaded machine needs."""

import time
from collections.abc import Callable

# Not a promise about the product: only the moment when a test stops hoping.
PATIENCE_SECONDS = 120


def wait_until(
    what: Callable[[], object], waiting_for: str, seconds: float = PATIENCE_SECONDS
) -> None:
    """Poll until `what()`; raises TimeoutError with the words of `waiting_for`."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain for {waiting_for}")
        time.sleep(0.05)
