"""Encrypted connections, with certificates made on the spot."""

import http.server
import ssl
import subprocess
import threading

import grpc
import pytest
from triton_sam2 import SAM2TritonClient, ServerUnavailableError

from tests.client.fake_servers import HttpServer, grpc_server
from tests.client.fakes import FakeSam, png_of
from tests.tools import needs

pytestmark = needs("openssl")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate authority, and a server's and a client's certificates that it signed."""
    folder = tmp_path_factory.mktemp("tls")
    openssl(
        *(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
        ),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.pem"),
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr"),
        )
        openssl(
            *(
                "x509",
                "-req",
                "-in",
                folder / f"{name}.csr",
                "-days",
                "2",
                "-extfile",
                folder / "names",
            ),
            *("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"),
            *("-out", folder / f"{name}.pem"),
        )
    return folder


@pytest.fixture(params=["grpcs", "https"])
def url(request, pem):
    """A server that wants a client's certificate."""
    if request.param == "grpcs":
        credentials = grpc.ssl_server_credentials(
            [((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())],
            (pem / "ca.pem").read_bytes(),
            require_client_auth=True,
        )
        with grpc_server(FakeSam(), credentials) as (address, _):
            yield f"grpcs://{address}"
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "server.pem", pem / "server.key")
    context.load_verify_locations(pem / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server: http.server.HTTPServer = HttpServer(FakeSam())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_both_sides_show_certificates(url, pem):
    with SAM2TritonClient(
        url, ca_file=pem / "ca.pem", cert_file=pem / "client.pem", key_file=pem / "client.key"
    ) as client:
        assert client.segment(png_of(), [[30, 20]], [1]).masks.any()


def test_a_client_without_certificate_is_refused(url, pem):
    with (
        SAM2TritonClient(url, ca_file=pem / "ca.pem", timeout=60) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.set_image(png_of())


def test_a_server_of_an_unknown_authority_is_refused(url, pem):
    with (
        SAM2TritonClient(url, timeout=60) as client,
        pytest.raises(ServerUnavailableError, match="(?i)certificate"),
    ):
        client.set_image(png_of())
