"""TLS files and headers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.urls import Endpoint

_HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_TRANSPORTS_OWN = {
    "connection",
    "content-length",
    "content-type",
    "host",
    "inference-header-content-length",
    "te",
    "transfer-encoding",
}


@dataclass(frozen=True)
class Credentials:
    """TLS files (PEM) and headers that go with every call."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        endpoint: Endpoint,
        ca_file: str | Path | None,
        cert_file: str | Path | None,
        key_file: str | Path | None,
        headers: Mapping[str, str] | None,
    ) -> "Credentials":
        """Check that the files are there and that they can have an effect."""
        files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        given = {name: Path(path).expanduser() for name, path in files.items() if path is not None}
        if given and not endpoint.has_tls:
            raise InvalidInputError(
                f"{', '.join(given)}: {endpoint} is not encrypted; write grpcs:// or https://"
            )
        for name, path in given.items():
            if not path.is_file():
                raise InvalidInputError(f"{name}: no file {path}")
        if ("cert_file" in given) != ("key_file" in given):
            raise InvalidInputError("cert_file, key_file: a client certificate needs both")
        return cls(headers=checked_headers(headers or {}), **given)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as both protocols take them, names in lower case; a value may be a key, so none is quoted."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidInputError(
                f"headers: expected a name of letters, digits, '-', '_' and '.', got {name!r}"
            )
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidInputError(
                f"headers: {name}: expected a value of printable ASCII characters, got another one"
            )
        lower = name.lower()  # gRPC allows nothing else; HTTP does not care
        if lower in _TRANSPORTS_OWN or lower.endswith("-bin"):
            raise InvalidInputError(
                f"headers: {name}: the connection makes this one itself (and gRPC keeps the ending -bin)"
            )
        if lower in checked:
            raise InvalidInputError(f"headers: {name}: given twice")
        checked[lower] = value
    return checked
