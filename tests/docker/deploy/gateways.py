"""nginx with the gateway's real configuration, started for a test; calls that go through it."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import urllib3
from deploy.gateway import GatewaySettings, make_certificates, render, render_api_keys
from front.api_keys import ApiKey

from tests.tools import find, needs

ALICE = "test-key-of-alice-0123456789abcdef"
BOB = "test-key-of-bob-0123456789ABCDEF_-"
INFER = "/v2/models/sam2/infer"
# Longer than any loaded machine needs, shorter than nginx's own 60 s, which would hide a missing setting.
PATIENCE_SECONDS = 50
needs_nginx = needs("nginx")


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs."""

    port: int
    directory: Path

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    @property
    def log(self) -> str:
        return (self.directory / "access.log").read_text()

    def http(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(
            ca_certs=self.ca_file, retries=False, timeout=PATIENCE_SECONDS
        ) as pool:
            return pool.request(
                method,
                f"https://localhost:{self.port}{path}",
                body=body,  # type: ignore[arg-type]
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )

    def as_written(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body for a request whose target and headers no library tidies up or joins."""
        connection = http.client.HTTPSConnection(
            "localhost",
            self.port,
            timeout=PATIENCE_SECONDS,
            context=ssl.create_default_context(cafile=self.ca_file),
        )
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            connection.putheader("Content-Length", str(len(body)))
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def channel(self) -> grpc.Channel:
        authority = Path(self.ca_file).read_bytes()
        return grpc.secure_channel(
            f"localhost:{self.port}", grpc.ssl_channel_credentials(authority)
        )


def gateway_settings(directory: Path, upstream_http: str, upstream_grpc: str) -> GatewaySettings:
    """For a gateway on a free port of loopback."""
    return GatewaySettings(
        listen=f"127.0.0.1:{_free_port()}",
        upstream_http=upstream_http,
        upstream_grpc=upstream_grpc,
        config_dir=str(directory),
        runtime_dir=str(directory / "run"),
        access_log=str(directory / "access.log"),
        workers="1",
        # An image of 80 MB for each test would be slow; the mechanism is the same.
        max_body="1m",
    )


def write_gateway(settings: GatewaySettings) -> None:
    """Configuration and API keys, as `just deploy` writes them."""
    directory = Path(settings.config_dir)
    (directory / "run").mkdir(exist_ok=True)
    keys = [ApiKey("alice", ALICE, "alice"), ApiKey("bob", BOB, "bob")]
    (directory / "api_keys.conf").write_text(render_api_keys(keys))
    (directory / "nginx.conf").write_text(render(settings))


def complaints(settings: GatewaySettings) -> str | None:
    """What nginx has against the configuration, or None."""
    done = subprocess.run(
        [find("nginx"), "-t", "-c", f"{settings.config_dir}/nginx.conf", "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else None


@contextmanager
def running_gateway(settings: GatewaySettings) -> Iterator[Gateway]:
    directory, port = Path(settings.config_dir), int(settings.listen.rpartition(":")[2])
    make_certificates(directory, ["localhost", "127.0.0.1"])
    shutil.copy(directory / "ca.pem", directory / "client_ca.pem")
    write_gateway(settings)
    # Started by root it gives its work to another user, who cannot get at this directory.
    main_settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    process = subprocess.Popen(
        [find("nginx"), "-c", directory / "nginx.conf", "-e", "stderr", "-g", main_settings]
    )
    try:
        _wait_until_it_listens(process, port)
        yield Gateway(port, directory)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@contextmanager
def gateway_before_a_socket(
    directory: Path, **changes: object
) -> Iterator[tuple[Gateway, socket.socket]]:
    """A gateway and, in the server's place, a listening socket for the test to answer or not."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(PATIENCE_SECONDS)
        address = f"127.0.0.1:{upstream.getsockname()[1]}"
        settings = replace(gateway_settings(directory, address, address), **changes)  # type: ignore[arg-type]
        with running_gateway(settings) as gateway:
            yield gateway, upstream


def answer_one_request(upstream: socket.socket, end: bytes) -> list[str]:
    """Read one request until its end, answer 200; what its head said, a line each, in lower case."""
    connection, _ = upstream.accept()
    with connection:
        connection.settimeout(PATIENCE_SECONDS)
        got = b""
        while not got.endswith(end):
            more = connection.recv(1 << 16)
            assert more, got
            got += more
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    return got.partition(b"\r\n\r\n")[0].decode().lower().splitlines()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert process.poll() is None, "nginx ended"
        assert time.monotonic() < deadline
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
