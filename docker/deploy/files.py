"""The deployment's directory: models, secrets, the gateway's files, what compose is told."""

import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from front.api_keys import ApiKeysError, read_api_keys

from deploy.errors import DeployError
from deploy.gateway import GatewaySettings, make_certificates, render, render_api_keys

# Who runs the containers when root deploys: never root.
CONTAINER_UID = 10001
TRACING = (
    "--trace-config=mode=opentelemetry "
    "--trace-config=opentelemetry,url=http://jaeger:4318/v1/traces "
    "--trace-config=opentelemetry,resource=service.name=triton-sam2 "
    "--trace-config=level=TIMESTAMPS --trace-config=rate=100"
)
# Whom the gateway let in: nobody else reaches this port, in a network that the two have for themselves.
KEYLESS = "--keyless-port 8083 --keyless-from 0.0.0.0/0"


@dataclass(frozen=True)
class Deployment:
    """What was deployed; `reload` and `undeploy` go by it."""

    size: str
    provider: str | None  # cuda, tensorrt, or None on the CPU
    profiles: list[str] = field(default_factory=list)
    tls_hosts: list[str] = field(default_factory=lambda: ["localhost", "127.0.0.1"])
    image_size: int | None = None  # None: the checkpoint's own
    # Networks whose Painteras come without an API key.
    paintera_from: list[str] = field(default_factory=list)
    video: bool = True  # False: images alone, nothing of tracking is exported or loaded

    @property
    def precision(self) -> str:
        # TensorRT and CUDA compute in the graph's own types; processors have no fast FP16.
        return "fp32" if self.provider is None else "fp16"


class DeployDir:
    """`.deploy/`, which ignores itself in git and hides from other users what is secret."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.repository = self.path / "models" / "repository"
        self.staged = self.path / "staged" / "repository"
        self.env_file = self.path / "compose.env"

    def prepare(self, deployment: Deployment) -> None:
        """Make everything that is not there yet; existing keys and certificates stay."""
        self.path.mkdir(exist_ok=True)
        (self.path / ".gitignore").write_text("*\n")
        self.repository.parent.mkdir(exist_ok=True)
        self.staged.parent.mkdir(exist_ok=True)
        self._secret("admin_key", secrets.token_hex(32))
        self._secret("grafana_password", secrets.token_urlsafe(24))
        if "secure" in deployment.profiles:
            self._write_gateway(deployment)
        self._write_env(deployment)
        (self.path / "deployment.json").write_text(json.dumps(asdict(deployment), indent=2) + "\n")

    def read(self) -> Deployment:
        try:
            return Deployment(**json.loads((self.path / "deployment.json").read_text()))
        except FileNotFoundError as error:
            raise DeployError(
                f"{self.path}: nothing was deployed from here; just deploy SIZE"
            ) from error

    def admin_key(self) -> str:
        return (self.path / "secrets/admin_key").read_text().strip()

    def swap_in_staged(self) -> None:
        """The staged repository takes the served one's place; the served one becomes staged."""
        aside = self.repository.with_name("aside")
        # What an exchange left behind that was cut off halfway.
        if aside.exists() and self.repository.exists():
            shutil.rmtree(aside)
        elif aside.exists():
            aside.rename(self.repository)
        if self.repository.exists():
            self.repository.rename(aside)
        self.staged.rename(self.repository)
        if aside.exists():
            aside.rename(self.staged)

    def _secret(self, name: str, value: str) -> Path:
        directory = self.path / "secrets"
        directory.mkdir(mode=0o700, exist_ok=True)
        file = directory / name
        if not file.exists():
            write_private(file, value + "\n")
        return file

    def _write_gateway(self, deployment: Deployment) -> None:
        directory = self.path / "gateway"
        directory.mkdir(exist_ok=True)
        keys_file = self._secret(
            "api_keys", f"# NAME KEY [TENANT]\nfirst {secrets.token_urlsafe(32)}"
        )
        try:
            keys = read_api_keys(keys_file.read_text())
        except ApiKeysError as error:
            raise DeployError(f"{keys_file}: {error}") from error
        write_private(directory / "api_keys.conf", render_api_keys(keys))
        if not (directory / "server.pem").exists():
            make_certificates(directory, deployment.tls_hosts)
        self._own(directory / "server.key")
        settings = GatewaySettings(
            client_certificates=(directory / "client_ca.pem").exists(),
            paintera_from=tuple(deployment.paintera_from),
        )
        (directory / "nginx.conf").write_text(render(settings))

    def _own(self, file: Path) -> None:
        give_to_container(file)

    def _write_env(self, deployment: Deployment) -> None:
        lines = {
            "SAM2_UID": str(container_uid()),
            "SAM2_DEPLOY_DIR": str(self.path),
            "SAM2_TRITON_ARGUMENTS": TRACING
            if "tracing" in deployment.profiles
            else "--log-info=true",
            "SAM2_FRONT_OPTIONS": KEYLESS if deployment.paintera_from else "",
        }
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


def container_uid() -> int:
    """The deploying user's id, who can read the key files; never root's."""
    return os.getuid() or CONTAINER_UID


def write_private(file: Path, text: str) -> None:
    """A file that its owner alone can read, from its first moment on."""
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    give_to_container(partial)
    partial.replace(file)


def give_to_container(file: Path) -> None:
    if os.getuid() == 0:
        os.chown(file, CONTAINER_UID, CONTAINER_UID)
