"""Options that every command has: which server, as whom, and how the answer is printed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._clients.video_blocking import SAM2VideoClient
from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.credentials import checked_headers

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The server: host:port (port 8000 is HTTP, others gRPC), or with grpc://, grpcs://, http:// or "
        "https:// before it. Default: TRITON_URL, else localhost:8001.",
        rich_help_panel="Connection",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", help="For a whole call.", rich_help_panel="Connection"
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME:VALUE",
        help="Goes with every call, for API keys.",
        rich_help_panel="Connection",
    ),
]
TlsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tls",
        metavar="KIND=FILE",
        help="PEM files for grpcs:// and https://: ca=, cert= and key=.",
        rich_help_panel="Connection",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@dataclass(frozen=True)
class Connection:
    """The connection options of a command."""

    url: str | None
    timeout: float
    header: list[str] | None
    tls: list[str] | None

    def client(self) -> SAM2TritonClient:
        """A client as these options say."""
        return SAM2TritonClient(
            self.url, timeout=self.timeout, headers=self.headers(), **self.tls_files()
        )

    def video_client(self) -> SAM2VideoClient:
        """A client for videos as these options say."""
        return SAM2VideoClient(
            self.url, timeout=self.timeout, headers=self.headers(), **self.tls_files()
        )

    def headers(self) -> dict[str, str]:
        """Headers by name."""
        pairs = [text.partition(":") for text in self.header or []]
        for name, separator, _ in pairs:
            if not separator or not name.strip():
                raise InvalidInputError(f"--header: expected NAME:VALUE, got {name!r}")
        stripped = [(name.strip(), value.strip()) for name, _, value in pairs]
        names = [name.lower() for name, _ in stripped]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InvalidInputError(f"--header: {twice[0]} is given twice")
        try:
            return checked_headers(dict(stripped))
        except InvalidInputError as error:
            raise InvalidInputError(f"--header: {str(error).partition(': ')[2]}") from error

    def tls_files(self) -> dict[str, Any]:
        """The constructor's arguments for TLS."""
        files: dict[str, Any] = {}
        for text in self.tls or []:
            kind, separator, path = text.partition("=")
            if kind not in {"ca", "cert", "key"} or not separator:
                raise InvalidInputError(
                    f"--tls: expected ca=, cert= or key= and a file, got {text!r}"
                )
            files[f"{kind}_file"] = Path(path)
        return files


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=1))
