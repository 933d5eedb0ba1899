"""The gateway's files: nginx's configuration, API keys, and a certificate to begin with."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from string import Template

from front.api_keys import ApiKey

TEMPLATE = Path(__file__).resolve().parent.parent / "gateway/nginx.conf.template"
PAINTERA_TEMPLATE = TEMPLATE.with_name("paintera.conf.template")
# HTTP status ► gRPC status and what both say. 429 and 503 are UNAVAILABLE: clients try again.
REFUSALS = {
    401: (16, "send an API key: Authorization: Bearer KEY, or X-API-Key: KEY"),
    404: (
        12,
        "the gateway passes /v1, and inference, health and metadata of sam2, sam2_embedding,"
        " sam2_automask and sam2_video only",
    ),
    413: (8, "the request is larger than the gateway allows"),
    429: (14, "too many connections for this API key; try again later"),
    503: (14, "the server does not answer; try again later"),
}
PAINTERA_REFUSALS = {
    403: (7, "your address is not among those that are let in without an API key"),
    404: (12, "without an API key: ModelReady and ModelStreamInfer of sam2.1_large_encoder only"),
    413: REFUSALS[413],
    429: (14, "too many streams from this address; close one first"),
    503: REFUSALS[503],
}
CERTIFICATE_DAYS = 825


@dataclass(frozen=True)
class GatewaySettings:
    """Addresses, places and limits; the defaults are those of the container."""

    listen: str = "0.0.0.0:8443"
    upstream_http: str = "front:8080"
    upstream_grpc: str = "front:8081"
    config_dir: str = "/etc/sam2-gateway"
    runtime_dir: str = "/tmp"  # noqa: S108 - a tmpfs of the container's own
    access_log: str = "/dev/stdout"
    workers: str = "auto"
    # One image of 64 MiB (max_image_bytes) and its prompts.
    max_body: str = "80m"
    # Encoding on a busy CPU takes seconds; nothing takes minutes.
    answer_timeout: str = "120s"
    # The front's 32 requests and 32 streams of a key, which it refuses in its own words, and a few senders.
    connections_at_once: int = 80
    # Between two messages of a stream.
    stream_timeout: str = "1h"
    # Demand certificates of this authority (client_ca.pem in config_dir) besides API keys.
    client_certificates: bool = False
    # Networks and addresses whose Painteras come without a key; none: no such port.
    paintera_from: tuple[str, ...] = ()
    paintera_listen: str = "0.0.0.0:8001"
    upstream_keyless: str = "front:8083"
    # Of one address, which is several people's behind a router; a Paintera has four, and asks for readiness.
    paintera_streams_at_once: int = 20


class _AtTemplate(Template):
    # nginx's own variables begin with a dollar sign.
    delimiter = "@"


def render(settings: GatewaySettings) -> str:
    """nginx.conf for the settings; raises ValueError for what is no network in paintera_from."""
    fields = vars(settings) | {
        "client_certificates": (
            f"ssl_client_certificate {settings.config_dir}/client_ca.pem;\n"
            "        ssl_verify_client on;"
            if settings.client_certificates
            else "# No client certificates; API keys alone."
        ),
        "refusals": "".join(_refusal(status) for status in REFUSALS),
        "paintera": "",
        "paintera_allowed": "\n        ".join(
            f"allow {ip_network(each)};" for each in settings.paintera_from
        ),
        "paintera_refusals": "".join(
            _grpc_refusal(status, *refusal) for status, refusal in PAINTERA_REFUSALS.items()
        ),
    }
    if settings.paintera_from:
        fields["paintera"] = _filled(PAINTERA_TEMPLATE, fields)
    return _filled(TEMPLATE, fields)


def _filled(template: Path, fields: Mapping[str, object]) -> str:
    # The @ of nginx's named locations is no placeholder.
    text = re.sub(r"@(?=(http|grpc)_\d|preflight)", "@@", template.read_text(encoding="utf-8"))
    return _AtTemplate(text).substitute(fields)


def _refusal(status: int) -> str:
    grpc_status, message = REFUSALS[status]
    return f"""\
        location @http_{status} {{
            default_type application/json;
            return {status} '{{"error":"{message}"}}';
        }}
{_grpc_refusal(status, grpc_status, message)}"""


def _grpc_refusal(status: int, grpc_status: int, message: str) -> str:
    return f"""\
        location @grpc_{status} {{
            default_type application/grpc;
            add_header grpc-status {grpc_status} always;
            add_header grpc-message "{message}" always;
            add_header grpc-accept-encoding identity always;
            return 204;
        }}
"""


def render_api_keys(keys: Sequence[ApiKey]) -> str:
    """The map's lines, key ► name. What a key and a name may be leaves nothing to escape."""
    # Patterns, because nginx looks up plain strings regardless of case.
    return "".join(f'"~^{key.key}$" "{key.name}";\n' for key in keys)


def make_certificates(directory: Path, hosts: list[str]) -> None:
    """An authority of one's own and a server certificate by it: ca.pem for clients, server.pem, server.key.

    To begin with; replace server.pem and server.key by those of a real authority.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise FileNotFoundError("openssl is missing. Debian and Ubuntu: apt-get install openssl")
    names = ",".join(
        f"{'IP' if re.fullmatch(r'[0-9.]+|.*:.*', host) else 'DNS'}:{host}" for host in hosts
    )

    def run(*arguments: str | Path) -> None:
        subprocess.run(
            [openssl, *map(str, arguments)], check=True, capture_output=True, cwd=directory
        )

    run(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
        *("-subj", "/CN=triton-sam2 gateway authority", "-days", str(CERTIFICATE_DAYS)),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    run(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
        *("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={hosts[0]}"),
        *("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-days", str(CERTIFICATE_DAYS), "-keyout", "server.key", "-out", "server.pem"),
    )
    # Nobody needs the authority's key again: a new certificate comes with a new authority.
    (directory / "ca.key").unlink()
    (directory / "server.key").chmod(0o600)
