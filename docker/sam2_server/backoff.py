"""How long to wait before the next start."""

# Long enough not to burn a processor, short enough that nobody waits for a server that could be there.
MAX_PAUSE_SECONDS = 5.0
# A server that was ready for so long had recovered from whatever there was before.
GOOD_SECONDS = 60.0


class BackOff:
    """No pause after a good minute; then 1, 2, 4, and never more than 5 seconds."""

    def __init__(self) -> None:
        self._crashes = 0

    def pause_seconds(self, ready_seconds: float) -> float:
        """After a crash of a server that had been ready for so long, 0 if it never was."""
        if ready_seconds >= GOOD_SECONDS:
            self._crashes = 0
        self._crashes += 1
        return 0.0 if self._crashes == 1 else min(2.0 ** (self._crashes - 2), MAX_PAUSE_SECONDS)
