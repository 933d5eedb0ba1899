"""`triton-sam2 warm` and `forget`: the server's cache of encoded images."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from triton_sam2._errors import TritonSam2Error
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._outcome import Outcome, finish


def warm(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    *,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 60.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Have the server encode images before anyone clicks on them, and print their ids.

    Example: `triton-sam2 warm gallery/*.jpg`
    """
    outcomes = []
    with Connection(url, timeout, header, tls).client() as client:
        for path in images:
            try:
                handle = client.prefetch([path])[0]
            except TritonSam2Error as error:
                outcomes.append(Outcome(str(path), error=error))
            else:
                height, width = handle.original_hw
                outcomes.append(
                    Outcome(str(path), handle.image_id, {"width": width, "height": height})
                )
    finish(outcomes, print_json if as_json else None)


def forget(
    images: Annotated[
        list[str],
        typer.Argument(help="Image ids, or the image files themselves.", show_default=False),
    ],
    *,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 60.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Have the server drop images from its cache.

    Examples:

    `triton-sam2 forget photo.jpg`

    `triton-sam2 forget sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae`
    """
    outcomes = []
    with Connection(url, timeout, header, tls).client() as client:
        for text in images:
            try:
                client.forget(_image_id(text))
            except TritonSam2Error as error:
                outcomes.append(Outcome(text, error=error))
            else:
                outcomes.append(Outcome(text, "forgotten"))
    finish(outcomes, print_json if as_json else None)


def _image_id(text: str) -> str:
    """An id as it is; a file's id is made from its bytes."""
    path = Path(text)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else text
