"""Mouse moves under stress, against a real server; prints its figures and asserts what must hold.

    just stress                          # starts the small model
    just stress --url localhost:8001     # a running server

1. 500 moves in bursts from 8 sessions, most of them cancelled: every surviving result equals the sequential
   one, each session's last position arrives, the server itself cancelled requests, nothing leaks.
2. 200 moves at 60 Hz, `latest_only` against the plain queue: decodes executed, and the time from the last
   move to its mask.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from triton_sam2._transports.urls import parse_url

from export.repository import assemble_repository
from tests.client.stress_bursts import burst_stress
from tests.client.stress_mouse import MOUSE_HZ, MOUSE_MOVES, mouse_run
from tests.running_server import ROOT, RunningServer


def main(arguments: Sequence[str] | None = None) -> None:
    """Both parts, against the server named or, without one, a server of its own with the small model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a running server's gRPC port; default: start one")
    parser.add_argument("--metrics-url", help="its metrics; default: port 8002 of its host")
    parser.add_argument("--model-repository", type=Path, help="what to serve when starting one")
    parser.add_argument("--mouse-moves", type=int, default=MOUSE_MOVES)
    options = parser.parse_args(arguments)
    if options.url is not None:
        host = parse_url(options.url).host
        run(options.url, options.metrics_url or f"http://{host}:8002/metrics", options.mouse_moves)
        return
    with tempfile.TemporaryDirectory() as folder:
        repository = options.model_repository or Path(folder) / "demo"
        if options.model_repository is None:
            assemble_repository(ROOT / "export/demo_model/onnx", repository, video=False)
        with RunningServer(repository, Path(folder) / "server", "--no-probe") as server:
            run(server.grpc_url, server.metrics_url, options.mouse_moves)


def run(url: str, metrics_url: str, mouse_moves: int) -> None:
    """Both parts, with their figures."""
    figures = burst_stress(url, metrics_url)
    print(figures.report())
    figures.check()
    figures.check_server_was_told()
    naive = mouse_run(url, metrics_url, latest_only=False, moves=mouse_moves)
    latest = mouse_run(url, metrics_url, latest_only=True, moves=mouse_moves)
    for name, way in (("naive queue", naive), ("latest_only", latest)):
        print(
            f"{mouse_moves} moves at {MOUSE_HZ} Hz, {name}: {way.decodes} decodes, {way.masks_seen} masks, "
            f"last mask {way.last_mask_s * 1000:.0f} ms after the last move"
        )
    print(
        f"latest_only against naive: {latest.decodes / naive.decodes:.2f} of the decodes, "
        f"{latest.last_mask_s / naive.last_mask_s:.3f} of the wait"
    )
    assert latest.decodes <= naive.decodes


if __name__ == "__main__":
    main()
