"""Requests on one stream: those to a model with sessions go one after another, all others side by side."""

import asyncio
from typing import Any

import pytest
from front.grpc_protocol import GrpcProtocol
from front.message_weight import read_model_name
from front.settings import Limits
from tritonclient.grpc import service_pb2


class Protocol(GrpcProtocol):
    """Answers a request when it is told to; remembers which are under way."""

    def __init__(self) -> None:
        self._service = type("Service", (), {"limits": Limits()})()
        self.under_way: list[str] = []
        self.most = 0

    async def _stream_answer(self, caller: Any, data: bytes) -> bytes:
        request = service_pb2.ModelInferRequest.FromString(data)
        self.under_way.append(request.id)
        self.most = max(self.most, len(self.under_way))
        await asyncio.sleep(0.01 if int(request.id) % 2 else 0)
        self.under_way.remove(request.id)
        return request.id.encode()


def messages(models: list[str]) -> list[bytes]:
    return [
        service_pb2.ModelInferRequest(model_name=model, id=str(number)).SerializeToString()
        for number, model in enumerate(models)
    ]


def play(models: list[str]) -> tuple[list[bytes], int]:
    async def go() -> tuple[list[bytes], int]:
        protocol = Protocol()

        async def requests():
            for data in messages(models):
                yield data

        answers = [answer async for answer in protocol._stream_answers(None, requests())]
        return answers, protocol.most

    return asyncio.run(go())


def test_sessions_go_one_after_another_and_others_side_by_side():
    count = 12
    answers, most = play(["sam2_video"] * count)
    assert answers == [str(number).encode() for number in range(count)]
    assert most == 1
    answers, most = play(["sam2"] * count)
    assert answers == [str(number).encode() for number in range(count)]
    assert most > 1
    answers, most = play(["sam2_video", "sam2"] * count)
    assert answers == [str(number).encode() for number in range(2 * count)]
    assert most >= 2


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (messages(["sam2_video"])[0], "sam2_video"),
        # Of a field that is there twice the last one counts, as for every parser.
        (messages(["sam2"])[0] + messages(["sam2_video"])[0], "sam2_video"),
        (b"", ""),
        (b"\x0a\xff", ""),
        (messages(["x" * 300])[0], ""),
    ],
)
def test_the_model_is_read_as_a_parser_would(data, name):
    assert read_model_name(data) == name
