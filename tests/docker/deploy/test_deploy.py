"""The whole way of `just deploy demo`; a stand-in for the container engine starts the real server."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deploy.errors import DeployError
from deploy.files import DeployDir, Deployment, write_private
from deploy.reload import check_interchangeable
from deploy.steps import stage_repository
from front.api_keys import read_api_keys
from sam2_server.loading import CLIENT_ORDER, ORDER
from triton_sam2 import SAM2TritonClient

from export.repository import assemble_repository
from tests.patience import wait_until
from tests.running_server import ROOT

IMAGE = ROOT / "client/examples/images/coins.png"
# Takes what `docker compose` takes of us, and runs the launcher as the container would.
ENGINE = """#!{python}
import json, os, subprocess, sys
words = sys.argv[1:]
with open(os.environ["ENGINE_LOG"], "a") as log:
    log.write(json.dumps(words) + "\\n")
if "version" in words or words == ["info"]:
    sys.exit(0)
settings = dict(line.strip().split("=", 1) for line in open(words[words.index("--env-file") + 1]))
directory = settings["SAM2_DEPLOY_DIR"]
state = ["--state-dir", directory + "-state"]
if "up" in words:
    sys.exit(subprocess.call([
        sys.executable, "-m", "sam2_server", "serve", "--detach", *state,
        "--model-repository", directory + "/models/repository",
        "--explicit-models", "--admin-key-file", directory + "/secrets/admin_key",
        "--http-port", os.environ["SAM2_HTTP_PORT"], "--grpc-port", os.environ["SAM2_GRPC_PORT"],
        "--metrics-port", os.environ["SAM2_METRICS_PORT"],
        "--", *settings["SAM2_TRITON_ARGUMENTS"].split(),
    ]))
if "exec" in words:
    inside = words[words.index("python3") + 1:]
    places = {{"/var/lib/sam2": state[1], "/run/secrets/admin_key": directory + "/secrets/admin_key"}}
    sys.exit(subprocess.call([sys.executable, *(places.get(word, word) for word in inside)]))
if "down" in words:
    sys.exit(subprocess.call([sys.executable, "-m", "sam2_server", "stop", *state]))
"""


@dataclass
class Deployer:
    directory: Path
    environment: dict[str, str]
    output: str = ""
    calls: list[list[str]] = field(default_factory=list)

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.environment['SAM2_GRPC_PORT']}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deploy", *arguments, "--directory", str(self.directory)],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=400,
            check=False,
        )
        log = Path(self.environment["ENGINE_LOG"])
        self.calls = [json.loads(line) for line in log.read_text().splitlines()]
        return done


def deployer(folder: Path) -> Deployer:
    programs = folder / "bin"
    programs.mkdir()
    engine = programs / "docker"
    engine.write_text(ENGINE.format(python=sys.executable))
    engine.chmod(0o755)
    with socket.socket() as a, socket.socket() as b, socket.socket() as c:
        for one in (a, b, c):
            one.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]) for one in (a, b, c)]
    log = folder / "engine.log"
    log.touch()
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'docker'}",
        "ENGINE_LOG": str(log),
        **dict(zip(("SAM2_HTTP_PORT", "SAM2_GRPC_PORT", "SAM2_METRICS_PORT"), ports, strict=True)),
    }
    return Deployer(folder / "deploy", environment)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    made = deployer(tmp_path_factory.mktemp("deployment"))
    try:
        done = made.run("up", "demo", "--cpu", "--secure", "--monitoring")
        assert done.returncode == 0, done.stdout
        made.output = done.stdout
        yield made
    finally:
        done = made.run("down", "--purge")
    assert done.returncode == 0, done.stdout
    assert not made.directory.exists()
    assert made.calls[-1][-2:] == ["down", "--volumes"]


@pytest.mark.server
@pytest.mark.slow
class TestDeployment:
    def test_urls_and_keys_are_told_and_no_secret(self, deployed: Deployer) -> None:
        # Triton's own ports are closed.
        assert not re.search(r"^ +(HTTP|gRPC|metrics)  ", deployed.output, re.M)
        for name in ("gateway", "Grafana", "Prometheus"):
            assert name in deployed.output
        for file in (deployed.directory / "secrets").iterdir():
            assert str(file) in deployed.output
            for secret in file.read_text().split():
                assert len(secret) < 20 or secret not in deployed.output

    def test_the_profiles_are_those_asked_for(self, deployed: Deployer) -> None:
        [up] = [call for call in deployed.calls if "up" in call]
        profiles = [up[i + 1] for i, word in enumerate(up) if word == "--profile"]
        assert profiles == ["cpu", "secure", "monitoring"]
        files = [Path(up[i + 1]).name for i, word in enumerate(up) if word == "-f"]
        assert files == ["compose.yaml"]
        assert {"--detach", "--build", "--force-recreate"} <= set(up)

    def test_secrets_are_their_owners_alone(self, deployed: Deployer) -> None:
        secrets = deployed.directory / "secrets"
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
        private = [
            *secrets.iterdir(),
            deployed.directory / "gateway/api_keys.conf",
            deployed.directory / "gateway/server.key",
        ]
        assert len(private) == 5
        for file in private:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert file.stat().st_uid != 0, file
        assert not (deployed.directory / "gateway/ca.key").exists()
        assert (deployed.directory / ".gitignore").read_text() == "*\n"

    def test_models_can_be_read_by_the_containers_user(self, deployed: Deployer) -> None:
        for path in (deployed.directory / "models").rglob("*"):
            assert path.stat().st_mode & 0o004, path

    def test_a_reload_loses_no_request(self, deployed: Deployer) -> None:
        """Clicks and new images while the models are replaced; the client sends images again by itself."""
        client = SAM2TritonClient(deployed.grpc)
        masks, _ = client.segment(str(IMAGE), [[109, 199]], [1])
        expected, answers, failures = masks.tobytes(), 0, []
        stop = threading.Event()

        def click() -> None:
            nonlocal answers
            own = SAM2TritonClient(deployed.grpc)
            own.set_image(str(IMAGE))
            while not stop.is_set():
                try:
                    found, _ = own.predict([[109, 199]], [1])
                    assert found.tobytes() == expected
                    answers += 1
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                    failures.append(error)

        threads = [threading.Thread(target=click) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: answers > 5, "answers before the reload")
            done = deployed.run("reload", "demo")
            before = answers
            wait_until(lambda: failures or answers > before + 5, "answers after the reload")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert done.returncode == 0, done.stdout
        # Of which there are none here: no decoder of a client's own, no TensorRT engine.
        for model in set(ORDER) - {*CLIENT_ORDER, "sam2_memory_attention_wide"}:
            assert f"loading {model}" in done.stdout
        assert not failures, failures

    def test_a_second_deployment_keeps_the_keys(self, deployed: Deployer) -> None:
        directory = DeployDir(deployed.directory)
        before = directory.admin_key()
        directory.prepare(directory.read())
        assert directory.admin_key() == before

    def test_models_that_do_not_load_are_taken_back(self, deployed: Deployer) -> None:
        """A broken encoder: Triton keeps the old one, and the old files are in place again."""
        from deploy.reload import reload_models

        directory = DeployDir(deployed.directory)
        onnx = directory.repository / "sam2_encoder/1/model.onnx"
        good = onnx.read_bytes()
        onnx.write_bytes(good[:1000])
        try:
            with pytest.raises(DeployError, match="sam2_encoder was not loaded"):
                reload_models(deployed.grpc, directory.admin_key(), lambda _: None)
            masks, _ = SAM2TritonClient(deployed.grpc).segment(str(IMAGE), [[109, 199]], [1])
            assert masks.any()
        finally:
            onnx.write_bytes(good)


def test_a_key_file_is_private_from_its_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_each_deployment_has_its_own_keys(tmp_path: Path) -> None:
    made = [DeployDir(tmp_path / name) for name in ("one", "two")]
    for directory in made:
        directory.prepare(Deployment("demo", None, ["cpu", "secure"]))
    keys = [directory.admin_key() for directory in made]
    assert len({*keys}) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    api_keys = [read_api_keys((d.path / "secrets/api_keys").read_text())[0].key for d in made]
    assert len({*api_keys}) == 2


def test_models_of_another_shape_are_no_reload(demo_repository: Path) -> None:
    check_interchangeable(demo_repository, demo_repository)
    with pytest.raises(DeployError, match="other shapes"):
        # The hand-written configurations are for 1024 pixels, the small model's for 256.
        check_interchangeable(demo_repository, ROOT / "models")


def test_video_neither_comes_nor_goes_with_a_reload(demo_repository: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    assemble_repository(ROOT / "export/demo_model/onnx", images, video=False)
    check_interchangeable(images, images)
    with pytest.raises(DeployError, match="sam2_mask_prompt is new; just deploy again"):
        check_interchangeable(images, demo_repository)
    with pytest.raises(DeployError, match="sam2_mask_prompt is gone; just deploy again"):
        check_interchangeable(demo_repository, images)


def test_paintera_loses_its_model_by_no_reload(tmp_path: Path) -> None:
    for name in ("sam2", "sam2.1_large_encoder"):
        shutil.copytree(ROOT / "models" / name, tmp_path / "large" / name)
    shutil.copytree(ROOT / "models/sam2", tmp_path / "tiny/sam2")
    check_interchangeable(tmp_path / "large", tmp_path / "large")
    with pytest.raises(DeployError, match=r"sam2\.1_large_encoder is gone; just deploy again"):
        check_interchangeable(tmp_path / "large", tmp_path / "tiny")


def test_paintera_is_let_in_from_named_networks_alone(tmp_path: Path) -> None:
    directory = DeployDir(tmp_path / "deploy")
    profiles = ["cpu", "secure"]
    directory.prepare(Deployment("large", None, profiles))
    configuration, env_file = directory.path / "gateway/nginx.conf", directory.env_file
    assert "keyless" not in configuration.read_text() + env_file.read_text()
    deployment = Deployment(
        "large", None, [*profiles, "paintera"], paintera_from=["192.168.7.0/24"]
    )
    directory.prepare(deployment)
    assert directory.read() == deployment
    assert "allow 192.168.7.0/24;" in configuration.read_text()
    assert "SAM2_FRONT_OPTIONS=--keyless-port 8083 --keyless-from" in env_file.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["large", "--paintera-from", "10.0.0.0/8"], "goes with --secure"),
        (["tiny", "--secure", "--paintera-from", "10.0.0.0/8"], "large at 1024 px"),
        (
            ["large", "--image-size", "512", "--secure", "--paintera-from", "10.0.0.0/8"],
            "large at 1024 px",
        ),
        (["large", "--secure", "--paintera-from", "10.0.0.1/8"], "host bits"),
    ],
)
def test_what_would_let_nobody_or_everybody_in_is_refused(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    made = deployer(tmp_path)
    done = made.run("up", *arguments, "--cpu")
    assert done.returncode == 2
    assert words in " ".join(done.stdout.replace("│", " ").split())
    assert made.calls == []


@pytest.mark.parametrize("video", [True, False])
def test_a_deployment_for_images_alone_has_no_video_models(tmp_path: Path, video: bool) -> None:
    directory, deployment = DeployDir(tmp_path), Deployment("demo", None, video=video)
    directory.prepare(deployment)
    assert directory.read().video == video
    stage_repository(directory, deployment)
    assert (directory.staged / "sam2_encoder/1/model.onnx").is_file()
    assert (directory.staged / "sam2_memory_attention").exists() == video


def test_graphs_are_fp16_on_a_gpu() -> None:
    assert Deployment("tiny", None).precision == "fp32"
    assert Deployment("tiny", "cuda").precision == "fp16"


def test_without_a_container_engine_it_says_what_to_install(tmp_path: Path) -> None:
    made = deployer(tmp_path)
    made.environment["PATH"] = str(tmp_path)
    done = made.run("up", "demo", "--wheel")
    assert done.returncode == 1
    assert "docker compose" in done.stdout
    assert not made.directory.exists()
    assert made.run("reload", "demo").returncode == 1
