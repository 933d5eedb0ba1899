"""Counts of a stress run: RPCs here, successes, failures and decodes there."""

import asyncio
import time
from urllib.request import urlopen

import numpy as np
from triton_sam2 import Segmentation, SpeculativeSAM2Client
from triton_sam2._calls.arguments import Settings
from triton_sam2._transports.grpc_asyncio import GrpcAioTransport
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2.cli._server_status import metric_values


class CountingTransport(GrpcAioTransport):
    """Counts RPCs, and those that were cancelled on their way."""

    rpcs = 0
    cancelled = 0

    async def infer(self, request: InferRequest) -> Tensors:
        self.rpcs += 1
        try:
            return await super().infer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def make_client(url: str, **options: object) -> tuple[SpeculativeSAM2Client, CountingTransport]:
    settings = Settings.read(url, 60.0, None, None, (None, None, None))
    transport = CountingTransport(settings.endpoint, settings.credentials)
    return SpeculativeSAM2Client(url, _transport=transport, **options), transport  # type: ignore[arg-type]


def counters(metrics_url: str) -> dict[str, float]:
    """The server's own counts: sam2's successes and failures, and the decoder's executions."""
    with urlopen(metrics_url, timeout=30) as response:
        text = response.read().decode()
    return {
        "succeeded": metric_values(text, "nv_inference_request_success", "sam2"),
        "failed": metric_values(text, "nv_inference_request_failure", "sam2"),
        "decodes": metric_values(text, "nv_inference_exec_count", "sam2_decoder"),
    }


def settled_counters(metrics_url: str) -> dict[str, float]:
    """The counts once they have stopped changing: cancelled work has ended."""
    before = counters(metrics_url)
    for _ in range(100):
        time.sleep(0.3)
        after = counters(metrics_url)
        if after == before:
            return after
        before = after
    raise AssertionError("the server's counters never came to rest")


def same(result: Segmentation, expected: Segmentation) -> bool:
    return np.array_equal(result.masks, expected.masks) and np.allclose(
        result.iou_predictions, expected.iou_predictions, atol=1e-4
    )
