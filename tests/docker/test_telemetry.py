"""No process of ours reports to anybody: no file of ONNX Runtime's telemetry, no name looked up, no call out.

A library that is loaded into every process writes down each look-up and each address outside this machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools
from tests.docker.conftest import StartLauncher
from tests.docker.launcher import infer
from tests.running_server import ROOT

COMPILER = tools.find("cc")
needs_compiler = tools.needs("cc")
# What the launcher, the exporter and the tests have to bring themselves.
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
WATCHER = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *what, const char *detail) {
    char line[512];
    int length = snprintf(line, sizeof line, "%s %s\n", what, detail ? detail : "");
    int file = open(getenv("CALLS_FILE"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, (size_t)length) < 0) abort();
    close(file);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    struct in6_addr address;
    if (node && inet_pton(AF_INET, node, &address) != 1 && inet_pton(AF_INET6, node, &address) != 1
        && strcmp(node, "localhost")) note("getaddrinfo", node);
    return real(node, service, hints, found);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t);
    *(void **)&real = dlsym(RTLD_NEXT, "connect");
    char text[INET6_ADDRSTRLEN] = "";
    if (address->sa_family == AF_INET) {
        const struct in_addr *to = &((const struct sockaddr_in *)address)->sin_addr;
        if ((ntohl(to->s_addr) >> 24) != 127) note("connect", inet_ntop(AF_INET, to, text, sizeof text));
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *to = &((const struct sockaddr_in6 *)address)->sin6_addr;
        int mapped = IN6_IS_ADDR_V4MAPPED(to) && to->s6_addr[12] == 127;
        if (!IN6_IS_ADDR_LOOPBACK(to) && !mapped) note("connect", inet_ntop(AF_INET6, to, text, sizeof text));
    }
    return real(socket, address, length);
}
"""


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watcher")
    source, library = folder / "watcher.c", folder / "watcher.so"
    source.write_text(WATCHER)
    assert COMPILER is not None
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"],
        check=True,
    )
    return library


class Home:
    """A home directory without anything in it, and what happens in it."""

    def __init__(self, path: Path, watcher: Path) -> None:
        self.path = path
        self.path.mkdir()
        self.calls_file = path.with_suffix(".calls")
        self.variables = {
            "HOME": str(path),
            "XDG_CACHE_HOME": str(path / ".cache"),
            "LD_PRELOAD": str(watcher),
            "CALLS_FILE": str(self.calls_file),
        }

    def files(self) -> list[str]:
        return [str(file) for file in self.path.rglob("*") if file.is_file()]

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def run(self, code: str) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in SWITCHES} | self.variables
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=300,
        )


@pytest.fixture
def home(tmp_path: Path, watcher: Path) -> Home:
    return Home(tmp_path / "home", watcher)


@needs_compiler
def test_the_watcher_sees_what_it_is_for(home: Home) -> None:
    home.run(
        "import socket\n"
        "try: socket.getaddrinfo('collector.invalid', 443)\n"
        "except OSError: pass\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 443))"
    )
    assert "getaddrinfo collector.invalid" in home.calls()
    assert "connect 192.0.2.1" in home.calls()


@needs_compiler
def test_the_exporter_reports_to_nobody(home: Home) -> None:
    graph = next((ROOT / "export/demo_model/onnx").glob("*decoder*.onnx"))
    home.run(
        "import time; from export.verify import ort\n"
        f"ort.InferenceSession({str(graph)!r}, providers=['CPUExecutionProvider'])\n"
        "time.sleep(2)  # what it reports, it reports from a thread of its own"
    )
    assert home.files() == []
    assert home.calls() == []


@needs_compiler
@pytest.mark.server
def test_the_server_reports_to_nobody(
    start: StartLauncher, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for switch in SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    launcher = start(variables=home.variables).wait_ready()
    assert infer(launcher.grpc_address()) > 0
    # The process that imports ONNX Runtime really is one that is watched.
    variables = launcher.stub("score").environ()
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
    assert variables["LD_PRELOAD"] == home.variables["LD_PRELOAD"]
    assert launcher.stop() == 0
    assert home.files() == []
    assert home.calls() == []


def test_images_are_told_as_well() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert dockerfile.count("ORT_DISABLE_TELEMETRY=1") == 2  # cpu and gpu


def test_these_tests_are_told_before_they_import_it() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
