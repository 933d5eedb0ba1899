"""Images as tools put them into JSON: base64, with or without a data URI before it."""

from __future__ import annotations

import base64
import binascii
import re

from front.refusals import invalid

# `data:image/png;base64,` and the like.
_DATA_URI = re.compile(r"data:[\w.+/-]{0,100}(?:;[\w.+=-]{1,100}){0,4};base64,")
_LONGEST_DATA_URI_HEAD = 600


def decode_image(name: str, value: object) -> bytes:
    """The bytes of an image file; a Refusal that names the field where the text is no base64."""
    if not isinstance(value, str):
        raise invalid(f"{name}: expected an image file as base64 text, got {type(value).__name__}")
    head = value[:_LONGEST_DATA_URI_HEAD]
    match = _DATA_URI.match(head)
    if match is None and head.startswith("data:"):
        raise invalid(f"{name}: expected a data URI with base64, got {head[:40]!r}")
    try:
        encoded = value[match.end() if match else 0 :].encode("ascii")
        # Some encoders break lines; whatever else is no base64 is refused.
        content = base64.b64decode(encoded.translate(None, b"\r\n"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise invalid(f"{name}: expected base64, got text that is none ({error})") from error
    if not content:
        raise invalid(f"{name}: expected an image file, got 0 bytes")
    return content
