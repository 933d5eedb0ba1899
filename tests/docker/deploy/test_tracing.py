"""OpenTelemetry: the options of `just deploy --tracing` really send traces."""

import http.server
import threading
from pathlib import Path

import pytest
from deploy.files import TRACING
from sam2_server.probe import probe

from tests.patience import wait_until
from tests.running_server import RunningServer


@pytest.mark.server
@pytest.mark.slow
def test_spans_of_the_ensembles_steps_are_sent(demo_repository: Path, tmp_path: Path) -> None:
    bodies: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    options = TRACING.replace("http://jaeger:4318", f"http://127.0.0.1:{collector.server_port}")
    # Every request instead of one in a hundred.
    options = options.replace("rate=100", "rate=1")
    try:
        with RunningServer(
            demo_repository, tmp_path / "state", "--no-probe", "--", *options.split()
        ) as running:
            assert probe(f"grpc://{running.grpc_url}", 60).healthy
            wait_until(
                lambda: any(b"sam2_decoder" in body for body in bodies), "a span of sam2_decoder"
            )
    finally:
        collector.shutdown()
    said = b"".join(bodies)
    # Not sam2_preprocess and sam2_encoder: what sam2_embedding calls by itself is within its own span.
    for word in (b"triton-sam2", b"sam2_embedding", b"sam2_prompt", b"sam2_postprocess"):
        assert word in said, word
    # No image content.
    assert b"PNG" not in said
