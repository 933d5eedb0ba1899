"""Everything that can be missing or wrong explains itself with the remedy."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from sam2_server import environment
from sam2_server.errors import InstallationError, LauncherError, SharedMemoryError
from sam2_server.serving import read_admin_key
from sam2_server.shared_memory import check_room

from tests.docker.conftest import StartLauncher
from tests.docker.launcher import run
from tests.docker.small_repository import write_model, write_repository
from tests.patience import PATIENCE_SECONDS


def serve(repository: Path, state_dir: Path, *options: str) -> tuple[int, str]:
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    done = run(
        "serve", "--model-repository", repository, "--state-dir", state_dir, *ports, *options
    )
    return done.returncode, done.stdout


def test_no_repository(tmp_path: Path) -> None:
    code, output = serve(tmp_path / "nothing", tmp_path / "run")
    assert code == 1
    assert f"no model repository at {tmp_path / 'nothing'}" in output
    assert "just export" in output
    assert "just demo" in output


def test_an_empty_repository(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    code, output = serve(tmp_path / "models", tmp_path / "run")
    assert code == 1
    assert "holds no models" in output


def test_no_onnx_files(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    (repository / "score/1/model.onnx").unlink()
    code, output = serve(repository, tmp_path / "run")
    assert code == 1
    assert "score/1/model.onnx" in output
    assert "just export" in output


def test_a_broken_configuration(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    (repository / "score/config.pbtxt").write_text("name: [")
    code, output = serve(repository, tmp_path / "run")
    assert code == 1
    assert "score/config.pbtxt is no valid model configuration" in output


def test_pixels_of_different_exports(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    pixels = '{ name: "resized_image" data_type: TYPE_%s dims: [ 3, 64, 64 ] }'
    for model, direction, data_type in (
        ("sam2_preprocess", "output", "FP16"),
        ("sam2_encoder", "input", "UINT8"),
    ):
        (repository / model).mkdir()
        text = f'name: "{model}" backend: "python" {direction} [ {pixels % data_type} ]'
        (repository / model / "config.pbtxt").write_text(text)
    code, output = serve(repository, tmp_path / "run")
    assert code == 1
    assert "resized_image: sam2_preprocess makes TYPE_FP16 [3, 64, 64]" in output
    assert "sam2_encoder takes TYPE_UINT8 [3, 64, 64]" in output


def test_no_model_to_probe(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    shutil.rmtree(repository / "sam2")
    code, output = serve(repository, tmp_path / "run")
    assert code == 1
    assert "--no-probe" in output


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_busy_port(repository: Path, tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = serve(repository, tmp_path / "run", option, str(port))
    assert code == 1
    assert f"{option} {port} is busy" in output
    assert "pid " in output


def test_the_same_port_twice(repository: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    code, output = serve(repository, tmp_path / "run", "--http-port", port, "--grpc-port", port)
    assert code == 1
    assert f"--grpc-port {port} is busy" in output


def test_an_address_of_another_machine(repository: Path, tmp_path: Path) -> None:
    code, output = serve(repository, tmp_path / "run", "--host", "192.0.2.1")
    assert code == 1
    assert "--host" in output


def test_a_state_directory_that_cannot_be_written(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = serve(repository, tmp_path / "file")
    assert code == 1
    assert "--state-dir" in output


@pytest.mark.server
def test_a_model_that_fails_to_load(start: StartLauncher, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    (repository / "picture/1/model.py").write_text("import a_module_that_is_not_there\n")
    launcher = start(repository=repository)
    assert launcher.process.wait(PATIENCE_SECONDS) == 1
    output = launcher.output()
    assert (
        "picture: Internal: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
        in output
    )
    assert len(output.splitlines()) < 25, output
    assert launcher.state() == {}


@pytest.mark.server
def test_a_test_request_that_fails(start: StartLauncher, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    shutil.rmtree(repository / "picture")
    config = (write_repository(tmp_path / "other") / "picture/config.pbtxt").read_text()
    write_model(
        repository,
        "picture",
        config,
        "import triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        raise ValueError('not today')\n",
    )
    launcher = start(repository=repository)
    assert launcher.process.wait(PATIENCE_SECONDS) == 1
    assert "a test request failed" in launcher.output()
    assert "not today" in launcher.output()


def test_a_stale_state_of_a_dead_process_is_no_obstacle(repository: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "run"
    state_dir.mkdir()
    dead = {"pid": 2**22 - 1, "started_at": 1.0}
    fields = {
        "status": "ready", "launcher": dead, "server": dead, "host": "127.0.0.1", "http_port": 1,
        "grpc_port": 2, "metrics_port": 3, "model_repository": "gone", "log_file": "gone",
        "shm_prefix": "sam2_0_dead_", "restarts": 0, "last_crash": None, "urls": {},
    }  # fmt: skip
    (state_dir / "server.json").write_text(json.dumps(fields))
    assert run("status", "--state-dir", state_dir).returncode == 1
    _, output = serve(tmp_path / "nothing", state_dir)
    assert "no model repository" in output


def test_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InstallationError, match="nvidia-pytriton") as caught:
        environment.find_installation()
    assert "just setup" in caught.value.remedy


def test_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "2.1.0")
    with pytest.raises(InstallationError, match=r"numpy 2\.1\.0") as caught:
        environment.find_installation()
    assert "numpy<2" in caught.value.remedy


def test_no_libpython(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "_library_dirs", lambda: iter([tmp_path]))
    with pytest.raises(InstallationError, match=r"libpython3\.\d+\.so\.1\.0") as caught:
        environment.find_libpython()
    assert "apt-get install libpython3." in caught.value.remedy


def test_no_stub_for_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr(environment, "python_version", lambda: "3.99")
    with pytest.raises(InstallationError, match=r"no Python stub for Python 3\.99 \(it has 3\.10"):
        environment.find_installation()


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setitem(environment.MODEL_IMPORTS, "no_such_module", "no-such-package")
    with pytest.raises(InstallationError, match="no-such-package"):
        environment.find_installation()


def test_shared_memory_too_small() -> None:
    with pytest.raises(SharedMemoryError, match="--shm-mb") as caught:
        check_room(instances=8, region_mb=10_000_000)
    assert "--shm-size" in caught.value.remedy


@pytest.mark.parametrize("key", ["", "short", "a key with spaces in it", "commas,commas,commas"])
def test_an_unfit_admin_key(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key)
    with pytest.raises(LauncherError, match="at least 16 printable"):
        read_admin_key(tmp_path / "key")


@pytest.mark.parametrize("native", [True, False])
def test_in_nvidias_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """tritonserver from the PATH; its own ONNX Runtime backend where it has one."""
    root = tmp_path / "tritonserver"
    files = ["bin/tritonserver", "backends/python/libtriton_python.so"]
    files += ["backends/onnxruntime/libtriton_onnxruntime.so"] if native else []
    for file in files:
        (root / file).parent.mkdir(parents=True)
        (root / file).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(root / "bin"), prepend=":")
    found = environment.find_installation()
    assert (found.kind, found.executable) == ("container", root / "bin/tritonserver")
    backends = found.assemble_backends(tmp_path / "assembled")
    if native:
        assert backends == root / "backends"
    else:
        own = {path.name for path in (environment.OWN_BACKENDS / "onnxruntime").glob("*.py")}
        assert "model.py" in own
        assert {path.name for path in backends.glob("python/*")} == {"libtriton_python.so"}
        assert {path.name for path in backends.glob("onnxruntime/*")} == own


def test_links_are_no_backends(tmp_path: Path) -> None:
    """Triton refuses backend files that lead out of the backend directory."""
    backends = environment.find_installation().assemble_backends(tmp_path / "assembled")
    files = list(backends.glob("*/*"))
    assert {file.name for file in files} >= {"libtriton_python.so", environment.PYTHON_STUB}
    assert not any(file.is_symlink() for file in files)
