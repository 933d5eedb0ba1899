"""A real front before a real server, as a process of its own, on free ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.patience import wait_until
from tests.running_server import ROOT

STOP_SECONDS = 60


class RunningFront:
    """`triton-sam2-front` before a Triton server; use it in a `with`."""

    def __init__(
        self, triton: str, folder: Path, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        self.triton = triton
        self._environment = environment or {}
        self._folder = folder
        self._options = options
        self.ports: dict[str, int] = {}

    def __enter__(self) -> RunningFront:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._output = (self._folder / "front.txt").open("w")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "front", "--triton", self.triton),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
                *self._options,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT / "client")} | self._environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(self._has_said_its_ports, "the front to be ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        return f"127.0.0.1:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    def output(self) -> str:
        """All that it has printed so far, its log included."""
        return (self._folder / "front.txt").read_text()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self._output.close()

    def _has_said_its_ports(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the front did not start:\n{self.output()}")
        match = re.search(
            r"front ready: HTTP \S+:(\d+), gRPC \S+:(\d+), metrics :(\d+)", self.output()
        )
        if match:
            names = ("http", "grpc", "metrics")
            self.ports = {name: int(port) for name, port in zip(names, match.groups(), strict=True)}
            if keyless := re.search(r", without keys :(\d+)", self.output()):
                self.ports["keyless"] = int(keyless[1])
        return match is not None
