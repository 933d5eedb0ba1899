"""Image files before a decoder sees them: which format, how to turn, and the parts that hold the picture.

Comments, colour profiles, thumbnails and the like are left out, so that nothing odd in them costs a sound
picture or a decoder's time; what is dear to decode is counted first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from exif_orientation import UPRIGHT, orientation_of, orientation_of_png_text
from image_errors import InvalidImageError, StructureLimits, check_segments
from unreadable_bytes import describe_unreadable

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PICTURE_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
PNG_TEXT_CHUNKS = {b"tEXt", b"zTXt"}
# JPEG: the next marker, as a decoder looks for it; fill bytes, stuffed zeros and what is between are skipped.
JPEG_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
# The same where coded data are: restart markers belong to them.
JPEG_MARKER_AFTER_DATA = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
JPEG_STANDALONE = {0x01, *range(0xD0, 0xD9)}
JPEG_END, JPEG_SCAN, JPEG_EXIF, JPEG_COMMENT = 0xD9, 0xDA, 0xE1, 0xFE
# Besides the tables: JFIF (E0) and Adobe (EE) say which colours the samples are.
JPEG_IGNORED = {*range(0xE1, 0xF0), JPEG_COMMENT} - {0xEE}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
WEBP_HAS_ANIMATION = 0x02


@dataclass(frozen=True)
class ImageFile:
    """A file of a known format, without metadata, and the EXIF orientation that it came with."""

    file_format: str
    data: bytes
    orientation: int = UPRIGHT


def recognise(data: bytes) -> str:
    """The format that a file's first bytes announce.

    Raises:
        InvalidImageError: none that is read here; the message says what the bytes look like.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    raise InvalidImageError(
        f"image: expected a JPEG, PNG, WebP, BMP or TIFF file, got {describe_unreadable(data)}"
    )


def without_metadata(file_format: str, data: bytes, limits: StructureLimits) -> ImageFile:
    """The file reduced to its picture, for the formats whose structure is walked through here."""
    reduce = _REDUCERS.get(file_format)
    return ImageFile(file_format, data) if reduce is None else reduce(data, limits)


def refuse_several(file_format: str, pictures: int) -> None:
    raise InvalidImageError(
        f"image: expected one picture, got an animated or multi-page {file_format} of {pictures}"
    )


def _reduce_jpeg(data: bytes, limits: StructureLimits) -> ImageFile:
    kept, orientation, position, segments = [b"\xff\xd8"], None, 2, 0
    while True:
        found = JPEG_MARKER.search(data, position)
        if found is None:
            raise InvalidImageError(
                "image: expected a complete JPEG file, got one without a picture"
            )
        marker, position = found[1][0], found.end()
        if marker == JPEG_SCAN:
            break
        if marker in JPEG_STANDALONE:
            continue
        segments += 1
        check_segments(segments, limits, "segments of a JPEG file")
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if length < 2 or end > len(data) or marker == JPEG_END:
            raise InvalidImageError(
                "image: expected a complete JPEG file, got one that is cut or damaged before its picture"
            )
        body = data[position + 2 : end]
        if marker in JPEG_FRAMES:
            _check_jpeg_frame(body)
        if marker == JPEG_EXIF and orientation is None and body.startswith(b"Exif\0\0"):
            orientation = orientation_of(body)
        if marker not in JPEG_IGNORED:
            kept.append(data[found.end() - 2 : end])
        position = end
    start = found.end() - 2
    _check_jpeg_scans(data, start, limits.max_jpeg_scans)
    picture = data[start:]
    return ImageFile("JPEG", b"".join([*kept, picture]), orientation or UPRIGHT)


def _check_jpeg_frame(body: bytes) -> None:
    if len(body) >= 6 and body[0] != 8:
        raise InvalidImageError(
            f"image: expected samples of 8 bits in a JPEG file, got {body[0]} bits"
        )
    if len(body) >= 6 and body[5] not in (1, 3, 4):
        raise InvalidImageError(
            f"image: expected 1, 3 or 4 components in a JPEG file, got {body[5]}"
        )


def _check_jpeg_scans(data: bytes, start: int, max_scans: int) -> None:
    """Every scan goes over the whole picture again, however few bytes it has."""
    # Never less than the scans: thumbnails and pictures behind the first are counted, too.
    if data.count(b"\xff\xda", start) <= max_scans:
        return
    scans, position = 0, start
    while (found := JPEG_MARKER_AFTER_DATA.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == JPEG_END:
            return
        if marker in JPEG_STANDALONE:
            continue
        scans += marker == JPEG_SCAN
        if scans > max_scans:
            raise InvalidImageError(
                f"image: expected at most {max_scans} scans in a JPEG file (max_jpeg_scans), got more"
            )
        position += int.from_bytes(data[position : position + 2], "big")


def _reduce_png(data: bytes, limits: StructureLimits) -> ImageFile:
    kept, orientation, position, chunks = [PNG_SIGNATURE], None, len(PNG_SIGNATURE), 0
    while position + 8 <= len(data):
        chunks += 1
        check_segments(chunks, limits, "chunks of a PNG file")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IEND":
            break
        if kind in PNG_PICTURE_CHUNKS:
            kept.append(data[position:end])
        elif kind == b"acTL" and length >= 4:
            (pictures,) = struct.unpack_from(">I", data, position + 8)
            if pictures > 1:
                refuse_several("PNG", pictures)
        elif kind == b"eXIf":
            orientation = orientation_of(data[position + 8 : end - 4])
        elif kind in PNG_TEXT_CHUNKS and orientation is None:
            orientation = orientation_of_png_text(kind, data[position + 8 : end - 4])
        position = end
    if position <= len(data):
        kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    return ImageFile("PNG", b"".join(kept), orientation or UPRIGHT)


def _reduce_webp(data: bytes, limits: StructureLimits) -> ImageFile:
    """An extended file becomes a simple one: its alpha plane is not needed, its picture is whole without."""
    if data[12:16] != b"VP8X":
        return ImageFile("WEBP", data)
    picture, orientation, pictures, position, chunks = None, UPRIGHT, 0, 12, 0
    while position + 8 <= len(data):
        chunks += 1
        check_segments(chunks, limits, "chunks of a WebP file")
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        pictures += kind == b"ANMF"
        if kind in (b"VP8 ", b"VP8L") and picture is None and end <= len(data):
            picture = data[position : end + length % 2]
        elif kind == b"EXIF":
            orientation = orientation_of(data[position + 8 : end])
        position = end + length % 2
    if pictures > 1:
        refuse_several("WEBP", pictures)
    if picture is None or data[20] & WEBP_HAS_ANIMATION:
        return ImageFile("WEBP", data, orientation)
    picture += b"\0" * (len(picture) % 2)
    simple = b"RIFF" + struct.pack("<I", 4 + len(picture)) + b"WEBP" + picture
    return ImageFile("WEBP", simple, orientation)


_REDUCERS: dict[str, Callable[[bytes, StructureLimits], ImageFile]] = {
    "JPEG": _reduce_jpeg,
    "PNG": _reduce_png,
    "WEBP": _reduce_webp,
}
