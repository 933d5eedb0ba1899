"""One address in the spellings of those who need it: Triton's HTTP, its gRPC, a socket, a URL."""

import ipaddress

# What a client on this machine calls a server that listens everywhere.
LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound


def without_brackets(host: str) -> str:
    """`[::1]`, as in a URL, is `::1`."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False  # a name


def triton_http(host: str) -> str:
    """Triton's HTTP library takes what has colons for a name unless it is told."""
    return f"ipv6:{host}" if is_ipv6(host) else host


def triton_grpc(host: str) -> str:
    """Triton puts `:PORT` behind it."""
    return f"[{host}]" if is_ipv6(host) else host


def in_url(host: str) -> str:
    """Where clients on this machine find a server that listens on `host`."""
    reachable = LOOPBACK_OF_WILDCARD.get(host, host)
    return f"[{reachable}]" if is_ipv6(reachable) else reachable
