"""The process that decodes: image files from its parent, one after the other, and pictures back.

Started by image_process.py, which says how the two talk. Whatever a file does to a decoder, it does it here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from image_decoding import (
    InvalidImageError,
    StructureLimits,
    crop_picture,
    decode_image,
    resize_to_square,
)
from memory_file import MemoryFile
from PIL import Image
from worker_bounds import begin_work, processor_seconds, requests, say


def main() -> None:
    """`image_worker.py FD LIMITS`: serves until its input ends."""
    memory, limits = MemoryFile("", int(sys.argv[1])), json.loads(sys.argv[2])
    # Our own limit, checked on the header, stands in for Pillow's fixed one.
    Image.MAX_IMAGE_PIXELS = None
    begin_work(limits.pop("max_decode_memory_bytes"))
    say({"ready": True})
    for request in requests():
        say(_answer(memory, request, dict(limits)))


def _answer(memory: MemoryFile, request: dict[str, Any], limits: dict[str, int]) -> dict[str, Any]:
    data = memory.read()
    seconds = limits.pop("max_decode_seconds")
    max_bytes, max_pixels = limits.pop("max_image_bytes"), limits.pop("max_image_pixels")
    try:
        with processor_seconds(seconds):
            picture = decode_image(data, max_bytes, max_pixels, StructureLimits(**limits))
            if request["crop_box"] is not None:
                picture = crop_picture(picture, request["crop_box"])
            resized = resize_to_square(picture, request["side"], request["resample"])
    except InvalidImageError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": "image: expected a picture that the memory for decoding holds, got more"}
    memory.write(resized.tobytes())
    return {
        "shape": resized.shape,
        "dtype": str(resized.dtype),
        "original_hw": [picture.height, picture.width],
    }


if __name__ == "__main__":
    main()
