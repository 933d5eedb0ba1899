"""Several servers behind the gateway: all steps of a video session reach the one that has it."""

import threading
from collections import defaultdict
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from triton_sam2 import SAM2VideoClient

from tests.client.fake_servers import grpc_server
from tests.client.fakes import FakeSam
from tests.docker.deploy.gateways import (
    ALICE,
    INFER,
    gateway_settings,
    needs_nginx,
    running_gateway,
)

PIXELS = np.zeros((4, 6, 3), np.uint8)


class Server(ThreadingHTTPServer):
    """Answers everything, and remembers by which route it came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.routes.append(self.headers["x-sam2-session"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Silent."""


@needs_nginx
def test_http_requests_of_a_session_reach_one_server(tmp_path: Path) -> None:
    servers = [Server(), Server()]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    addresses = "; server ".join(f"127.0.0.1:{server.server_port}" for server in servers)
    with running_gateway(gateway_settings(tmp_path, addresses, "127.0.0.1:1")) as gateway:
        for number in [*range(20), *range(20)]:
            route = {"x_sam2_session": f"session-{number}"}
            assert gateway.http("POST", INFER, b"{}", x_api_key=ALICE, **route).status == 200
        for _ in range(30):
            assert gateway.http("POST", INFER, b"{}", x_api_key=ALICE).status == 200
    at = defaultdict(set)
    for number, server in enumerate(servers):
        for route in server.routes:
            at[route].add(number)
        server.shutdown()
    # Without a header a request may go to any.
    assert at.pop(None) == {0, 1}
    assert len(at) == 20
    assert all(len(numbers) == 1 for numbers in at.values())
    assert set.union(*at.values()) == {0, 1}


@needs_nginx
def test_grpc_calls_and_streams_of_the_client_reach_one_server(tmp_path: Path) -> None:
    sams = [FakeSam(), FakeSam()]
    with ExitStack() as stack:
        addresses = [stack.enter_context(grpc_server(sam))[0] for sam in sams]
        settings = gateway_settings(tmp_path, "127.0.0.1:1", "; server ".join(addresses))
        gateway = stack.enter_context(running_gateway(settings))
        client = stack.enter_context(
            SAM2VideoClient(
                f"grpcs://localhost:{gateway.port}",
                headers={"x-api-key": ALICE},
                ca_file=gateway.ca_file,
            )
        )
        states = [client.init_state([PIXELS] * 3) for _ in range(12)]
        for state in states:
            client.add_new_points_or_box(state, 0, 1, [[1, 1]], [1])
        for state in states:
            frames = list(client.propagate_in_video(state))
            assert [frame.frame_idx for frame in frames] == [0, 1, 2]
        held = [set(sam.video.sessions) for sam in sams]
        assert all(held), "one server has all sessions"
        assert held[0].isdisjoint(held[1])
        assert set.union(*held) == {state.session_id for state in states}
        for state in states:
            client.close_state(state)
        assert not any(sam.video.sessions for sam in sams)
        assert states[0].session_id not in gateway.log
