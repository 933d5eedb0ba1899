"""`triton-sam2 warm` and `forget`: the server's cache of encoded images."""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._inputs.images import image_file_bytes
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._outcome import Outcome, finish, outcome_of


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
            outcomes.append(outcome_of(str(path), partial(_warm, client, path)))
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
            outcomes.append(outcome_of(text, partial(_forget, client, text)))
    finish(outcomes, print_json if as_json else None)


def _warm(client: SAM2TritonClient, path: Path) -> Outcome:
    handle = client.prefetch([path])[0]
    height, width = handle.original_hw
    return Outcome(str(path), handle.image_id, {"width": width, "height": height})


def _forget(client: SAM2TritonClient, text: str) -> Outcome:
    client.forget(_image_id(text))
    return Outcome(text, "forgotten")


def _image_id(text: str) -> str:
    """An id as it is; a file's id is made from its bytes."""
    if not os.path.isfile(text):  # noqa: PTH113 - unlike Path's, it takes any text
        return text
    return f"sha256:{hashlib.sha256(image_file_bytes(text)).hexdigest()}"
