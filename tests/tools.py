"""Programs that some tests want and no Python package brings; `just test-tools` installs them on Debian.

Run as a program, this installs what is missing (`--list`: only says what that is).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = "just test-tools"
# Program ► Debian's package. Where it is there already, from wherever, its package is not installed.
PACKAGES = {
    "bash": "bash",
    "busybox": "busybox",
    "cc": "gcc",
    "curl": "curl",
    "dash": "dash",
    "sh": "dash",
    "g++": "g++",
    "go": "golang-go",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "nginx": "nginx-light",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "promtool": "prometheus",
    "curl/curl.h": "libcurl4-openssl-dev",
}
# What a package starts when it is installed, and no test wants running.
SERVICES = {"nginx-light": "nginx.service", "prometheus": "prometheus.service"}
HEADERS = (Path("/usr/include"), Path("/usr/local/include"))


def find(tool: str) -> str | None:
    """Where a program (or a C header) lies; None where it is missing."""
    if tool.endswith(".h"):
        # Debian keeps some below the machine's own directory.
        folders = [folder for root in HEADERS for folder in (root, *root.glob("*-linux-gnu"))]
        return next((str(folder / tool) for folder in folders if (folder / tool).is_file()), None)
    # Debian puts servers where users without privileges do not look, pip its programs beside Python.
    beside = f"/usr/sbin:/usr/local/sbin:{Path(sys.executable).parent}"
    return shutil.which(tool) or shutil.which(tool, path=beside)


def missing(*tools: str) -> list[str]:
    """Those of the tools (of all that are known) that are not here."""
    return [tool for tool in tools or PACKAGES if find(tool) is None]


def reason(tools: list[str]) -> str:
    """Why a test is skipped, as `skipped_line` reads it."""
    return f"missing: {', '.join(tools)} ({COMMAND})"


def skipped_line(reasons: list[str]) -> str:
    """One line on all skipped tests: how many, why, and the command that brings them; "" without any."""
    lacking = [re.match(rf"missing: (.+) \({COMMAND}\)$", reason) for reason in reasons]
    wanted = sorted({tool for match in lacking if match for tool in match[1].split(", ")})
    others = sorted({reason for reason, match in zip(reasons, lacking, strict=True) if not match})
    parts = []
    if wanted:
        count = sum(match is not None for match in lacking)
        parts.append(
            f"{count} want {', '.join(wanted)}: `{COMMAND}` installs them (Debian, Ubuntu)"
        )
    if others:
        parts.append(f"{len(reasons) - sum(map(bool, lacking))} otherwise: {'; '.join(others)}")
    return f"Skipped here: {len(reasons)} tests. {'. '.join(parts)}." if parts else ""


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skips a test where one of the tools is missing."""
    lacking = missing(*tools)
    return pytest.mark.skipif(bool(lacking), reason=reason(lacking))


def skip_without(*tools: str) -> None:
    """The same from within a test or a fixture."""
    if lacking := missing(*tools):
        pytest.skip(reason(lacking))


def install() -> int:
    """Install what is missing, with apt-get; the exit status, 1 with a word on why not."""
    lacking = missing()
    if not lacking:
        print("Everything that the tests want is here.")
        return 0
    packages = sorted({PACKAGES[tool] for tool in lacking})
    print(f"Missing: {', '.join(lacking)}. Debian and Ubuntu: apt-get install {' '.join(packages)}")
    if "--list" in sys.argv:
        return 0
    become_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if shutil.which("apt-get") is None:
        trouble = f"There is no apt-get here: install {', '.join(lacking)} by other means."
    elif become_root and shutil.which("sudo") is None:
        trouble = "This needs root: run it as root, or install sudo."
    else:
        trouble = _apt_get(become_root, packages)
        if not trouble and (still := missing()):
            trouble = f"Installed {' '.join(packages)}, and still missing: {', '.join(still)}"
    print(trouble or f"Installed {' '.join(packages)}.")
    return 1 if trouble else 0


def _apt_get(become_root: list[str], packages: list[str]) -> str:
    """Install the packages; what failed, or ""."""
    apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]
    commands = [
        [*apt_get, "update"],
        [*apt_get, "install", "--yes", "--no-install-recommends", *packages],
    ]
    services = [SERVICES[package] for package in packages if package in SERVICES]
    if services and Path("/run/systemd/system").is_dir():
        commands.append(["systemctl", "disable", "--now", "--quiet", *services])
    for command in commands:
        line = [*become_root, *command]
        if subprocess.run(line, check=False).returncode:
            return f"This failed: {' '.join(line)}"
    return ""


if __name__ == "__main__":
    sys.exit(install())
