"""Crashes, hangs and reloads: what is restarted, how fast, and what is left alone."""

import re
import threading
import time
from pathlib import Path

import pytest
from sam2_server.health import FAILURES_UNTIL_HUNG, HealthWatch, Sample, is_busy
from sam2_server.probe import Asker, ProbeResult, _is_silence
from sam2_server.signs_of_life import CHECK_SECONDS
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.docker.conftest import StartLauncher
from tests.docker.launcher import Launcher, infer
from tests.docker.small_repository import PICTURE_MODEL, write_repository
from tests.patience import PATIENCE_SECONDS, wait_until


def answers(launcher: Launcher) -> bool:
    try:
        return infer(launcher.grpc_address(), timeout=2) > 0
    except (InferenceServerException, KeyError):
        return False


@pytest.mark.server
@pytest.mark.parametrize("victim", ["picture", "score", "tritonserver"])
def test_a_killed_process_is_replaced(start: StartLauncher, victim: str) -> None:
    launcher = start().wait_ready()
    before = launcher.state()
    in_flight: list[InferenceServerException] = []
    slow = threading.Thread(target=_collect_error, args=(launcher.grpc_address(), in_flight))
    slow.start()
    time.sleep(0.5)

    process = launcher.server() if victim == "tritonserver" else launcher.stub(victim)
    process.kill()
    wait_until(lambda: launcher.state()["restarts"] == 1, "the crash to be seen")
    wait_until(lambda: answers(launcher), "an answer")
    slow.join(PATIENCE_SECONDS)
    assert not slow.is_alive()
    assert len(in_flight) == 1, "the request in flight should have got an error"
    assert "Deadline" not in str(in_flight[0]), "and not by its own time-out"
    launcher.wait_ready()
    after = launcher.state()
    assert after["urls"] == before["urls"]
    assert after["server"] != before["server"]
    assert len(launcher.leftovers()) == 5
    launcher.stop()
    assert launcher.leftovers() == []


@pytest.mark.server
def test_without_supervision_a_dead_server_ends_the_launcher(start: StartLauncher) -> None:
    launcher = start("--no-supervise").wait_ready()
    launcher.server().kill()
    assert launcher.process.wait(PATIENCE_SECONDS) == 3
    assert "tritonserver was ended by SIGKILL" in launcher.output()
    assert launcher.leftovers() == []


@pytest.mark.server
@pytest.mark.slow
def test_crashes_one_after_another_are_no_reason_to_give_up(start: StartLauncher) -> None:
    launcher = start().wait_ready()
    for crashes in range(1, 7):
        launcher.stub("picture").kill()
        wait_until(lambda n=crashes: launcher.state()["restarts"] == n, "a crash")
        launcher.wait_ready(PATIENCE_SECONDS)
    assert answers(launcher)
    pauses = [float(seconds) for seconds in re.findall(r"restarting in (\S+) s", launcher.output())]
    assert pauses == [1, 2, 4, 5, 5]


@pytest.mark.server
@pytest.mark.slow
def test_a_restart_that_fails_is_tried_again(start: StartLauncher, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    launcher = start(repository=repository).wait_ready()
    model = repository / "picture/1/model.py"
    model.write_text("raise RuntimeError('gone for a while')\n")
    launcher.stub("picture").kill()
    wait_until(lambda: launcher.state()["restarts"] >= 3, "two failed restarts")
    assert "gone for a while" in launcher.state()["last_crash"]
    model.write_text(PICTURE_MODEL)
    launcher.wait_ready(PATIENCE_SECONDS)
    assert answers(launcher)


@pytest.mark.server
@pytest.mark.slow
def test_a_stopped_process_is_found_though_no_request_meets_it(start: StartLauncher) -> None:
    """A model's and tritonserver itself, in two servers at once: each takes half a minute to be sure of."""
    victims = {name: start("--probe-interval", "3600") for name in ("picture", "tritonserver")}
    for launcher in victims.values():
        launcher.wait_ready()
    # Seen running for a while first; nobody asks anything.
    time.sleep(4 * CHECK_SECONDS)
    for victim, launcher in victims.items():
        process = launcher.server() if victim == "tritonserver" else launcher.stub(victim)
        process.suspend()
    for victim, launcher in victims.items():
        check_found(launcher, victim)


def check_found(launcher: Launcher, victim: str) -> None:
    """The launcher found out that a process hangs, said which, and started anew."""
    wait_until(lambda: launcher.state()["restarts"] == 1, "the hang to be seen")
    assert f"the process of {victim}" in launcher.state()["last_crash"]
    assert "no sign of life" in launcher.state()["last_crash"]
    wait_until(lambda: answers(launcher), "an answer")


@pytest.mark.server
def test_a_process_that_dies_while_its_model_loads(start: StartLauncher, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    last_words = (
        'import os\nos.write(2, b"terminate called\\n  what():  not enough of it\\n")\nos.abort()\n'
    )
    (repository / "picture/1/model.py").write_text(last_words)
    launcher = start(repository=repository)
    assert launcher.process.wait(PATIENCE_SECONDS) == 1
    assert "not enough of it" in launcher.output()
    assert "died while its model was loading" in launcher.output()


@pytest.mark.server
def test_a_full_disk_ends_nothing(start: StartLauncher, tmp_path: Path) -> None:
    """As good as full for the launcher: its state can no longer be written."""
    launcher = start().wait_ready()
    blocked = launcher.state_dir / f".server.json.{launcher.process.pid}"
    blocked.mkdir()
    address = launcher.grpc_address()
    launcher.stub("picture").kill()
    wait_until(lambda: "cannot write" in launcher.output(), "a warning")
    wait_until(lambda: launcher.output().count("Ready.") == 2, "the restart")
    assert infer(address) > 0
    blocked.rmdir()
    wait_until(lambda: launcher.state()["restarts"] == 1, "the state to be written")
    assert launcher.stop() == 0
    assert launcher.leftovers() == []


def test_a_starved_stub_is_not_taken_at_tritons_word() -> None:
    """Triton calls a stub unhealthy that did not run for a second, as happens on a busy machine."""
    message = "in ensemble 'sam2', Stub process 'score_0_0' is not healthy."
    assert _is_silence(InferenceServerException(message, status="StatusCode.INTERNAL"))
    assert not _is_silence(InferenceServerException("queue full", status="StatusCode.UNAVAILABLE"))


@pytest.mark.server
@pytest.mark.slow
def test_a_busy_server_is_left_alone(start: StartLauncher) -> None:
    """Its one instance is busy for longer than all probes together, yet requests get answers."""
    launcher = start("--probe-interval", "1", "--probe-timeout", "1").wait_ready()
    deadline = time.monotonic() + 30
    errors: list[Exception] = []

    def keep_busy() -> None:
        while time.monotonic() < deadline:
            try:
                infer(launcher.grpc_address(), "sleep:1.5", timeout=60)
            except InferenceServerException as error:
                errors.append(error)

    clients = [threading.Thread(target=keep_busy) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert errors == []
    assert launcher.state()["restarts"] == 0
    assert "busy, not hung" in launcher.output()


@pytest.mark.server
def test_a_reload_is_no_crash(start: StartLauncher, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    launcher = start("--explicit-models", repository=repository).wait_ready()
    server = launcher.server()
    old = launcher.stub("picture")
    with grpc.InferenceServerClient(launcher.grpc_address()) as client:
        for round_number in range(3):
            code = PICTURE_MODEL + f"# {round_number}\n"
            (repository / "picture/1/model.py").write_text(code)
            client.load_model("picture")
            assert infer(launcher.grpc_address()) > 0
        # A model that does not load: its process comes and goes, the old one keeps serving.
        (repository / "picture/1/model.py").write_text("raise RuntimeError('broken')\n")
        with pytest.raises(InferenceServerException, match="broken"):
            client.load_model("picture")
        assert infer(launcher.grpc_address()) > 0
        (repository / "picture/1/model.py").write_text(PICTURE_MODEL)
        client.load_model("picture")
        client.unload_model("score")
        time.sleep(4)
        client.load_model("score")
    assert not old.is_running()
    time.sleep(3)
    assert launcher.server() == server
    assert launcher.state()["restarts"] == 0
    assert infer(launcher.grpc_address()) > 0


@pytest.mark.server
def test_administration_needs_the_key(start: StartLauncher, tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    key_file = tmp_path / "key"
    key_file.write_text(key + "\n")
    launcher = start("--explicit-models", "--admin-key-file", str(key_file)).wait_ready()
    with grpc.InferenceServerClient(launcher.grpc_address()) as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.load_model("score")
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index()
        headers = {"triton-grpc-protocol-sam2-admin-key": key}
        client.load_model("score", headers=headers)
        assert len(client.get_model_repository_index(headers=headers).models) == 3
    assert infer(launcher.grpc_address()) > 0
    launcher.stop()
    assert key not in launcher.output()
    assert key not in (launcher.state_dir / "tritonserver.log").read_text()


def silent(at: float, *, answered: float | None = 0.0, cpu: float = 0.0) -> Sample:
    return Sample(ProbeResult(False, "no answer", no_answer=True), at, answered, cpu)


@pytest.mark.parametrize(
    ("last", "busy"),
    [
        (silent(60.0), False),
        (silent(60.0, answered=1.0), True),
        (silent(60.0, answered=None), False),
        (silent(60.0, cpu=5.0), False),
        (silent(60.0, cpu=30.0), True),
    ],
)
def test_busy_is_told_from_hung(last: Sample, busy: bool) -> None:
    assert is_busy(silent(0.0), last) is busy


class TestHealthWatch:
    @pytest.fixture
    def messages(self) -> list[str]:
        return []

    @pytest.fixture
    def watch(self, messages: list[str]) -> HealthWatch:
        return HealthWatch(
            1,
            asker=Asker("test"),
            probe_url="grpc://127.0.0.1:1",
            metrics_url="http://127.0.0.1:1/metrics",
            interval_seconds=30,
            timeout_seconds=20,
            report=messages.append,
        )

    def test_silence_counts_until_hung(self, watch: HealthWatch) -> None:
        verdicts = [watch._judge(silent(20.0 * n)) for n in range(FAILURES_UNTIL_HUNG)]
        assert verdicts[:-1] == [None] * (FAILURES_UNTIL_HUNG - 1)
        assert verdicts[-1] is not None

    def test_one_answer_in_between_starts_over(self, watch: HealthWatch) -> None:
        answer = Sample(ProbeResult(True, "healthy"), 0.0, None, 0.0)
        for n in range(2 * FAILURES_UNTIL_HUNG):
            assert watch._judge(silent(n) if n % 2 else answer) is None

    def test_who_is_called_unhealthy_again_is_a_suspect_whatever_comes_between(
        self, watch: HealthWatch
    ) -> None:
        answer = Sample(ProbeResult(True, "healthy"), 5.0, None, 0.0)
        message = "in ensemble 'sam2', Stub process 'score_0_1' is not healthy."
        watch._judge(Sample(ProbeResult(False, message, no_answer=True), 0.0, 0.0, 0.0))
        watch._judge(answer)
        assert watch.suspects(10.0) == set()
        watch._judge(Sample(ProbeResult(False, message, no_answer=True), 10.0, 0.0, 0.0))
        watch._judge(answer)
        assert watch.suspects(20.0) == {"score_0_1"}
        assert watch.suspects(100.0) == set()

    def test_errors_are_reported_once_and_restart_nothing(
        self, watch: HealthWatch, messages: list[str]
    ) -> None:
        error = Sample(ProbeResult(False, "StatusCode.UNAVAILABLE: queue full"), 0.0, None, 0.0)
        for _ in range(10):
            assert watch._judge(error) is None
        assert len(messages) == 1


def _collect_error(address: str, errors: list[InferenceServerException]) -> None:
    try:
        infer(address, "sleep:50", timeout=2 * PATIENCE_SECONDS)
    except InferenceServerException as error:
        errors.append(error)
