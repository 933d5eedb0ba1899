"""`triton-sam2 segment`: one image, one call."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._client import SAM2TritonClient
from triton_sam2._errors import InvalidInputError
from triton_sam2.cli._prompts import read_prompts

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The server: host:port (port 8000: HTTP, others: gRPC), or with grpc://, grpcs://, http://, "
        "https://. Default: TRITON_URL, else localhost:8001.",
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds for a whole call.")]


def segment(
    image: Annotated[
        Path, typer.Argument(help="JPEG, PNG, WebP, BMP or TIFF.", show_default=False)
    ],
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point", "-p", metavar="X,Y[,LABEL[,OBJECT]]", help="Pixel; label 1 in, 0 out."
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box", "-b", metavar="X0,Y0,X1,Y1", help="Pixels; the k-th box is object k."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Masks: .png, .npy, .npz or .json (COCO RLE)."),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="The image with its masks.")
    ] = None,
    url: UrlOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Segment one image.

    Example: `triton-sam2 segment photo.jpg --point 512,380 --point 40,40,0 -o mask.png --overlay seen.png`
    """
    prompts = read_prompts(point or [], box or [])
    with SAM2TritonClient(url, timeout=timeout) as client:
        result = client.segment(image, prompts.point_coords, prompts.point_labels, prompts.box)
    if output is not None:
        result.save(output)
    if overlay is not None:
        save_picture(result.overlay(image), overlay)
    masks = result.best().masks[:, 0]
    for index, mask in enumerate(masks):
        iou = result.iou_predictions[index, 0]
        typer.echo(
            f"object {index + 1}: {int(mask.sum())} pixels ({mask.mean():.1%}), predicted IoU {iou:.3f}"
        )


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an overlay; the path's ending names the format."""
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot write {path}: {error}") from error
