"""Servers to compare: a local one on the CPU, and the GPU image with a provider."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.errors import DeployError
from sam2_server.probe import probe

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "triton-sam2:triton"


@contextmanager
def launched(repository: Path, state_dir: Path, start_seconds: float) -> Iterator[str]:
    """A server by the launcher here: the wheel's, or NVIDIA's inside its container; yields its gRPC URL."""
    base = [sys.executable, "-m", "sam2_server"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "docker")}
    _run(
        *(*base, "serve", "--detach", "--model-repository", str(repository)),
        *("--state-dir", str(state_dir), "--start-timeout", str(start_seconds)),
        *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
        env=environment,
    )
    try:
        yield json.loads((state_dir / "server.json").read_text())["urls"]["grpc"]
    finally:
        _run(*base, "stop", "--state-dir", str(state_dir), env=environment)


def build_image() -> None:
    engine = _engine()
    _run(
        *(engine, "build", "--file", str(ROOT / "docker/Dockerfile"), "--target", "triton"),
        *("--build-arg", f"SAM2_UID={os.getuid() or 10001}", "--tag", IMAGE, str(ROOT)),
    )


@contextmanager
def contained(repository: Path, engine_dir: Path, start_seconds: float) -> Iterator[str]:
    """The GPU image with all GPUs on a free port; yields its gRPC URL. Ends with the block."""
    engine = _engine()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    name = f"sam2-gpu-check-{port}"
    # Podman names devices by CDI.
    gpus = ["--gpus", "all"] if engine == "docker" else ["--device", "nvidia.com/gpu=all"]
    _run(
        *(engine, "run", "--detach", "--name", name, *gpus, "--shm-size", "2g"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--volume", f"{repository.resolve()}:/models/repository:ro"),
        *("--volume", f"{engine_dir.resolve()}:/var/cache/sam2"),
        *("--publish", f"127.0.0.1:{port}:8001", IMAGE),
        *("serve", "--model-repository", "/models/repository", "--state-dir", "/var/lib/sam2"),
        *("--host", "0.0.0.0", "--start-timeout", str(start_seconds)),  # noqa: S104 - published on loopback
    )
    url = f"grpc://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + start_seconds
        while not (result := probe(url, 60)).healthy:
            state = subprocess.run(
                [engine, "inspect", "--format", "{{.State.Running}}", name],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
            if state != "true" or time.monotonic() > deadline:
                subprocess.run([engine, "logs", "--tail", "60", name], check=False)
                raise DeployError(f"the server did not come up: {result.message}; its log is above")
            time.sleep(2)
        yield url
    finally:
        subprocess.run([engine, "rm", "--force", name], capture_output=True, check=False)


def _engine() -> str:
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            return engine
    raise DeployError("neither docker nor podman is here; inside NVIDIA's container use --native")


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, check=False)
    if done.returncode != 0:
        raise DeployError(f"`{' '.join(command[:4])} …` ended with {done.returncode}, see above")
