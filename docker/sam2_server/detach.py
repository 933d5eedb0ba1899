"""`serve --detach`: the same command in the background, watched until it is ready."""

import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from sam2_server.errors import StartError
from sam2_server.state import StateDir

POLL_SECONDS = 0.1


def serve_detached(state_dir: StateDir, arguments: Sequence[str], console: Console) -> None:
    """Return once the background launcher's server is ready; raises StartError with its words."""
    state_dir.path.mkdir(parents=True, exist_ok=True)
    with state_dir.launcher_log_file.open("ab") as log:
        begin = log.tell()
        launcher = subprocess.Popen(
            [sys.executable, "-m", "sam2_server", *_without_detach(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with console.status("Starting tritonserver…"):
        while launcher.poll() is None:
            state = state_dir.read()
            if state is not None and state.launcher.pid == launcher.pid and state.status == "ready":
                urls = state.urls
                console.print(
                    f"Ready (pid {launcher.pid}). HTTP {urls['http']}  gRPC {urls['grpc']}  "
                    f"metrics {urls['metrics']}"
                )
                return
            time.sleep(POLL_SECONDS)
    said = state_dir.launcher_log_file.read_bytes()[begin:].decode(errors="replace").strip()
    raise StartError(said, f"Its log: {state_dir.launcher_log_file}")


def _without_detach(arguments: Sequence[str]) -> list[str]:
    """The arguments, less the option; behind -- they are tritonserver's."""
    own = list(arguments)
    end = own.index("--") if "--" in own else len(own)
    return [word for word in own[:end] if word != "--detach"] + own[end:]
