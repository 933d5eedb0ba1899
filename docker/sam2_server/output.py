"""Standard output that may be on a full disk."""

import errno
from typing import TextIO

FULL = (errno.ENOSPC, errno.EDQUOT)


class ForgivingOutput:
    """Drops what a full disk does not take: a server must not end for its launcher's words. A reader that has
    left (a closed pipe) is another matter, and raises.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            if error.errno not in FULL:
                raise

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
