"""What kind of video file bytes are, by their beginning; nothing else is ever handed to a demuxer.

FFmpeg knows hundreds of formats, some of which name other files and addresses to read (playlists, for one).
So the format is chosen here, by name, and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from unreadable_bytes import describe_unreadable
from video_errors import InvalidStepError

BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")
AUDIO_BRANDS = (b"M4A ", b"M4B ")
# First bytes of what people send instead, and what to say of it.
OTHERS = (
    (b"\xff\xd8\xff", "a JPEG picture; send pictures as image, one with each frame"),
    (b"\x89PNG", "a PNG picture; send pictures as image, one with each frame"),
    (b"II*\0", "a TIFF picture; send pictures as image, one with each frame"),
    (b"BM", "a BMP picture; send pictures as image, one with each frame"),
    (b"ID3", "an MP3 file, which has no pictures"),
    (b"\xff\xfb", "an MP3 file, which has no pictures"),
    (b"fLaC", "a FLAC file, which has no pictures"),
    (b"OggS", "an Ogg file"),
    (b"FLV\x01", "an FLV file"),
    (b"#EXTM3U", "a playlist, which has no pictures itself"),
    (b"\x30\x26\xb2\x75", "a WMV file"),
    (b"\0\0\x01\xba", "an MPEG program stream"),
    (b"G", "an MPEG transport stream"),
)
RIFF_KINDS = {b"WAVE": "a WAV file, which has no pictures", b"WEBP": "a WebP picture"}
EXPECTED = "video: expected the bytes of an MP4, MOV, WebM, Matroska or AVI file, got"
TRANSPORT_PACKET_BYTES = 188
# How files begin, to recognise them in base64.
FILE_STARTS = (b"\0\0\0", b"\x1a\x45\xdf\xa3", b"RIFF")


@dataclass(frozen=True)
class Container:
    """`name` for people, `demuxer` for FFmpeg. `has_times`: each packet says when its frame is shown."""

    name: str
    demuxer: str
    has_times: bool = True


MP4 = Container("MP4 or MOV", "mov")
MATROSKA = Container("WebM or Matroska", "matroska")
AVI = Container("AVI", "avi", has_times=False)


def recognise_video(head: bytes, length_bytes: int) -> Container:
    """The container that a file of this length and beginning is.

    Raises:
        InvalidStepError: it is none that is read here, in words that say what it is.
    """
    if not length_bytes:
        raise InvalidStepError(f"{EXPECTED} 0 bytes")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return MATROSKA
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return AVI
    if head[4:8] in BOXES and head[8:12] not in PICTURE_BRANDS:
        return MP4
    raise InvalidStepError(f"{EXPECTED} {_describe(head, length_bytes)}")


def _describe(head: bytes, length_bytes: int) -> str:
    if head[:4] == b"RIFF":
        return f"{RIFF_KINDS.get(head[8:12], 'a RIFF file of another kind')} ({length_bytes} bytes)"
    for start, name in OTHERS:
        is_marked = head.startswith(start)
        if start == b"G":
            is_marked = (
                is_marked and head[TRANSPORT_PACKET_BYTES : TRANSPORT_PACKET_BYTES + 1] == start
            )
        if is_marked:
            return f"{name} ({length_bytes} bytes)"
    return describe_unreadable(head, length_bytes, FILE_STARTS)
