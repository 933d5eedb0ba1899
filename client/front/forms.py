"""Forms as curl -F sends them, bounded before they are laid out in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from front.http_bodies import body_pieces
from front.refusals import Refusal, invalid
from front.service import Reservation
from front.settings import Limits

MAX_FIELDS = 2000
MAX_FIELD_BYTES = 65_536


@dataclass(frozen=True)
class SentForm:
    """A form's file, if there is one: an image, or a video where that is a field; and its other fields."""

    image: bytes | None
    video: bytes | None
    fields: FormData
    body_bytes: int

    @classmethod
    def empty(cls) -> SentForm:
        """A form without fields."""
        return cls(None, None, FormData(), 0)

    def one(self, name: str, default: str | None = None) -> str | None:
        """The field's value; a Refusal where it came several times."""
        values = self.all(name)
        if len(values) > 1:
            raise invalid(f"{name}: expected once, came {len(values)} times")
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """The values of a field that may be repeated."""
        values = self.fields.getlist(name)
        return [value for value in values if isinstance(value, str)]

    def flag(self, name: str) -> bool:
        """A field that is true or false."""
        value = (self.one(name) or "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise invalid(f"{name}: expected true or false, got {value[:40]!r}")
        return value in ("true", "1")


async def read_form(
    request: Request, known: frozenset[str], limits: Limits, reservation: Reservation
) -> SentForm:
    """A multipart or URL-encoded form whose fields are all known.

    Raises:
        Refusal: naming the field that is unknown, or why the body is no form.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise Refusal(
            invalid("").code,
            "Content-Type: expected multipart/form-data, as `curl -F image=@photo.jpg` sends it, got"
            f" {kind[:60]!r}",
            415,
        )
    before = reservation.held_bytes
    pieces = body_pieces(request, limits, reservation)
    try:
        fields = await _parse(kind, request.headers, pieces, limits)
    except (MultiPartException, UnicodeDecodeError, KeyError, ValueError) as error:
        raise invalid(f"body: expected a form, got one that does not parse: {error}") from error
    unknown = sorted(set(fields) - known)
    if unknown:
        raise invalid(f"{unknown[0][:60]!r}: no such field; known are {', '.join(sorted(known))}")
    try:
        image, video = await _file(fields, "image"), await _file(fields, "video")
        return SentForm(image, video, fields, reservation.held_bytes - before)
    finally:
        await fields.close()


async def _parse(
    kind: str, headers: Headers, pieces: AsyncGenerator[bytes, None], limits: Limits
) -> FormData:
    if kind == "application/x-www-form-urlencoded":
        return await FormParser(headers, _ended(pieces)).parse()
    parser = MultiPartParser(
        headers, pieces, max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    # In memory, which is bounded: no picture of a client's on a disk.
    parser.spool_max_size = limits.max_request_bytes + 1
    return await parser.parse()


async def _ended(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The pieces, and the empty one that tells this parser of their end."""
    async for piece in pieces:
        if piece:
            yield piece
    yield b""


async def _file(fields: FormData, name: str) -> bytes | None:
    file = fields.get(name)
    if file is None:
        return None
    if not isinstance(file, UploadFile):
        raise invalid(f"{name}: expected a file (curl: -F {name}=@FILE, with the @), got text")
    return await file.read()
