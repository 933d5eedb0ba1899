import threading

import pytest
from request_gate import GateFullError, RequestGate


def test_requests_beyond_the_limit_are_refused_and_counted_until_one_leaves():
    gate = RequestGate(2)
    gate.enter()
    gate.enter()
    for _ in range(3):
        with pytest.raises(GateFullError, match="max_requests_in_flight 2.*try again"):
            gate.enter()
    assert (gate.in_flight, gate.refused) == (2, 3)
    gate.leave()
    gate.enter()
    assert (gate.in_flight, gate.refused) == (2, 3)


def test_every_thread_counts():
    gate = RequestGate(10_000)

    def come_and_go() -> None:
        for _ in range(500):
            gate.enter()
            gate.enter()
            gate.leave()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (gate.in_flight, gate.refused) == (4000, 0)


def test_a_tenant_has_a_share():
    gate = RequestGate(4, tenant_percent=50)
    for tenant in ("alice", "alice", "bob"):
        gate.enter(tenant)
    with pytest.raises(GateFullError, match="max_requests_in_flight 4, of which a tenant has 2"):
        gate.enter("alice")
    gate.enter("bob")
    with pytest.raises(GateFullError, match=r"\(max_requests_in_flight 4\)"):
        gate.enter("carol")
    gate.leave("alice")
    gate.enter("carol")
    for tenant in ("alice", "bob", "bob", "carol"):
        gate.leave(tenant)
    for _ in range(4):  # whoever comes without a tenant is alone
        gate.enter()
