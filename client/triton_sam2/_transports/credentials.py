"""TLS files and headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.urls import Endpoint


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
        # gRPC allows lower-case header names only; HTTP does not care.
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(headers=lower, **given)
