"""Outlives a launcher that is killed, and removes what it left: tritonserver, stubs, shared memory, files.

A process of its own, which waits until the pipe from the launcher breaks. What to remove comes through that
pipe, not on the command line, by which a server's processes are known.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from sam2_server.plain_paths import remove_private_directory
from sam2_server.process import kill_processes
from sam2_server.shared_memory import remove_regions

PACKAGE_PARENT = Path(__file__).resolve().parents[1]
END_SECONDS = 15.0


class Reaper:
    """Started before the first tritonserver; use it in a `with`, which leaves it nothing to reap."""

    def __init__(self, shm_prefix: str, private_directory: Path | None) -> None:
        self._task = {
            "shm_prefix": shm_prefix,
            "private_directory": None if private_directory is None else str(private_directory),
        }

    def __enter__(self) -> "Reaper":
        path = [str(PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sam2_server.reaper"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.write(json.dumps(self._task).encode() + b"\n")
        self._process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.close()
        self._process.wait(END_SECONDS)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # the launcher died before it had anything
    task = json.loads(line)
    sys.stdin.buffer.read()
    kill_processes(task["shm_prefix"])
    remove_regions(task["shm_prefix"])
    if task["private_directory"] is not None:
        remove_private_directory(Path(task["private_directory"]))


if __name__ == "__main__":
    main()
