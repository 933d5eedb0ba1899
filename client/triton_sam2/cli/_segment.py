"""`triton-sam2 segment`: one image, one call."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from triton_sam2._results.saving import check_ending, result_paths
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
from triton_sam2.cli._outputs import check_files, check_picture_ending, save_picture, write_bytes
from triton_sam2.cli._prompts import read_prompts


def segment(
    image: Annotated[
        Path, typer.Argument(help="JPEG, PNG, WebP, BMP or TIFF.", show_default=False)
    ],
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            "-p",
            metavar="X,Y[,LABEL[,OBJECT]]",
            help="Label 1 in, 0 out; objects from 1.",
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
    _check_outputs(image, prompts.objects, output or [], polygons, overlay)
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


def _check_outputs(
    image: Path, objects: int, outputs: list[Path], polygons: Path | None, overlay: Path | None
) -> None:
    """Say what cannot be written before there is anything to write."""
    files: list[tuple[Path, str]] = []
    for target in outputs:
        check_ending(target, "--output")
        files += [(path, "--output") for path in result_paths(target, objects)]
    if polygons is not None:
        files.append((polygons, "--polygons"))
    if overlay is not None:
        check_picture_ending(overlay, "--overlay")
        files.append((overlay, "--overlay"))
    check_files(files, {image: "the image"})


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
