"""`triton-sam2 segment`: one image, one call."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError
from triton_sam2._results.segmentation import Segmentation
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._prompts import read_prompts


def segment(
    image: Annotated[
        Path, typer.Argument(help="JPEG, PNG, WebP, BMP or TIFF.", show_default=False)
    ],
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point", "-p", metavar="X,Y[,LABEL[,OBJECT]]", help="A pixel; label 1 in, 0 out."
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box", "-b", metavar="X0,Y0,X1,Y1", help="In pixels; the k-th box is object k."
        ),
    ] = None,
    multimask: Annotated[
        bool,
        typer.Option("--multimask", "-m", help="Three candidates per object; the best one counts."),
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Masks: .png (one file per object), .npy, .npz, .json (COCO RLE).",
        ),
    ] = None,
    polygons: Annotated[Path | None, typer.Option(help="Outlines by object, as JSON.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="The image with its masks.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 60.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Segment objects in one image.

    Examples:

    `triton-sam2 segment photo.jpg --point 512,380 --point 40,40,0 -o mask.png --overlay seen.png`

    `triton-sam2 segment photo.jpg --box 10,10,200,300 --box 250,10,400,300 -o both.json`
    """
    prompts = read_prompts(point or [], box or [])
    with Connection(url, timeout, header, tls).client() as client:
        result = client.segment(
            image,
            prompts.point_coords,
            prompts.point_labels,
            prompts.box,
            multimask_output=multimask,
        )
    files = [path for target in output or [] for path in result.save(target)]
    if polygons is not None:
        outlines = [[outline.tolist() for outline in outlines] for outlines in result.polygons()]
        files.append(write_bytes(polygons, json.dumps(outlines).encode()))
    if overlay is not None:
        files.append(save_picture(result.overlay(image), overlay))
    if as_json:
        print_json(_summary(result, files))
        return
    masks, iou = result.best()
    for index, mask in enumerate(masks[:, 0]):
        pixels = f"{int(mask.sum())} pixels ({mask.mean():.1%})"
        typer.echo(f"object {index + 1}: {pixels}, predicted IoU {iou[index, 0]:.3f}")
    for path in files:
        typer.echo(f"wrote {path}")


def save_picture(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Write an overlay; the path's ending names the format."""
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot write {path}: {error}") from error
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file, or say why not."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _summary(result: Segmentation, files: list[Path]) -> dict[str, Any]:
    height, width = result.original_hw
    return {
        "image_id": result.image_id,
        "width": width,
        "height": height,
        "objects": [
            {key: entry[key] for key in ("bbox", "area", "score")} for entry in result.to_coco()
        ],
        "files": [str(path) for path in files],
    }
