"""The orientation in an EXIF block, and nothing else of it: whatever is odd elsewhere costs no picture."""

from __future__ import annotations

import re
import struct
import zlib

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
RAW_PROFILE = re.compile(rb"Raw profile type (?:exif|APP1)\0", re.IGNORECASE)
# A profile in text is twice its size; an EXIF block in JPEG has at most 64 KiB.
MAX_RAW_PROFILE_BYTES = 1 << 18
# How an entry of this type holds a small whole number. SHORT is what the standard asks for.
NUMBER_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def orientation_of(exif: bytes) -> int:
    """1 to 8, as the first directory of an EXIF block says; 1 (upright) where it says nothing usable."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(entries):
            at = offset + 2 + 12 * index
            tag, kind, count = struct.unpack_from(order + "HHI", exif, at)
            if tag == ORIENTATION_TAG:
                return _number(exif, at + 8, order, kind, count)
    except struct.error:  # the block ends early: so does what it says
        return UPRIGHT
    return UPRIGHT


def orientation_of_png_text(kind: bytes, body: bytes) -> int | None:
    """The orientation in the text chunk that keeps EXIF where `eXIf` is not used; None for other texts."""
    keyword = RAW_PROFILE.match(body)
    if keyword is None:
        return None
    text = body[keyword.end() :]
    if kind == b"zTXt":
        try:
            text = zlib.decompressobj().decompress(text[1:], MAX_RAW_PROFILE_BYTES)
        except zlib.error:
            return UPRIGHT
    # A line with the name, a line with the length, then hexadecimal digits.
    digits = b"".join(text[:MAX_RAW_PROFILE_BYTES].split()[2:])
    hexadecimal = re.match(rb"(?:[0-9a-fA-F]{2})*", digits)
    return orientation_of(bytes.fromhex(hexadecimal[0].decode()) if hexadecimal else b"")


def _number(exif: bytes, at: int, order: str, kind: int, count: int) -> int:
    if count != 1 or kind not in NUMBER_FORMATS:
        return UPRIGHT
    (value,) = struct.unpack_from(order + NUMBER_FORMATS[kind], exif, at)
    return int(value) if 1 <= value <= 8 else UPRIGHT
