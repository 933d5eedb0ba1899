"""From options to a supervisor that is about to start: all checks, all names, all files."""

import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from sam2_server.addresses import in_url
from sam2_server.drain import STOPPING_VARIABLE, stopping_file
from sam2_server.environment import TritonInstallation, find_installation
from sam2_server.errors import LauncherError, RepositoryError
from sam2_server.plain_paths import is_plain, make_private_directory, remove_private_directory
from sam2_server.ports import choose_ports
from sam2_server.probe import MODEL, SECRET_VARIABLE, Asker
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
    files = _plain_files(state_dir, installation, server)
    command = build_command(
        installation,
        files.backends,
        replace(server, model_repository=files.repository),
        ports,
        prefix,
    )
    inner_secret = secrets.token_hex(32)
    environment = installation.environment() | {
        STOPPING_VARIABLE: str(stopping_file(prefix)),
        SECRET_VARIABLE: inner_secret,
        # Read by the models, which ask for room before they answer.
        "SAM2_SHM_GROWTH_BYTES": str(server.shm_growth_mb << 20),
    }
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
        probe_token=Asker.new().token,
        inner_secret=inner_secret,
        private_directory=None if files.private is None else str(files.private),
        urls=urls(server, ports.http, ports.grpc, ports.metrics),
    )
    rotate(state_dir.log_file)

    def launch() -> TritonProcess:
        return TritonProcess(command, environment, state_dir.log_file, prefix)

    return Supervisor(launch, state_dir, state, supervision, console)


@dataclass(frozen=True)
class PlainFiles:
    """What Triton is given, at paths that it can work with."""

    backends: Path
    repository: Path
    private: Path | None  # the directory made for them, where theirs would not do


def _plain_files(
    state_dir: StateDir, installation: TritonInstallation, server: ServerOptions
) -> PlainFiles:
    private = None
    if not (is_plain(state_dir.path) and is_plain(server.model_repository)):
        private = make_private_directory()
    try:
        backends = installation.assemble_backends((private or state_dir.path) / "backends")
        if is_plain(server.model_repository) or private is None:
            return PlainFiles(backends, server.model_repository, private)
        repository = private / "models"
        repository.symlink_to(server.model_repository, target_is_directory=True)
    except OSError as error:
        if private is not None:
            remove_private_directory(private)
        raise LauncherError(
            f"Cannot write Triton's files to {private or state_dir.path}: {error.strerror}.",
            "Make room there, or give another directory (--state-dir, TMPDIR).",
        ) from error
    return PlainFiles(backends, repository, private)


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
        if state.private_directory is not None:
            remove_private_directory(Path(state.private_directory))
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
