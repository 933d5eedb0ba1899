"""Which URLs may be fetched, and to which addresses: decided before anything is sent."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import grpc

from front.refusals import Refusal, invalid
from front.tools.settings import ImageHost

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST_URL = 4096
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# A name and a port ► the addresses that a resolver says they have.
Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class Target:
    """A URL that may be fetched, in parts."""

    scheme: str
    name: str
    port: int
    path_and_query: str
    host: ImageHost

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what a token belongs to."""
        return self.scheme, self.name, self.port

    @property
    def host_header(self) -> str:
        """The host as HTTP names it."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def read_target(where: str, url: str, hosts: Sequence[ImageHost]) -> Target:
    """A URL of an allowed host.

    Raises:
        Refusal: for other schemes, names in it, hosts that are not configured, and what is no URL.
    """
    refusal = invalid(
        f"{where}: expected an http or https URL of a host that this server may fetch images from"
        " (--image-host, --private-image-host, --label-studio-url)"
    )
    # What a parser would drop or read in its own way is no part of an honest URL.
    if len(url) > _LONGEST_URL or not url.isprintable() or "\\" in url:
        raise refusal
    try:
        parts = urlsplit(_as_sent(url))
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise refusal from error
    if parts.scheme not in _DEFAULT_PORTS or parts.username or parts.password or not parts.hostname:
        raise refusal
    name = parts.hostname.lower().removesuffix(".")
    for host in hosts:
        wanted_port = host.port or _DEFAULT_PORTS[parts.scheme]
        if (host.name, wanted_port) == (name, port):
            path = parts.path or "/"
            target = f"{path}?{parts.query}" if parts.query else path
            return Target(parts.scheme, name, port, target, host)
    raise refusal


def _as_sent(url: str) -> str:
    """Blanks and letters beyond ASCII as browsers send them; no configured host has such letters."""
    return "".join(
        quote(letter) if letter == " " or not letter.isascii() else letter for letter in url
    )


async def system_addresses(name: str, port: int) -> list[str]:
    """The addresses of a name, as this machine resolves it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def allowed_address(target: Target, resolve: Resolve) -> str:
    """The address to connect to: chosen once, so that the name cannot become another one in between.

    Raises:
        Refusal: UNAVAILABLE for an unknown name, INVALID_ARGUMENT where it leads to where it must not.
    """
    try:
        found = await resolve(target.name, target.port)
    except OSError as error:
        raise _unreachable(target) from error
    for text in found:
        if is_allowed(ipaddress.ip_address(text.partition("%")[0]), target.host):
            return text
    if not found:
        raise _unreachable(target)
    raise invalid(
        f"image: {target.name} leads to an address that images are not fetched from; a host in a private"
        " network is one for --private-image-host"
    )


def is_allowed(address: Address, host: ImageHost) -> bool:
    """Public addresses always; private ones and this machine's where the host is said to be there."""
    inner = _carried(address)
    if inner is not None:
        return is_allowed(inner, host)
    # Link-local is where clouds keep their machines' credentials.
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback or address.is_private:
        return host.is_private
    return address.is_global and not address.is_reserved


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, by any of the ways there are."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])


def _unreachable(target: Target) -> Refusal:
    return Refusal(grpc.StatusCode.UNAVAILABLE, f"image: {target.name} cannot be found", 502)
