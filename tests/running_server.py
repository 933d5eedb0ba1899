"""A real Triton server under the project's own launcher, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
START_SECONDS = 300
STOP_SECONDS = 90


class RunningServer:
    """`sam2_server serve` on free ports with a state directory of its own; use it in a `with`."""

    def __init__(self, repository: Path, state_dir: Path, *options: str) -> None:
        self.repository = repository
        self.state_dir = state_dir
        self._options = options

    def __enter__(self) -> RunningServer:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._output = (self.state_dir / "output.txt").open("w")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sam2_server", "serve"),
                *("--model-repository", str(self.repository), "--state-dir", str(self.state_dir)),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
                *self._options,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT / "docker"), "COLUMNS": "200"},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()
            self._output.close()

    @property
    def state(self) -> dict:
        """What the launcher says of the server: status, ports, process ids, restarts."""
        return json.loads((self.state_dir / "server.json").read_text())

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.state['grpc_port']}"

    @property
    def http_url(self) -> str:
        return f"127.0.0.1:{self.state['http_port']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.state['metrics_port']}/metrics"

    @property
    def server_pid(self) -> int:
        """tritonserver's own process."""
        return self.state["server"]["pid"]

    def output(self) -> str:
        """All that the launcher has printed so far."""
        return (self.state_dir / "output.txt").read_text()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server did not start:\n{self.output()}")
            if (self.state_dir / "server.json").exists() and self.state["status"] == "ready":
                return
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"the server was not ready in {START_SECONDS} s:\n{self.output()}")
