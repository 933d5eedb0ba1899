"""A whole deployment by a real container engine: `just test-deploy`.

Not part of `just test`: it needs Docker or Podman with compose, base images, and minutes. It deploys under a
project name, ports and a directory of its own, so that a deployment beside it is left alone (the image tags
are shared), and removes everything it made. Untrained weights: this is about containers, not about masks.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from deploy.steps import find_compose
from front.api_keys import read_api_keys
from sam2_server.process import ADMIN_KEY_HEADER
from triton_sam2 import SAM2TritonClient

from tests.raw_client import large_form
from tests.running_server import ROOT

# NVIDIA's image, or the small one of the wheel: SAM2_TEST_SERVER=wheel just test-deploy.
SERVER = os.environ.get("SAM2_TEST_SERVER", "cpu")
PROJECT = "triton-sam2-test"
IMAGE = ROOT / "client/examples/images/coins.png"
CLICK = ([[109, 199]], [1])
PORTS = ("GATEWAY",)
DEPLOY_SECONDS, HEALTH_SECONDS, IMAGE_SIZE = 1800, 90, 256
SEEDS = {"before": 0, "after": 1}


@dataclass
class Deployed:
    folder: Path
    engine: str
    environment: dict[str, str]
    output: str = ""
    weights: dict[str, Path] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.folder / "deploy"

    def port(self, name: str) -> int:
        return int(self.environment[f"SAM2_{name}_PORT"])

    def client(self, scheme: str = "grpcs") -> SAM2TritonClient:
        """By the only way in."""
        return SAM2TritonClient(
            f"{scheme}://localhost:{self.port('GATEWAY')}",
            headers={"x-api-key": self.api_key()},
            ca_file=str(self.directory / "gateway/ca.pem"),
        )

    def run(self, *arguments: str) -> str:
        """`python -m deploy …`, as the recipes call it."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy", *arguments, "--directory", str(self.directory)],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEPLOY_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def ask_engine(self, *arguments: str) -> str:
        return subprocess.run(
            [self.engine, *arguments], text=True, capture_output=True, timeout=120, check=True
        ).stdout.strip()

    def container(self, service: str) -> str:
        """Name of the container of a compose service; both engines' compose label it so."""
        found = self.ask_engine(
            *("ps", "--all", "--format", "{{.Names}}"),
            *("--filter", f"label=com.docker.compose.project={PROJECT}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        )
        assert found, f"no container of {service}"
        return found

    def inspect(self, service: str) -> dict:
        return json.loads(self.ask_engine("inspect", self.container(service)))[0]

    def execute(self, service: str, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.engine, "exec", self.container(service), "sh", "-c", script],
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def api_key(self) -> str:
        return read_api_keys((self.directory / "secrets/api_keys").read_text())[0].key

    def admin_key(self) -> str:
        return (self.directory / "secrets/admin_key").read_text().strip()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    from export.checkpoint import random_checkpoint

    folder = tmp_path_factory.mktemp("engine")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {
        f"SAM2_{name}_PORT": str(opened.getsockname()[1])
        for name, opened in zip(PORTS, sockets, strict=True)
    }
    for opened in sockets:
        opened.close()
    environment = os.environ | ports
    environment |= {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "docker"))),
    }
    made = Deployed(folder, find_compose()[0].partition("-")[0], environment)
    for name, seed in SEEDS.items():
        made.weights[name] = folder / name
        random_checkpoint("tiny", seed, IMAGE_SIZE).model.save_pretrained(made.weights[name])
    started = time.monotonic()
    try:
        made.output = made.run(
            *("up", "tiny", f"--{SERVER}", "--secure"),
            *("--checkpoint", str(made.weights["before"]), "--image-size", str(IMAGE_SIZE)),
        )
        print(f"\ndeployed with {made.engine} in {time.monotonic() - started:.0f} s")
        yield made
    finally:
        made.run("down", "--purge")
    label = f"label=com.docker.compose.project={PROJECT}"
    for what in (("ps", "--all"), ("volume", "ls"), ("network", "ls")):
        left = made.ask_engine(*what, "--quiet", "--filter", label)
        assert not left, f"{what}: {left}"
    assert not made.directory.exists()


def test_urls_are_told(deployed: Deployed) -> None:
    assert f"https://localhost:{deployed.port('GATEWAY')}" in deployed.output


def test_the_engine_finds_it_healthy(deployed: Deployed) -> None:
    deadline = time.monotonic() + HEALTH_SECONDS
    while (health := deployed.inspect(SERVER)["State"]["Health"])["Status"] != "healthy":
        assert time.monotonic() < deadline, health
        time.sleep(2)


def test_it_is_confined(deployed: Deployed) -> None:
    """As the engine reports it, and as the processes in the container find it."""
    for service in (SERVER, "front", "gateway"):
        inspected = deployed.inspect(service)
        assert inspected["Config"]["User"].split(":")[0] not in ("", "0", "root")
        assert inspected["HostConfig"]["ReadonlyRootfs"] is True
        assert inspected["HostConfig"]["Privileged"] is False
        status = deployed.execute(service, "cat /proc/1/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split(), service
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
        assert fields["NoNewPrivs"] == "1", service
        bindings = [
            one for ports in inspected["NetworkSettings"]["Ports"].values() for one in ports or ()
        ]
        assert bool(bindings) == (service == "gateway"), service
        assert {one["HostIp"] for one in bindings} <= {"127.0.0.1"}, service
    for place in ("/", "/models", "/models/repository", "/opt/sam2"):
        assert "Read-only" in deployed.execute(SERVER, f"touch {place}/x").stderr, place
    for command in ("cc", "gcc", "pip"):
        assert deployed.execute(SERVER, f"command -v {command}").returncode != 0, command
    assert deployed.execute(SERVER, "python3 -c 'import torch'").returncode != 0


def test_it_answers_over_grpc_and_http(deployed: Deployed) -> None:
    by_grpc, _ = deployed.client("grpcs").segment(str(IMAGE), *CLICK)
    by_http, _ = deployed.client("https").segment(str(IMAGE), *CLICK)
    np.testing.assert_array_equal(by_grpc, by_http)


class TestGateway:
    def test_a_large_image_called_a_form_is_a_bad_image(self, deployed: Deployed) -> None:
        """Triton would lay it out on a thread's stack."""
        body, headers = large_form()
        request = urllib.request.Request(
            f"https://localhost:{deployed.port('GATEWAY')}/v2/models/sam2/infer",
            data=body,
            headers={"x-api-key": deployed.api_key(), **headers},
        )
        context = ssl.create_default_context(cafile=str(deployed.directory / "gateway/ca.pem"))
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, context=context, timeout=60)
        assert refused.value.code == 400
        assert b"image" in refused.value.read()

    @pytest.mark.parametrize(
        ("path", "with_key", "body_bytes", "status"),
        [
            ("/v2/models/sam2", True, 0, 200),
            ("/v2/models/sam2", False, 0, 401),
            ("/v2/models/sam2/infer", True, 84_000_000, 413),
            ("/v2/models/sam2/infer", True, 2_000_000, 400),
            ("/v2/repository/models/sam2/load", True, 2, 404),
        ],
    )
    def test_status(
        self, deployed: Deployed, path: str, with_key: bool, body_bytes: int, status: int
    ) -> None:
        request = urllib.request.Request(
            f"https://localhost:{deployed.port('GATEWAY')}{path}",
            data=b" " * body_bytes if body_bytes else None,
            headers={
                ADMIN_KEY_HEADER: deployed.admin_key(),
                **({"x-api-key": deployed.api_key()} if with_key else {}),
            },
        )
        context = ssl.create_default_context(cafile=str(deployed.directory / "gateway/ca.pem"))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                got = answer.status
        except urllib.error.HTTPError as error:
            got = error.code
        assert got == status


def test_administrative_calls_need_the_key(deployed: Deployed) -> None:
    """Also for who has got into the server's own network."""
    for call in ("load_model('sam2_prompt')", "get_system_shared_memory_status()"):
        script = (
            f"from tritonclient import grpc; grpc.InferenceServerClient('127.0.0.1:8001').{call}"
        )
        done = deployed.execute(SERVER, f'python3 -c "{script}"')
        assert done.returncode != 0
        assert "InferenceServerException" in done.stderr


def test_other_weights_come_in_under_traffic(deployed: Deployed) -> None:
    """Every answer is the old model's or the new one's, none fails, and the last ones are the new one's."""
    old, _ = deployed.client().segment(str(IMAGE), *CLICK)
    answers: list[tuple[float, bytes]] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def click() -> None:
        client = deployed.client()
        client.set_image(str(IMAGE))
        while not stop.is_set():
            try:
                masks, _ = client.predict(*CLICK)
                answers.append((time.monotonic(), masks.tobytes()))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                failures.append(error)

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        said = deployed.run("reload", "tiny", "--checkpoint", str(deployed.weights["after"]))
    finally:
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
    new, _ = deployed.client().segment(str(IMAGE), *CLICK)
    assert "Serving tiny" in said
    assert not failures, failures
    assert (old != new).any()
    found = [masks for _, masks in answers]
    times = sorted(moment for moment, _ in answers)
    longest = max(later - earlier for earlier, later in pairwise(times))
    counts = {"old": found.count(old.tobytes()), "new": found.count(new.tobytes())}
    print(f"\nreload under traffic: {counts}, longest silence {longest * 1e3:.0f} ms")
    assert sum(counts.values()) == len(found)
    assert counts["old"] > 10
    assert counts["new"] > 0


def test_logs_say_what_was_loaded(deployed: Deployed) -> None:
    said = deployed.run("logs", "--no-follow", SERVER)
    assert "7 of 7 models loaded" in said
    for secret in (deployed.admin_key(), deployed.api_key()):
        assert secret not in said


def test_a_killed_server_comes_back(deployed: Deployed) -> None:
    deployed.execute(SERVER, "kill -9 $(pidof tritonserver || ps -C tritonserver -o pid=)")
    started = time.monotonic()
    while True:
        try:
            deployed.client().segment(str(IMAGE), *CLICK)
            break
        except Exception:  # noqa: BLE001 - anything but an answer
            assert time.monotonic() - started < HEALTH_SECONDS
            time.sleep(0.5)
    print(f"\nback {time.monotonic() - started:.1f} s after the kill")


def test_it_stops_by_itself(deployed: Deployed) -> None:
    """In-flight work gets its ten seconds; the engine need not kill."""
    started = time.monotonic()
    deployed.ask_engine("stop", "--time", "40", deployed.container(SERVER))
    seconds = time.monotonic() - started
    assert deployed.inspect(SERVER)["State"]["ExitCode"] == 0
    print(f"\nstopped in {seconds:.1f} s")
    assert seconds < 40
