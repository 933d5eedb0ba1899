"""A request with its tensors' bytes beside its message, so that an image is copied once: for Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from front.message_weight import check_weight, not_a_message, split_raws
from front.settings import Limits

Raw: TypeAlias = bytes | memoryview
# raw_input_contents: the field's number in ModelInferRequest, and its wire type, a string of bytes.
_RAW_TAG = bytes([7 << 3 | 2])


class TritonRequest:
    """A ModelInferRequest without its raw_input_contents, and these, in their order."""

    def __init__(self, message: Any, raws: Sequence[Raw]) -> None:
        self.message = message
        self.raws = list(raws)

    @classmethod
    def parse(cls, data: bytes, limits: Limits) -> TritonRequest:
        """From the wire, whose bytes the raws still are; a Refusal where it is none, or of too many parts."""
        check_weight(data, limits)
        rest, raws = split_raws(data)
        try:
            message = service_pb2.ModelInferRequest.FromString(rest)
        except DecodeError as error:
            raise not_a_message("ModelInferRequest", len(data)) from error
        # What a newer protocol may have added was not read, so it is not passed on.
        message.DiscardUnknownFields()
        return cls(message, raws)

    @classmethod
    def of(cls, message: Any) -> TritonRequest:
        """From a whole message, which loses its raw contents."""
        raws = list(message.raw_input_contents)
        del message.raw_input_contents[:]
        return cls(message, raws)

    def take_bytes(self) -> bytes:
        """The whole message as it goes over the wire; the request itself is empty afterwards."""
        pieces: list[Raw] = [self.message.SerializeToString()]
        for raw in self.raws:
            pieces += (_RAW_TAG, _varint(len(raw)), raw)
        data = b"".join(pieces)
        self.message, self.raws = None, []
        return data


class Parcel:
    """Bytes for Triton that nobody holds on to once they are on their way."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def take(self) -> bytes:
        """The bytes, once."""
        data, self._data = self._data, None
        if data is None:
            raise ValueError("expected to be taken once")
        return data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
