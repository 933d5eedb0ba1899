"""From options to a supervisor that is about to start: all checks, all names, all files."""

import os
import time
from pathlib import Path

from rich.console import Console

from sam2_server.addresses import in_url
from sam2_server.environment import find_installation
from sam2_server.errors import LauncherError, RepositoryError
from sam2_server.ports import choose_ports
from sam2_server.probe import MODEL
from sam2_server.process import ServerOptions, TritonProcess, build_command, kill_processes
from sam2_server.repository import python_instances, read_repository
from sam2_server.shared_memory import check_room, region_prefix, remove_regions
from sam2_server.state import ProcessId, ServerState, StateDir
from sam2_server.supervisor import Supervisor, SupervisorOptions


def prepare(
    state_dir: StateDir,
    server: ServerOptions,
    supervision: SupervisorOptions,
    console: Console,
) -> Supervisor:
    """Check everything that can be checked before tritonserver starts. The directory is locked."""
    clean_up_after_dead(state_dir)
    installation = find_installation()
    configs = read_repository(server.model_repository)
    if supervision.probe and MODEL not in configs:
        raise RepositoryError(
            f"{server.model_repository} has no model {MODEL!r}, which the health probe asks.",
            "Serve a complete repository, or give --no-probe.",
        )
    onnx_in_python = installation.native_backends is None
    check_room(python_instances(configs, onnx_in_python=onnx_in_python), server.shm_mb)
    ports = choose_ports(server.host, server.ports)
    prefix = region_prefix(os.getpid(), time.time())
    backends = installation.assemble_backends(state_dir.path / "backends")
    command = build_command(installation, backends, server, ports, prefix)
    state = ServerState(
        status="starting",
        launcher=ProcessId.of(os.getpid()),
        server=None,
        host=server.host,
        http_port=ports.http,
        grpc_port=ports.grpc,
        metrics_port=ports.metrics,
        model_repository=str(server.model_repository),
        shm_prefix=prefix,
        log_file=str(state_dir.log_file),
        urls=urls(server, ports.http, ports.grpc, ports.metrics),
    )
    rotate(state_dir.log_file)

    def launch() -> TritonProcess:
        return TritonProcess(command, installation.environment(), state_dir.log_file, prefix)

    return Supervisor(launch, state_dir, state, supervision, console)


def urls(server: ServerOptions, http: int, grpc: int, metrics: int) -> dict[str, str]:
    """Where clients on this machine find the server."""
    host = in_url(server.host)
    over_tls = any("--grpc-use-ssl" in argument for argument in server.extra_arguments)
    found = {
        "http": f"http://{host}:{http}",
        "grpc": f"{'grpcs' if over_tls else 'grpc'}://{host}:{grpc}",
        "metrics": f"http://{host}:{metrics}/metrics",
    }
    # The launcher has no client certificate, so it probes where there is no TLS.
    return found | {"probe": found["http" if over_tls else "grpc"]}


def clean_up_after_dead(state_dir: StateDir) -> None:
    """Remove what a killed launcher left: its server, its shared memory, its state."""
    state = state_dir.read()
    if state is not None and state.launcher.process() is None:
        kill_processes(state.shm_prefix)
        remove_regions(state.shm_prefix)
        state_dir.remove()


def read_admin_key(path: Path | None) -> str | None:
    """The key in the file, or None without a file; an empty or short key is refused."""
    if path is None:
        return None
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise LauncherError(
            f"Cannot read --admin-key-file {path}: {error.strerror}.",
            "Give a file that holds the key alone.",
        ) from error
    if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key or "," in key:
        raise LauncherError(
            f"--admin-key-file {path}: expected at least 16 printable ASCII characters without "
            f"spaces and commas, got {len(key)} characters.",
            "Make one: openssl rand -hex 32 > FILE.",
        )
    return key


def rotate(log_file: Path) -> None:
    """Keep the log of the run before, and no more than that."""
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".previous.log"))
