"""`triton-sam2 segment`: one image, one call."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from triton_sam2._client import SAM2TritonClient
from triton_sam2._drawing import draw_masks, upright_rgb
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
        Path | None, typer.Option("--output", "-o", help="Mask, as a PNG of 0 and 255.")
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
    masks = result.masks[:, 0]
    if output is not None:
        for path, mask in zip(_mask_paths(output, len(masks)), masks, strict=True):
            _save(Image.fromarray(mask * np.uint8(255)), path)
    if overlay is not None:
        _save(Image.fromarray(draw_masks(upright_rgb(image), masks)), overlay)
    for index, mask in enumerate(masks):
        iou = result.iou_predictions[index, 0]
        typer.echo(
            f"object {index + 1}: {int(mask.sum())} pixels ({mask.mean():.1%}), predicted IoU {iou:.3f}"
        )


def _mask_paths(output: Path, count: int) -> list[Path]:
    """`mask.png` for one object, `mask-1.png`, `mask-2.png`, … for several."""
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{index + 1}") for index in range(count)]


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot write {path}: {error}") from error
