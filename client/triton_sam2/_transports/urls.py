"""Server URLs as people write them ► which protocol, where, with or without TLS."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from triton_sam2._errors import InvalidInputError

URL_VARIABLE = "TRITON_URL"
DEFAULT_URL = "localhost:8001"
TRITON_HTTP_PORT = 8000
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "http": TRITON_HTTP_PORT, "https": 443}
_OTHER_PROTOCOL = {"grpc": "http", "grpcs": "https", "http": "grpc", "https": "grpcs"}


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens and what it speaks there."""

    scheme: str  # grpc, grpcs, http or https
    host: str
    port: int
    path: str = ""  # HTTP only: a gateway's prefix, "/sam2" for instance

    @property
    def is_grpc(self) -> bool:
        """Whether this endpoint speaks gRPC; otherwise it speaks HTTP."""
        return self.scheme in {"grpc", "grpcs"}

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in {"grpcs", "https"}

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, by the host's name or address."""
        name = self.host.lower().rstrip(".")
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        # The unspecified address is what servers listen on; as a target it is this machine.
        return address.is_loopback or address.is_unspecified

    @property
    def in_other_protocol(self) -> str:
        """The same host and port as a URL of the other protocol."""
        return f"{_OTHER_PROTOCOL[self.scheme]}://{self.address}"

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.path}"


def choose_url(url: str | None, environment: Mapping[str, str]) -> str:
    """The URL given, else the environment's TRITON_URL, else `localhost:8001`."""
    return url or environment.get(URL_VARIABLE) or DEFAULT_URL


def parse_url(url: str) -> Endpoint:
    """Read `host`, `host:port` or `scheme://host[:port][/prefix]`.

    Without a scheme, port 8000 (Triton's HTTP port) means HTTP, and every other port, or none, means gRPC.
    """
    text = url.strip()
    scheme, separator, rest = text.partition("://")
    _refuse_bare_ipv6(rest if separator else text, url)
    try:
        parts = urlsplit(text if separator else f"//{text}")
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(
            f"url: {url!r} has a port that is not a number below 65536, or brackets without an IPv6 address"
        ) from error
    if not parts.hostname:
        raise InvalidInputError(f"url: expected host:port or scheme://host:port, got {url!r}")
    if not separator:
        scheme = "http" if port == TRITON_HTTP_PORT else "grpc"
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        known = ", ".join(f"{name}://" for name in _DEFAULT_PORTS)
        raise InvalidInputError(f"url: expected one of {known}, got {url!r}")
    if parts.username or parts.query or parts.fragment:
        raise InvalidInputError(
            f"url: {parts.hostname}: credentials, queries and fragments do not belong here; "
            "credentials go into `headers`"
        )
    path = parts.path.rstrip("/")
    if path and scheme.startswith("grpc"):
        raise InvalidInputError(f"url: a gRPC URL has no path, got {url!r}")
    return Endpoint(scheme, parts.hostname, port or _DEFAULT_PORTS[scheme], path)


def _refuse_bare_ipv6(text: str, url: str) -> None:
    """`::1:8001` is an address of its own: which part of it is a port, only brackets can say."""
    authority = text.partition("/")[0]
    if authority.count(":") < 2 or "[" in authority or "@" in authority:
        return
    host, _, port = authority.rpartition(":")
    example = f"[{host}]:{port}" if port.isdecimal() and host.rstrip(":") else f"[{authority}]:8001"
    raise InvalidInputError(
        f"url: an IPv6 address stands in brackets, for example {example}, got {url!r}"
    )
