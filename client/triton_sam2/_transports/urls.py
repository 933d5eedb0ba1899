"""Server URLs as people write them ► which protocol, where, with or without TLS."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from triton_sam2._errors import InvalidInputError

URL_VARIABLE = "TRITON_URL"
DEFAULT_URL = "localhost:8001"
TRITON_HTTP_PORT = 8000
_DEFAULT_PORTS = {"grpc": 8001, "grpcs": 8001, "http": TRITON_HTTP_PORT, "https": 443}


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
    scheme, separator, _ = text.partition("://")
    parts = urlsplit(text if separator else f"//{text}")
    try:
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(
            f"url: {url!r} has a port that is not a number below 65536"
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
