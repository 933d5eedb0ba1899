"""Environments that people have: a proxy, blanks and umlauts in paths, IPv6 alone."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.docker.conftest import StartLauncher
from tests.docker.launcher import infer, run

pytestmark = pytest.mark.server

# Nobody listens there: whatever follows it fails.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "grpc_proxy")
PROXIES = dict.fromkeys(PROXY_VARIABLES, "http://127.0.0.1:9") | {
    "no_proxy": "localhost",
    "NO_PROXY": "localhost",
}


def test_the_launcher_s_own_calls_follow_no_proxy(start: StartLauncher) -> None:
    launcher = start(variables=PROXIES).wait_ready()
    options = ("--state-dir", launcher.state_dir)
    assert run("status", *options, **PROXIES).returncode == 0
    for arguments in (
        options,
        (*options, "--fresh"),
        ("--url", launcher.state()["urls"]["grpc"]),
        ("--url", launcher.state()["urls"]["http"]),
    ):
        probed = run("probe", *arguments, **PROXIES)
        assert probed.returncode == 0, (arguments, probed.stdout)


@pytest.mark.parametrize("name", ["my project", "größe", "it's (1) & co; $HOME"])
def test_any_path_will_do(
    start: StartLauncher, repository: Path, tmp_path: Path, name: str
) -> None:
    models = shutil.copytree(repository, tmp_path / name / "models")
    launcher = start("--state-dir", str(tmp_path / name / "run"), repository=models)
    launcher.state_dir = tmp_path / name / "run"
    launcher.wait_ready()
    assert infer(launcher.grpc_address()) > 0
    state = launcher.state()
    assert state["model_repository"] == str(models)
    private = Path(state["private_directory"])
    assert private.is_dir()
    assert launcher.stop() == 0
    assert not private.exists()
    assert (models / "score/1/model.onnx").exists()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_ipv6_in_every_spelling(start: StartLauncher, host: str) -> None:
    launcher = start("--host", host).wait_ready()
    assert launcher.state()["urls"]["http"].startswith("http://[::1]:")
    assert infer(launcher.grpc_address()) > 0
    assert run("status", "--state-dir", launcher.state_dir).returncode == 0
    over_http = run("probe", "--url", launcher.state()["urls"]["http"])
    assert over_http.returncode == 0, over_http.stdout
