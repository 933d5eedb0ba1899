"""Replaces itself by the given command, which then gets SIGTERM when the launcher dies.

A script of its own, run as `python tethered.py LAUNCHER_PID COMMAND…`, because the alternative, a
`preexec_fn`, runs Python between fork and exec of a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    launcher_pid, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher_pid:
        sys.exit("The launcher died before the server was started.")
    os.execv(command[0], command)  # noqa: S606 - the launcher built the command
