"""What pip does with our pyproject.toml on Pythons that the client knows and the server does not."""

from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def requirements(extra, python):
    """The requirements of an extra ("" for the client alone) that a Python has to fulfil."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    parsed = [Requirement(text) for text in listed]
    environment = {"python_version": python, "extra": extra}
    return [each for each in parsed if each.marker is None or each.marker.evaluate(environment)]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"])
def test_the_client_installs_on_every_python_from_3_10_on(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    for extra in ("", "client"):
        names = {each.name for each in requirements(extra, python)}
        assert "nvidia-pytriton" not in names
        assert names


@pytest.mark.parametrize(
    ("python", "installs"), [("3.10", True), ("3.12", True), ("3.13", False), ("3.14", False)]
)
def test_the_server_refuses_other_pythons_instead_of_being_left_out(python, installs):
    wanted = [each for each in requirements("server", python) if each.name == "nvidia-pytriton"]
    assert len(wanted) == 1
    assert wanted[0].specifier.contains("0.7.0") == installs
    # Before pip would begin to build numpy 1 from its sources.
    pins = [each for each in requirements("server", python) if each.name == "numpy"]
    assert bool(pins) == installs
