"""Running the launcher as users do, and seeing what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]
from sam2_server.probe import Asker, probe_inputs
from tritonclient import grpc

from tests.patience import wait_until

DOCKER_DIR = Path(__file__).resolve().parents[2] / "docker"
SHARED_MEMORY = Path("/dev/shm")
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sam2_server", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(DOCKER_DIR), **changes}


def run(
    *arguments: str | Path, timeout: float = 60, **changes: str
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, with everything it says in `stdout`."""
    return subprocess.run(
        command(*arguments),
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


class Launcher:
    """A launcher process with its state directory."""

    def __init__(
        self,
        repository: Path,
        state_dir: Path,
        *options: str,
        ports: tuple[str, ...] = FREE_PORTS,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.output_file = state_dir.with_suffix(".out")
        with self.output_file.open("w") as output:
            self.process = subprocess.Popen(
                command(
                    "serve",
                    "--model-repository",
                    repository,
                    "--state-dir",
                    state_dir,
                    *ports,
                    *options,
                ),
                env=environment(**(variables or {})),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.prefix = ""

    def wait_ready(self, seconds: float = 60) -> "Launcher":
        wait_until(lambda: self.has_ended() or self._is_ready(), "ready", seconds)
        assert not self.has_ended(), self.output()
        self.prefix = self.state()["shm_prefix"]
        return self

    def _is_ready(self) -> bool:
        # The file may still be that of a launcher which died here before.
        state = self.state()
        return (
            bool(state)
            and state["status"] == "ready"
            and state["launcher"]["pid"] == self.process.pid
        )

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def state(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state_dir / "server.json").read_text()))
        except FileNotFoundError:
            return {}

    def output(self) -> str:
        return self.output_file.read_text()

    def grpc_address(self) -> str:
        return str(self.state()["urls"]["grpc"]).removeprefix("grpc://")

    def server(self) -> psutil.Process:
        return psutil.Process(self.state()["server"]["pid"])

    def stub(self, model: str) -> psutil.Process:
        for child in self.server().children():
            if child.status() != psutil.STATUS_ZOMBIE and f"{model}_0_0" in child.cmdline():
                return child
        raise LookupError(f"no process of {model}")

    def reaper(self) -> psutil.Process:
        """The process that removes what this launcher leaves when it is killed."""
        for child in psutil.Process(self.process.pid).children():
            if child.cmdline()[-1] == "sam2_server.reaper":
                return child
        raise LookupError("no reaper")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def leftovers(self) -> list[str]:
        """Processes and memory regions that the server made and that still exist."""
        assert self.prefix, "wait_ready first"
        processes = [
            str(process.pid)
            for process in psutil.process_iter(["cmdline"])
            if any(self.prefix in word for word in process.info["cmdline"] or ())
        ]
        return processes + [path.name for path in SHARED_MEMORY.glob(f"{self.prefix}*")]

    def end(self) -> None:
        """After a test, whatever its result: nothing of it stays."""
        if not self.has_ended():
            self.process.kill()
            self.process.wait()
        run("stop", "--state-dir", self.state_dir)


def infer(address: str, image_id: str = "test", timeout: float = 30) -> float:
    """One request to the public model; its one number."""
    inputs = []
    tensors = probe_inputs(Asker("test")) | {
        "image_id": ("BYTES", np.array([image_id.encode()], np.object_))
    }
    for name, (dtype, array) in tensors.items():
        tensor = grpc.InferInput(name, list(array.shape), dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with grpc.InferenceServerClient(address) as client:
        result = client.infer("sam2", inputs, client_timeout=timeout)
    return float(result.as_numpy("iou_predictions")[0, 0])
