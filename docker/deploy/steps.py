"""The steps of a deployment: a repository, containers, a first answer."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sam2_server.probe import probe

from deploy.errors import DeployError
from deploy.files import DeployDir, Deployment
from deploy.gpu_profile import GpuSettings, Provider, apply_to_repository

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker/compose.yaml"
# Triton's own ports, where no gateway stands before it.
OPEN_COMPOSE_FILE = ROOT / "docker/compose.open.yaml"
# The gateway's port for Paintera, where it was asked for.
PAINTERA_COMPOSE_FILE = ROOT / "docker/compose.paintera.yaml"
PAINTERA = "paintera"  # among a deployment's profiles; no service is in it
STATE_DIR, ADMIN_KEY_FILE = "/var/lib/sam2", "/run/secrets/admin_key"  # in the server's container
DEMO_ONNX = ROOT / "export/demo_model/onnx"
ALL_PROFILES = ("cpu", "gpu", "wheel", "secure", "monitoring", "tracing")


def stage_repository(
    directory: DeployDir, deployment: Deployment, checkpoint: str | None = None
) -> None:
    """Download, export, profile: a complete repository beside the served one.

    With a `checkpoint` (Meta's .pt file, a Hugging Face directory or id), nothing is downloaded from Meta.
    """
    shutil.rmtree(directory.staged, ignore_errors=True)
    images_alone = () if deployment.video else ("--no-video",)
    if deployment.size == "demo":
        _python(
            *("export.repository", "--onnx-dir", DEMO_ONNX, "--output-dir", directory.staged),
            *images_alone,
        )
    else:
        if checkpoint is None:
            _python("export.download", deployment.size)
        _python(
            *("export", *_weights(deployment.size, checkpoint)),
            *("--precision", deployment.precision),
            *images_alone,
            *("--output-dir", directory.staged, "--device", _export_device(deployment)),
            *(
                ()
                if deployment.image_size is None
                else ("--image-size", str(deployment.image_size))
            ),
        )
    if deployment.provider is not None:
        provider: Provider = "tensorrt" if deployment.provider == "tensorrt" else "cuda"
        apply_to_repository(directory.staged, GpuSettings(provider=provider))
    # The container's user is another one when root deploys.
    for path in (directory.staged, *directory.staged.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def find_compose() -> list[str]:
    """The compose command of this machine."""
    # `podman compose` hands the file to whatever it finds, Docker's compose first, through which a GPU does
    # not arrive; hence last.
    for command in (["docker", "compose"], ["podman-compose"], ["podman", "compose"]):
        engine = command[0].partition("-")[0]
        # A command line alone is no engine: Docker's may have nobody to talk to.
        works = shutil.which(command[0]) and _succeeds([*command, "version"])
        if works and _succeeds([engine, "info"]):
            return command
    raise DeployError(
        "Neither `docker compose` nor `podman compose` works here. Install Docker with its compose plugin, "
        "or Podman with podman-compose, and see that `docker info` or `podman info` succeeds for this user; "
        "without containers, use `just serve`."
    )


def compose(directory: DeployDir, profiles: Sequence[str], *arguments: str) -> None:
    """Run a compose command on the deployment; its output is the user's."""
    command = find_compose()
    environment = dict(os.environ)
    if command[0].startswith("podman"):
        # The OCI format, Podman's default, has neither health checks nor a shell of the build's own.
        environment.setdefault("BUILDAH_FORMAT", "docker")
        environment.setdefault("PODMAN_COMPOSE_PROVIDER", "podman-compose")
        # Rootless Podman maps users; the deploying one, who owns the key files, stays who he is.
        if os.getuid() != 0:
            environment.setdefault("PODMAN_USERNS", "keep-id")
    started = [profile for profile in profiles if profile != PAINTERA]
    options = [word for profile in started for word in ("--profile", profile)]
    files = [COMPOSE_FILE, *([] if "secure" in profiles else [OPEN_COMPOSE_FILE])]
    files += [PAINTERA_COMPOSE_FILE] if PAINTERA in profiles else []
    done = subprocess.run(
        [
            *command,
            "--env-file",
            str(directory.env_file),
            *(word for file in files for word in ("-f", str(file))),
            *options,
            *arguments,
        ],
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise DeployError(
            f"`{' '.join(command)} {arguments[0]}` ended with {done.returncode}, see above"
        )


def wait_for_answer(url: str, seconds: float, report: Callable[[str], None]) -> None:
    """Return once the server answers a real call."""

    def problem() -> str | None:
        result = probe(url, 60)
        return None if result.healthy else result.message

    _wait(problem, url, seconds, report)


def wait_inside(
    directory: DeployDir, deployment: Deployment, seconds: float, report: Callable[[str], None]
) -> None:
    """The same, asked in the server's container, whose ports nobody else reaches."""

    def problem() -> str | None:
        try:
            in_server(directory, deployment, "probe", "--state-dir", STATE_DIR, "--timeout", "60")
        except DeployError as error:
            return str(error)
        return None

    _wait(problem, "the server in its container", seconds, report)


def reload_inside(directory: DeployDir, deployment: Deployment) -> None:
    """Load the models anew from within the server's container, which holds the administrative key."""
    options = ("--state-dir", STATE_DIR, "--admin-key-file", ADMIN_KEY_FILE)
    in_server(directory, deployment, "load", *options)


def in_server(directory: DeployDir, deployment: Deployment, *arguments: str) -> None:
    """Run the launcher's command line in the server's container."""
    command = ("exec", "-T", deployment.profiles[0], "python3", "-m", "sam2_server", *arguments)
    compose(directory, deployment.profiles, *command)


def _wait(
    problem: Callable[[], str | None], what: str, seconds: float, report: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + seconds
    said = ""
    while (message := problem()) is not None:
        if time.monotonic() > deadline:
            raise DeployError(
                f"No answer from {what} within {seconds:g} s, last: {message}. See just logs"
            )
        if message != said:
            said = message
            report(f"waiting: {said}")
        time.sleep(2)


def urls(deployment: Deployment) -> dict[str, str]:
    """What to tell the user, by purpose."""

    def port(name: str, default: str) -> str:
        return os.environ.get(name, default)

    if "secure" in deployment.profiles:
        gateway = port("SAM2_GATEWAY_PORT", "8443")
        found = {"gateway": f"https://localhost:{gateway} and grpcs://localhost:{gateway}"}
        if PAINTERA in deployment.profiles:
            found["Paintera"] = f"http://localhost:{port('SAM2_PAINTERA_PORT', '8001')}"
    else:
        found = {
            "HTTP": f"http://127.0.0.1:{port('SAM2_HTTP_PORT', '8000')}",
            "gRPC": f"grpc://127.0.0.1:{port('SAM2_GRPC_PORT', '8001')}",
            "metrics": f"http://127.0.0.1:{port('SAM2_METRICS_PORT', '8002')}/metrics",
        }
    if "monitoring" in deployment.profiles:
        found["Grafana"] = f"http://127.0.0.1:{port('SAM2_GRAFANA_PORT', '3000')}"
        found["Prometheus"] = f"http://127.0.0.1:{port('SAM2_PROMETHEUS_PORT', '9090')}"
    if "tracing" in deployment.profiles:
        found["traces"] = f"http://127.0.0.1:{port('SAM2_JAEGER_PORT', '16686')}"
    return found


def has_nvidia_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def _weights(size: str, checkpoint: str | None) -> tuple[str, ...]:
    if checkpoint is None:
        return ("--size", size)
    if Path(checkpoint).is_file():  # Meta's format says nothing of its architecture
        return ("--size", size, "--checkpoint", checkpoint)
    return ("--checkpoint", checkpoint, "--model-name", size)


def _export_device(deployment: Deployment) -> str:
    """Where PyTorch traces: FP16 takes many minutes on a processor and seconds on a GPU."""
    if deployment.provider is None:
        return "cpu"
    import torch  # noqa: PLC0415 - heavy, and needed for GPUs alone

    return "cuda" if torch.cuda.is_available() else "cpu"


def _python(module: str, *arguments: str | Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'docker'}"}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, env=environment, check=False
    )
    if done.returncode != 0:
        raise DeployError(f"python -m {module} ended with {done.returncode}, see above")


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
