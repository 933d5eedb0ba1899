"""Choosing ports, and saying who holds a busy one."""

import contextlib
import errno
import socket
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped,unused-ignore]

from sam2_server.addresses import is_ipv6
from sam2_server.errors import PortError


@dataclass(frozen=True)
class Ports:
    http: int
    grpc: int
    metrics: int


def choose_ports(host: str, requested: Ports) -> Ports:
    """The requested ports, 0 replaced by a free one; raises PortError where one is taken."""
    with contextlib.ExitStack() as held:
        # Held all three at once, so that two zeros never get the same port.
        chosen = [
            _bind(held, host, option, port)
            for option, port in (
                ("--http-port", requested.http),
                ("--grpc-port", requested.grpc),
                ("--metrics-port", requested.metrics),
            )
        ]
    return Ports(*chosen)


def _bind(held: contextlib.ExitStack, host: str, option: str, port: int) -> int:
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    # As Triton does: connections of an earlier server in TIME_WAIT are no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise _port_error(error, host, option, port) from error
    listener.listen(1)
    return int(listener.getsockname()[1])


def _port_error(error: OSError, host: str, option: str, port: int) -> PortError:
    if error.errno == errno.EADDRINUSE:
        return PortError(
            f"{option} {port} is busy: {_holder_of(port)} listens on it.",
            f"Stop that process, or choose another port with {option} (0 picks a free one).",
        )
    if error.errno == errno.EACCES:
        return PortError(
            f"{option} {port} needs privileges that this user lacks.",
            f"Choose a port above 1023 with {option}.",
        )
    return PortError(
        f"Cannot listen on {host}:{port}: {error.strerror}.",
        "Give an address of this machine with --host (127.0.0.1 for this machine alone, "
        "0.0.0.0 for everybody).",
    )


def _holder_of(port: int) -> str:
    """The listening process by name and id, as far as this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid is not None
        ):
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
