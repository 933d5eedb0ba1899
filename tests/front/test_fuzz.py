"""The first 200 requests of `just fuzz-front`."""

import pytest

from tests.front.fuzz import Fuzzer

pytestmark = pytest.mark.server


def test_no_request_is_a_fault(server, front):
    fuzzer = Fuzzer(server, front)
    for seed in range(200):
        fuzzer.send(seed)
    fuzzer.check_good()
    assert fuzzer.faults == []
    # The seeds do what they are for: good requests, mistakes of both protocols.
    assert {"OK", "200", "400", "INVALID_ARGUMENT", "NOT_FOUND"} <= fuzzer.statuses.keys()
