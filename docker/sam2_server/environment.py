"""Finding a Triton installation: NVIDIA's container where there is one, else the PyPI wheel."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sam2_server.errors import InstallationError

OWN_BACKENDS = Path(__file__).resolve().parent.parent / "backends"
PYTHON_STUB = "triton_python_backend_stub"
INSTALL_REMEDY = "Install the server's dependencies: `just setup`, or pip install -e '.[server]'."
# What the models import, by the name to import and the distribution that has it.
MODEL_IMPORTS = {
    "numpy": "numpy",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pycocotools": "pycocotools",
}


@dataclass(frozen=True)
class TritonInstallation:
    """A tritonserver and what its processes need in their environment."""

    kind: str  # container, wheel
    executable: Path
    native_backends: Path | None  # where Triton's own ONNX Runtime backend is among them
    python_backend: tuple[Path, ...]  # else: the files of the Python backend
    library_dirs: tuple[Path, ...]

    def assemble_backends(self, directory: Path) -> Path:
        """A directory with all backends that the models need: Triton's own, or one made here."""
        if self.native_backends is not None:
            return self.native_backends
        shutil.rmtree(directory, ignore_errors=True)
        for name, files in (
            ("python", self.python_backend),
            ("onnxruntime", _files(OWN_BACKENDS / "onnxruntime")),
        ):
            folder = directory / name
            folder.mkdir(parents=True)
            for file in files:
                # Copies, since Triton refuses links that lead out of the backend directory.
                shutil.copy2(file, folder / file.name)
        return directory

    def environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        libraries = [str(path) for path in self.library_dirs]
        if inherited := environment.get("LD_LIBRARY_PATH"):
            libraries.append(inherited)
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        # The stub finds its packages through the first python3 on the PATH.
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
        )
        # ONNX Runtime from 1.29 on reports to its maker unless told otherwise before it is imported. Here for
        # tritonserver and all its models' processes, in every kind of installation.
        environment["ORT_DISABLE_TELEMETRY"] = "1"
        return environment


def find_installation() -> TritonInstallation:
    """The installation to run, checked; raises InstallationError with the remedy."""
    executable = shutil.which("tritonserver")
    if executable is not None:
        return _container_installation(Path(executable).resolve())
    return _wheel_installation()


def _container_installation(executable: Path) -> TritonInstallation:
    backends_dir = executable.parent.parent / "backends"
    native = (backends_dir / "onnxruntime" / "libtriton_onnxruntime.so").is_file()
    if not (backends_dir / "python").is_dir():
        raise InstallationError(
            f"{executable} has no Python backend: {backends_dir / 'python'} is missing.",
            "Use an image with the Python backend (the `-py3` images of NVIDIA have it).",
        )
    _check_model_imports(needs_onnxruntime=not native)
    return TritonInstallation(
        "container",
        executable,
        native_backends=backends_dir if native else None,
        python_backend=_files(backends_dir / "python"),
        library_dirs=(),
    )


def _wheel_installation() -> TritonInstallation:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise InstallationError(
            "There is no tritonserver on the PATH, and the PyPI wheel that carries one "
            f"(nvidia-pytriton) is not installed for {sys.executable}.",
            INSTALL_REMEDY,
        )
    package = Path(spec.origin).parent
    server = package / "tritonserver"
    executable = server / "bin" / "tritonserver"
    if not executable.is_file():
        raise InstallationError(
            f"{package} has no {executable.relative_to(package)}: this is not the Linux wheel.",
            "nvidia-pytriton carries a server for Linux on x86_64 and aarch64 alone; elsewhere use "
            "a container (`just deploy`).",
        )
    _check_numpy()
    _check_model_imports(needs_onnxruntime=True)
    version = python_version()
    stub = server / "python_backend_stubs" / version / PYTHON_STUB
    if not stub.is_file():
        have = ", ".join(sorted(path.name for path in stub.parent.parent.iterdir()))
        raise InstallationError(
            f"nvidia-pytriton has no Python stub for Python {version} (it has {have}).",
            "Make the virtual environment with Python 3.10, 3.11 or 3.12.",
        )
    return TritonInstallation(
        "wheel",
        executable,
        native_backends=None,
        python_backend=(*_files(server / "backends" / "python"), stub),
        library_dirs=(package.parent / "nvidia_pytriton.libs", find_libpython().parent),
    )


def python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_libpython() -> Path:
    """The shared library of the running Python, which the wheel's stub is linked against."""
    name = f"libpython{python_version()}.so.1.0"
    candidates = list(_library_dirs())
    for directory in candidates:
        if (directory / name).is_file():
            return directory / name
    raise InstallationError(
        f"{name} is missing; looked in {', '.join(map(str, candidates))}. Triton's Python models "
        f"need it, and {sys.executable} was built without it.",
        f"Debian and Ubuntu: apt-get install libpython{python_version()}. pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install. conda and uv Pythons include it.",
    )


def _library_dirs() -> Iterator[Path]:
    seen = set()
    multiarch = sysconfig.get_config_var("MULTIARCH")
    for directory in (
        sysconfig.get_config_var("LIBDIR"),
        f"{sys.base_prefix}/lib",
        multiarch and f"/usr/lib/{multiarch}",
        "/usr/local/lib",
        "/usr/lib64",
        "/usr/lib",
        *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep),
    ):
        if directory and directory not in seen:
            seen.add(directory)
            yield Path(directory)


def _check_numpy() -> None:
    version = importlib.metadata.version("numpy") if importlib.util.find_spec("numpy") else None
    if version is not None and int(version.split(".")[0]) >= 2:
        raise InstallationError(
            f"numpy {version} is installed; the Python backend of the wheel's Triton (24.10) needs "
            "numpy < 2: with 2 it silently hands over wrong tensors.",
            "pip install 'numpy<2' in this environment, or use a container (`just deploy`).",
        )


def _check_model_imports(*, needs_onnxruntime: bool) -> None:
    wanted = MODEL_IMPORTS | ({"onnxruntime": "onnxruntime"} if needs_onnxruntime else {})
    missing = [name for module, name in wanted.items() if not importlib.util.find_spec(module)]
    if missing:
        raise InstallationError(
            f"The models need packages that {sys.executable} lacks: {', '.join(missing)}.",
            INSTALL_REMEDY,
        )


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(folder.iterdir()) if path.is_file())
