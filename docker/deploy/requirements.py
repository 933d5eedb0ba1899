"""What an image installs from PyPI, read from pyproject.toml so that nothing is declared twice.

Runs in the build stage, where there is nothing but a Python: `python requirements.py triton|wheel|front`.
"""

import re
import sys
from pathlib import Path

import tomllib

# NVIDIA's image brings the server and the C++ ONNX Runtime backend itself. `numpy<2` holds there as well: its
# Python backend is built against a pybind11 that knows numpy 2, but NVIDIA does not promise it yet.
NOT_IN_TRITON_IMAGE = {"nvidia-pytriton", "onnxruntime"}


def requirements(pyproject: str, target: str) -> list[str]:
    """Requirement lines of an image target: `triton`, `wheel` or `front`."""
    if target not in ("triton", "wheel", "front"):
        raise ValueError(f"target: expected triton, wheel or front; got {target!r}")
    project = tomllib.loads(pyproject)["project"]
    extra = [
        line
        for line in project["optional-dependencies"]["front" if target == "front" else "server"]
        if target != "triton" or _name(line) not in NOT_IN_TRITON_IMAGE
    ]
    return sorted({*project["dependencies"], *extra})


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    text = Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(requirements(text, sys.argv[1])) + "\n")
