"""One run of tritonserver: its command line, its process tree, its end."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server import addresses
from sam2_server.environment import TritonInstallation
from sam2_server.ports import Ports
from sam2_server.shared_memory import remove_regions

TETHER = Path(__file__).with_name("tethered.py")
# A killed process may take a while to hand back gigabytes.
KILL_SECONDS = 10
ADMIN_KEY_HEADER = "sam2-admin-key"
ADMIN_PROTOCOLS = "model-repository,model-config,shared-memory,statistics,trace,logging"


@dataclass(frozen=True)
class ServerOptions:
    model_repository: Path
    host: str
    ports: Ports  # as requested: 0 is any free one
    shm_mb: int
    shm_growth_mb: int
    log_verbose: int
    explicit_models: bool
    admin_key: str | None
    extra_arguments: tuple[str, ...]


def build_command(
    installation: TritonInstallation,
    backends: Path,
    options: ServerOptions,
    ports: Ports,
    shm_prefix: str,
) -> list[str]:
    command = [
        str(installation.executable),
        f"--model-repository={options.model_repository}",
        f"--backend-directory={backends}",
        f"--http-address={addresses.triton_http(options.host)}",
        f"--http-port={ports.http}",
        f"--grpc-address={addresses.triton_grpc(options.host)}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={addresses.triton_http(options.host)}",
        f"--metrics-port={ports.metrics}",
        # Clients ping a silent connection (an encode takes its time) to find out whether it is dead; by
        # default Triton hangs up on the third ping within five minutes.
        "--grpc-http2-max-ping-strikes=0",
        f"--log-verbose={options.log_verbose}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        # A region that grows stalls the request that makes it grow by 45 to 110 ms: start large.
        f"--backend-config=python,shm-default-byte-size={options.shm_mb << 20}",
        f"--backend-config=python,shm-growth-byte-size={options.shm_growth_mb << 20}",
        # sam2_embedding waits in many inner calls at once.
        "--backend-config=python,thread-pool-size=64",
    ]
    if options.explicit_models:
        command += ["--model-control-mode=explicit", "--load-model=*"]
    if not Path("/dev/nvidiactl").exists():
        # Without a GPU, asking for its metrics costs two seconds of start time.
        command.append("--allow-gpu-metrics=false")
    if options.admin_key is not None:
        # Triton takes the key in no other way, so users of this machine can see it in the process list.
        restriction = f"{ADMIN_PROTOCOLS}:{ADMIN_KEY_HEADER}={options.admin_key}"
        command += [
            f"--http-restricted-api={restriction}",
            f"--grpc-restricted-protocol={restriction}",
        ]
    return [*command, *options.extra_arguments]


class TritonProcess:
    """A started tritonserver with its Python stubs, in a session of its own.

    Its own session, so that Ctrl-C on the terminal reaches the launcher alone, which then stops it
    in order; tethered, so that it ends when the launcher is killed.

    Never asked politely to end: drain.py says why.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], log_file: Path, shm_prefix: str
    ) -> None:
        self._shm_prefix = shm_prefix
        with _open_log(log_file) as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-E", "-S", str(TETHER), str(os.getpid()), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def exit_code(self) -> int | None:
        return self._popen.poll()

    def kill(self) -> None:
        """End every process of the tree at once and remove the tree's shared memory."""
        kill_processes(self._shm_prefix)
        self._popen.wait()
        remove_regions(self._shm_prefix)


def _open_log(log_file: Path) -> IO[bytes]:
    try:
        return log_file.open("ab")
    except OSError:
        # A disk so full that it takes no file: better a server without a log than none.
        return Path(os.devnull).open("ab")


def kill_processes(shm_prefix: str) -> int:
    """SIGKILL to a server and its stubs, known by the region prefix in their command lines.

    By that and not by descent: stubs whose server died have lost their parent. Says how many there were.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    # Once more after each round: a server that is just loading a model starts further stubs.
    while (living := _processes_of(shm_prefix)) and time.monotonic() < deadline:
        for process in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.add(process.pid)
        time.sleep(0.02)
    return len(killed)


def _processes_of(shm_prefix: str) -> list[psutil.Process]:
    # A zombie has no command line, so it is not counted as living.
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(shm_prefix in argument for argument in process.info["cmdline"] or ())
    ]
