"""Where tools put a key that they cannot send as other callers do."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from starlette.requests import Request


def basic_key(request: Request) -> Mapping[str, str]:
    """The key as the password of HTTP Basic, whatever the user's name; or as every other caller sends it."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return request.headers
    try:
        _, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return {}
    return {"x-api-key": password}


def header_key(name: str, request: Request) -> Mapping[str, str]:
    """The key as a header of the tool's own; or as every other caller sends it."""
    key = request.headers.get(name)
    return {"x-api-key": key} if key else request.headers


def query_key(name: str, request: Request) -> Mapping[str, str]:
    """The key in the address; or as every other caller sends it."""
    key = request.query_params.get(name)
    return {"x-api-key": key} if key else request.headers
