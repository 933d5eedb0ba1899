"""The way in for clients that cannot send an API key: one model, from named networks.

Paintera sends none. What it asks for computes features of the picture that it sends, and touches neither the
cache nor anybody's ids; so it may be let in by where it comes from, and to nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import grpc

from front.callers import Caller
from front.catalog import KEYLESS_MODELS
from front.grpc_protocol import SERVICE, GrpcProtocol, abort
from front.refusals import Refusal, not_found, quoted
from front.service import FrontService
from front.settings import Network

METHODS = ("ModelReady", "ModelStreamInfer")


class KeylessProtocol(GrpcProtocol):
    """Two methods for KEYLESS_MODELS; every other one is UNIMPLEMENTED, every other model NOT_FOUND."""

    def __init__(self, service: FrontService, networks: Sequence[Network]) -> None:
        super().__init__(service)
        self._networks = networks
        self._stream_window = service.limits.keyless_stream_window
        self._handlers = {
            path: self._handlers[path] for path in (f"/{SERVICE}/{name}" for name in METHODS)
        }

    def _check_model(self, name: str) -> None:
        if name not in KEYLESS_MODELS:
            raise not_found(
                f"without an API key: expected {', '.join(sorted(KEYLESS_MODELS))}, got {quoted(name)}"
            )

    async def _recognised(self, context: Any) -> Caller:
        if not is_within(context.peer(), self._networks):
            await abort(
                context,
                Refusal(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "your address is not among those that need no API key (--keyless-from)",
                ),
            )
        return self._service.callers.keyless


def is_within(peer: str, networks: Sequence[Network]) -> bool:
    """Whether gRPC's word for the other side (`ipv4:1.2.3.4:567`, `ipv6:%5B::1%5D:567`) is in a network."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    if kind not in ("ipv4", "ipv6"):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return False
    # An IPv4 caller of a socket that takes both.
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
