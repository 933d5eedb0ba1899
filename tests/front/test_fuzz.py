"""The first 200 requests of `just fuzz-front`."""

import pytest

from tests.front.fuzz import KEYS, Fuzzer, with_keys
from tests.running_front import RunningFront

pytestmark = pytest.mark.server


def test_no_request_is_a_fault(server, front):
    fuzzer = Fuzzer(server, front)
    for seed in range(200):
        fuzzer.send(seed)
    fuzzer.check_good()
    assert fuzzer.faults == []
    # The seeds do what they are for: good requests, mistakes of both protocols.
    assert {"OK", "200", "400", "INVALID_ARGUMENT", "NOT_FOUND"} <= fuzzer.statuses.keys()


def test_nor_does_it_touch_another_tenants_image(server, tmp_path):
    with RunningFront(server.grpc_url, tmp_path, *with_keys(tmp_path)) as front:
        fuzzer = Fuzzer(server, front, KEYS[:2], KEYS[2])
        for seed in range(1000, 1100):
            fuzzer.send(seed)
        fuzzer.check_good()
    assert fuzzer.faults == []
