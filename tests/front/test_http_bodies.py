"""Bodies end at their limit, packed or not, and when their sender falls silent."""

import asyncio
import gzip
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from front.http_bodies import read_body
from front.refusals import Refusal
from front.settings import Limits
from starlette.requests import ClientDisconnect, Request

LIMITS = replace(Limits(), max_request_bytes=1_000_000, body_timeout_s=0.05)


class Held:
    """A reservation that only adds up."""

    held_bytes = 0

    def hold(self, count):
        self.held_bytes += count


def read(*pieces, limits=LIMITS, **headers):
    """What read_body makes of a body in pieces; None: silence, "gone": the client leaves."""
    waiting = list(pieces)

    async def receive():
        if not waiting or waiting[0] is None:
            await asyncio.sleep(60)
        piece = waiting.pop(0)
        if piece == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    held = Held()
    body = asyncio.run(read_body(request, limits, held))
    assert held.held_bytes == len(body)
    return body


def test_plain():
    assert read(b"ab", b"", b"c") == b"abc"
    assert read(b"abc", content_encoding="identity") == b"abc"
    assert read(b"") == b""


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed(name, pack):
    content = bytes(range(256)) * 2000
    packed = pack(content)
    assert read(packed[:7], packed[7:], content_encoding=name) == content


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_bomb_is_not_unpacked(name, pack):
    bomb = pack(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="max_request_bytes") as refused:
            read(bomb, content_encoding=name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.http_status == 413
    assert peak < 10_000_000


def test_bombs_in_bombs_are_just_bytes():
    assert read(gzip.compress(gzip.compress(b"x")), content_encoding="gzip") == gzip.compress(b"x")


@pytest.mark.parametrize(
    ("pieces", "headers", "status", "words"),
    [
        ([bytes(1_000_001)], {}, 413, "max_request_bytes"),
        ([bytes(600_000)] * 2, {}, 413, "max_request_bytes"),
        ([b""], {"content_length": "1000001"}, 413, "max_request_bytes"),
        ([b"x"], {"content_encoding": "br"}, 415, "Content-Encoding"),
        ([b"x"], {"content_encoding": "gzip, gzip"}, 415, "Content-Encoding"),
        ([b"not gzip"], {"content_encoding": "gzip"}, 400, "expected gzip"),
        ([gzip.compress(b"abc")[:-3]], {"content_encoding": "gzip"}, 400, "complete"),
        ([gzip.compress(b"a") + b"tail"], {"content_encoding": "gzip"}, 400, "behind its end"),
        ([b""], {"content_encoding": "gzip"}, 400, "complete"),
        ([b"a", None], {}, 408, "body_timeout_s"),
    ],
)
def test_refusals(pieces, headers, status, words):
    with pytest.raises(Refusal) as refused:
        read(*pieces, **headers)
    assert refused.value.http_status == status
    assert words in refused.value.message


def test_a_client_that_leaves():
    with pytest.raises(ClientDisconnect):
        read(b"a", "gone")
