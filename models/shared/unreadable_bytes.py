"""What bytes that are no file of ours seem to be, in words that end the sender's search."""

from __future__ import annotations

import base64
import binascii
import re

# First bytes of files that people send by mistake, at their offset.
OTHER_FILES = [
    (0, b"GIF8", "a GIF file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftypavis", "an AVIF file"),
    (4, b"ftyphei", "a HEIC file"),
    (4, b"ftyphev", "a HEIC file"),
    (4, b"ftypmif1", "a HEIF file"),
    (4, b"ftyp", "a video or HEIF file"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip-compressed bytes"),
    (0, b"\x93NUMPY", "a NumPy array file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"<svg", "an SVG file"),
    (0, b"<?xml", "an XML or SVG file"),
    (0, b"<!DOCTYPE", "an HTML page"),
    (0, b"<html", "an HTML page"),
]
PICTURE_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/_-]+=*")
FILE_ENDINGS = rb"jpe?g|png|webp|bmp|tiff?|mp4|mov|webm|mkv|avi"
ADDRESS = re.compile(rb"(?:https?|file|s3)://|/[\w.-]+/|[\w./\\-]+\.(?:" + FILE_ENDINGS + rb")$")
SEND_BYTES = "send the file's bytes themselves, over HTTP in the binary form"


def describe_unreadable(
    data: bytes,
    length_bytes: int | None = None,
    file_starts: tuple[bytes, ...] = PICTURE_STARTS,
) -> str:
    """How many bytes, what they look like and, where it is known, what to do about it.

    Args:
        data: the file, or its beginning where length_bytes says how long it is.
        file_starts: how files begin that would have been right, had they not been turned into text.
    """
    length = len(data) if length_bytes is None else length_bytes
    head = data[:4096].lstrip()
    if head[:5].lower() == b"data:":
        return f"a data URL of {length} bytes; {SEND_BYTES}"
    if _is_base64_of(head, file_starts):
        return f"{length} bytes of base64 text, which is not decoded here; {SEND_BYTES}"
    if _is_text_of_picture(data):
        what = "an image file that something turned into text (UTF-8)"
        return f"{length} bytes of {what}; {SEND_BYTES}"
    for offset, start, name in OTHER_FILES:
        if data[offset : offset + len(start)] == start or (not offset and head.startswith(start)):
            return f"{name} of {length} bytes"
    if ADDRESS.match(head):
        return f"{length} bytes that look like a path or an address; {SEND_BYTES}"
    return f"{length} bytes that are none of them (they begin with {data[:8].hex(' ')})"


def _is_base64_of(head: bytes, file_starts: tuple[bytes, ...]) -> bool:
    text = b"".join(head[:256].split())[:64]
    if len(text) < 8 or BASE64_TEXT.fullmatch(text) is None:
        return False
    text = text.replace(b"-", b"+").replace(b"_", b"/")
    try:
        start = base64.b64decode(text[: len(text.rstrip(b"=")) // 4 * 4])
    except binascii.Error:
        return False
    return start.startswith(file_starts)


def _is_text_of_picture(data: bytes) -> bool:
    """Bytes that a client took for Latin-1 text, or for broken UTF-8, and encoded once more."""
    if data.startswith((b"\xef\xbf\xbdPNG", b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd")):
        return True
    try:
        start = data[:16].decode("utf-8", "ignore").encode("latin-1")
    except UnicodeEncodeError:
        return False
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG"))
