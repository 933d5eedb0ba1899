"""Keys are exact, tenants theirs, rates counted by a clock of the test's own."""

from dataclasses import replace

import grpc
import pytest
from front.api_keys import ApiKeysError, read_api_keys
from front.callers import Callers
from front.refusals import Refusal
from front.settings import Limits

ALICE, BOB = "a" * 32, "Bob_-" * 8
LIMITS = replace(
    Limits(),
    requests_per_second=2.0,
    burst=3,
    requests_at_once_per_key=2,
    streams_at_once_per_key=1,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def callers(tmp_path, clock):
    path = tmp_path / "api_keys"
    path.write_text(f"# NAME KEY [TENANT]\n\nalice {ALICE}\nbob {BOB} guests # a comment\n")
    return Callers(path, LIMITS, clock)


def test_each_key_is_its_tenant(callers):
    assert callers.recognise({"x-api-key": ALICE}).tenant == "alice"
    bob = callers.recognise({"authorization": f"Bearer {BOB}"})
    assert (bob.name, bob.tenant) == ("bob", "guests")
    assert callers.recognise({"authorization": f"bearer  {BOB} "}) is bob


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ALICE.upper()},
        {"x-api-key": ALICE[:-1]},
        {"x-api-key": ALICE + "a"},
        {"x-api-key": BOB.swapcase()},
        {"x-api-key": "alice"},
        {"authorization": BOB},
        {"authorization": f"Basic {BOB}"},
        {"authorization": "Bearer "},
        {"x-api-key": "\udcff"},
    ],
)
def test_nothing_else_is_a_key(callers, headers):
    with pytest.raises(Refusal) as refused:
        callers.recognise(headers)
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.http_status == 401


def test_without_keys_all_are_one(clock):
    callers = Callers(None, LIMITS, clock)
    anybody = callers.recognise({"x-api-key": "whatever"})
    assert anybody.tenant is None
    for _ in range(50):
        with callers.admit(anybody), callers.admit_stream(anybody):
            pass


def asked(callers, caller):
    with callers.admit(caller):
        pass


def test_burst_and_rate(callers, clock):
    alice, bob = (callers.recognise({"x-api-key": key}) for key in (ALICE, BOB))
    for _ in range(3):
        asked(callers, alice)
    with pytest.raises(Refusal, match="requests_per_second") as refused:
        asked(callers, alice)
    assert refused.value.http_status == 429
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    asked(callers, bob)  # a rate of his own
    clock.now += 0.5
    asked(callers, alice)
    with pytest.raises(Refusal):
        asked(callers, alice)
    clock.now += 1000
    for _ in range(3):
        asked(callers, alice)
    with pytest.raises(Refusal):
        asked(callers, alice)


def test_at_once(callers):
    alice = callers.recognise({"x-api-key": ALICE})
    with (
        callers.admit(alice),
        callers.admit(alice),
        pytest.raises(Refusal, match="requests_at_once_per_key"),
    ):
        asked(callers, alice)
    assert alice.at_once == 0
    with (
        callers.admit_stream(alice),
        pytest.raises(Refusal, match="streams_at_once_per_key"),
        callers.admit_stream(alice),
    ):
        pass
    assert alice.streams == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice", "line 2: expected NAME KEY"),
        (f"alice {BOB} t x", "line 2: expected NAME KEY"),
        (f"al/ice {BOB}", "line 2: expected names"),
        (f"alice {BOB} te/nant", "line 2: expected names"),
        ("alice short", "line 2: alice: expected a key"),
        (f"first {BOB}", "line 2: expected each name and each key once"),
        (f"alice {ALICE}", "line 2: expected each name and each key once"),
    ],
)
def test_lines_that_cannot_be_used(line, words):
    with pytest.raises(ApiKeysError) as error:
        read_api_keys(f"first {ALICE}\n{line}\n")
    assert words in str(error.value)
    assert ALICE not in str(error.value)
    assert BOB not in str(error.value)


def test_a_key_is_not_shown_by_accident():
    assert ALICE not in repr(read_api_keys(f"first {ALICE}"))
