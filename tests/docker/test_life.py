"""Start, stop and everything that must be gone afterwards, with a real tritonserver."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from tritonclient.utils import InferenceServerException

from tests.docker.conftest import StartLauncher
from tests.docker.launcher import Launcher, command, environment, infer, run
from tests.patience import wait_until

pytestmark = pytest.mark.server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(start: StartLauncher, number: int) -> None:
    launcher = start().wait_ready()
    assert infer(launcher.grpc_address()) > 0
    assert len(launcher.leftovers()) == 5  # tritonserver, two stubs, two regions

    assert launcher.stop(number) == 0
    assert launcher.leftovers() == []
    assert not (launcher.state_dir / "server.json").exists()


def test_repeated_signals_end_it_at_once(start: StartLauncher) -> None:
    launcher = start().wait_ready()
    slow = threading.Thread(target=_ignore_errors, args=(launcher.grpc_address(), "sleep:30"))
    slow.start()
    queued = threading.Thread(target=_ignore_errors, args=(launcher.grpc_address(), "sleep:30"))
    queued.start()  # one that waits keeps the launcher from taking the server for one at rest
    launcher.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in launcher.output(), "the first signal")
    launcher.process.send_signal(signal.SIGINT)
    launcher.process.send_signal(signal.SIGTERM)

    assert launcher.process.wait(30) == 0
    assert launcher.leftovers() == []
    queued.join(30)
    slow.join(10)


def test_a_signal_while_it_starts(start: StartLauncher) -> None:
    launcher = start()
    wait_until(lambda: launcher.state().get("server") is not None, "tritonserver")
    launcher.prefix = launcher.state()["shm_prefix"]

    assert launcher.stop() == 0
    assert launcher.leftovers() == []


def test_stop_status_and_ready_file(start: StartLauncher, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    launcher = start("--ready-file", str(ready_file)).wait_ready()
    options = ("--state-dir", str(launcher.state_dir))
    status = run("status", "--json", *options)
    assert status.returncode == 0, status.stdout
    shown = json.loads(status.stdout)
    assert shown["ready"]
    assert shown["grpc_port"] == launcher.state()["grpc_port"] > 0
    wait_until(ready_file.exists, "the ready file")
    assert json.loads(ready_file.read_text())["urls"] == shown["urls"]
    healthy = run("probe", *options)
    assert healthy.returncode == 0, healthy.stdout
    assert "healthy" in healthy.stdout
    over_http = run("probe", "--url", shown["urls"]["http"])
    assert over_http.returncode == 0, over_http.stdout

    stopped = run("stop", *options)
    assert (stopped.returncode, stopped.stdout.strip()) == (0, "Stopped.")
    assert launcher.process.wait(5) == 0
    assert launcher.leftovers() == []
    assert not ready_file.exists()
    assert run("status", *options).returncode == 1
    assert run("probe", *options).returncode == 1
    assert run("stop", *options).stdout.strip() == "No server is running."


def test_probe_of_nobody_fails() -> None:
    for url in ("grpc://127.0.0.1:1", "http://127.0.0.1:1"):
        assert run("probe", "--url", url, "--timeout", "3").returncode == 1


def test_a_second_start_says_what_runs(start: StartLauncher, repository: Path) -> None:
    launcher = start().wait_ready()
    second = run("serve", "--model-repository", repository, "--state-dir", launcher.state_dir)
    assert second.returncode == 1
    assert "already running" in second.stdout
    assert f"pid {launcher.process.pid}" in second.stdout
    assert launcher.state()["urls"]["grpc"] in second.stdout
    assert infer(launcher.grpc_address()) > 0


def test_two_servers_side_by_side(start: StartLauncher) -> None:
    one, two = start(), start()
    one.wait_ready()
    two.wait_ready()
    one.stop()
    assert one.leftovers() == []
    assert infer(two.grpc_address()) > 0
    two.stop()
    assert two.leftovers() == []


@pytest.mark.parametrize("then", ["stop", "serve"])
def test_a_killed_launcher_leaves_nothing_for_long(
    start: StartLauncher, repository: Path, then: str
) -> None:
    launcher = start().wait_ready()
    launcher.reaper().kill()
    launcher.process.kill()
    launcher.process.wait()
    assert launcher.leftovers(), "the memory regions at least"

    if then == "stop":
        stopped = run("stop", "--state-dir", launcher.state_dir)
        assert "Removed what a dead launcher had left" in stopped.stdout
    else:
        successor = Launcher(repository, launcher.state_dir)
        try:
            successor.wait_ready()
            assert successor.stop() == 0
        finally:
            successor.end()
    assert launcher.leftovers() == []


def test_the_reaper_removes_what_a_killed_launcher_leaves(start: StartLauncher) -> None:
    """Also what cannot end by itself: a process that is stopped."""
    launcher = start().wait_ready()
    launcher.stub("picture").suspend()
    launcher.server().suspend()
    reaper = launcher.reaper()
    launcher.process.kill()
    reaper.wait(60)
    assert launcher.leftovers() == []


def test_detached(repository: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "run"
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    serve = (
        "serve",
        "--detach",
        "--model-repository",
        repository,
        "--state-dir",
        state_dir,
        *ports,
    )
    try:
        started = run(*serve)
        assert started.returncode == 0, started.stdout
        assert "Ready" in started.stdout
        state = json.loads((state_dir / "server.json").read_text())
        assert psutil.pid_exists(state["launcher"]["pid"])
        again = run(*serve)
        assert again.returncode == 1
        assert "already running" in again.stdout
    finally:
        assert run("stop", "--state-dir", state_dir).stdout.strip() == "Stopped."


def test_options_behind_the_dashes_reach_triton(start: StartLauncher) -> None:
    launcher = start("--", "--id=from-the-test").wait_ready()
    assert "--id=from-the-test" in launcher.server().cmdline()


def test_without_a_terminal_nothing_harmless_is_shown(start: StartLauncher) -> None:
    launcher = start().wait_ready()
    launcher.stop()
    output = launcher.output()
    assert "Ready." in output
    assert "CUDA" not in output
    assert "Cuda" not in output
    assert len(output.splitlines()) < 12, output


def test_the_output_may_be_closed(repository: Path, tmp_path: Path) -> None:
    """As in `serve | head -1`: the server must not be left behind."""
    arguments = command(
        "serve",
        "--model-repository",
        repository,
        "--state-dir",
        tmp_path / "run",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--metrics-port",
        "0",
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(arguments, env=environment(), stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    process.wait(60)
    state_file = tmp_path / "run" / "server.json"
    assert not state_file.exists()


def _ignore_errors(address: str, image_id: str) -> None:
    with contextlib.suppress(InferenceServerException):
        infer(address, image_id)
