"""The server that the demos start, and where it and its repository lie."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / ".demo_repository"
STATE_DIR = ROOT / ".run" / "demo"


@contextmanager
def running_server() -> Iterator[dict[str, int]]:
    """The project's own launcher on free ports, stopped at the end; yields its state."""
    launcher = [sys.executable, "-m", "sam2_server"]
    state_dir = ["--state-dir", str(STATE_DIR)]
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    serve = [
        *launcher,
        "serve",
        "--detach",
        "--no-probe",
        "--model-repository",
        str(REPOSITORY),
        *state_dir,
        *ports,
    ]
    subprocess.run(serve, check=True)
    try:
        yield json.loads((STATE_DIR / "server.json").read_text())
    finally:
        subprocess.run([*launcher, "stop", *state_dir], check=True)
