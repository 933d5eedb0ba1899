"""Replaces itself by the given command, with larger stacks; it is killed when the launcher dies.

A script of its own, run as `python tethered.py LAUNCHER_PID COMMAND…`, because the alternative, a
`preexec_fn`, runs Python between fork and exec of a process that has threads.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
# Triton's HTTP front end lets a request decide how much of a thread's stack it takes: a form-encoded body
# (what curl says its --data-binary is) all of its bytes, nested JSON 80 bytes for each level, chunks 16 each.
# With the usual 8 MiB, a 10 MB image sent by curl ended the server. New threads get the soft limit: address
# space, of which only what is touched becomes memory.
THREAD_STACK_BYTES = 128 << 20


def enlarge_stacks() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = THREAD_STACK_BYTES if hard == resource.RLIM_INFINITY else min(THREAD_STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


if __name__ == "__main__":
    launcher_pid, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher_pid:
        sys.exit("The launcher died before the server was started.")
    enlarge_stacks()
    os.execv(command[0], command)  # noqa: S606 - the launcher built the command
