"""`just stress` in the tests: the bursts as they are, the mouse in a shorter run."""

import pytest

from tests.client.stress_bursts import burst_stress
from tests.client.stress_mouse import mouse_run

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_bursts_of_mouse_moves_with_cancellations(server):
    figures = burst_stress(server.grpc_url, server.metrics_url)
    print(figures.report())
    figures.check()


def test_latest_only_decodes_no_more_than_the_naive_queue(server):
    naive = mouse_run(server.grpc_url, server.metrics_url, latest_only=False, moves=60)
    latest = mouse_run(server.grpc_url, server.metrics_url, latest_only=True, moves=60)
    assert naive.masks_seen == 60
    assert latest.masks_seen <= 60
    assert latest.decodes <= naive.decodes
