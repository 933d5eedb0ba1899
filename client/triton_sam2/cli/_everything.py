"""`triton-sam2 everything`: every mask of one image or of many, without prompts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.images import image_file_bytes
from triton_sam2._results.generated import GeneratedMasks
from triton_sam2.cli._batch_all import Batch, JobResult
from triton_sam2.cli._batch_images import find_images
from triton_sam2.cli._batch_journal import complete_path, file_identity, journal_path
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
)
from triton_sam2.cli._outputs import check_files, check_folder, check_picture_ending, save_picture


@dataclass(frozen=True)
class EverythingJob:
    """One image by its path below the folder, and where its overlay and its label image go."""

    name: str
    path: Path
    overlay: Path | None
    labels: Path | None


def everything(
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders, quoted globs.", show_default=False)
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The COCO results file.", show_default=False)
    ],
    overlay: Annotated[
        Path | None, typer.Option(help="A picture with all masks; for several images a folder.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A label image, 16 bits, .png or .tif; for several images a folder."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="A parameter of the generator by its own name, its value as JSON: points_per_side=64.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Images at a time.")] = 2,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 120.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Find every object in images, without prompts: Meta's automatic mask generator, in the server.

    Interrupted, it goes on where it was when it is started again the same way. A broken image is reported,
    the others are done all the same, and the exit code is 1.

    Examples:

    `triton-sam2 everything photo.jpg -o out.json --overlay seen.png --labels cells.tif`

    `triton-sam2 everything slides/ -o cells.json --overlay seen/ -s points_per_side=64 -s min_mask_area=50`

    Parameters are those of `SAM2TritonClient.generate`: points_per_side, points_per_batch, pred_iou_thresh,
    stability_score_thresh, stability_score_offset, mask_threshold, box_nms_thresh, crop_n_layers,
    crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor, point_grids, min_mask_region_area,
    use_m2m, multimask_output (Meta's), and min_mask_area, max_mask_area, mask_nms_thresh,
    mask_containment_thresh, max_masks.
    """
    parameters = read_parameters(parameter or [])
    jobs = _plan(images, output, overlay, labels)
    targets = [str(target and target.absolute()) for target in (overlay, labels)]
    sources = [str(Path(source).absolute()) for source in images]
    description = json.dumps([sources, parameters, targets], sort_keys=True)
    Batch(jobs, output, description, "masks").run(
        Connection(url, timeout, header, tls),
        partial(run_everything, parameters=parameters),
        concurrency,
        as_json,
    )


def run_everything(
    client: SAM2TritonClient, job: EverythingJob, parameters: dict[str, Any]
) -> JobResult:
    """One image, whose file is read once: its entries, its overlay, its label image."""
    identity = file_identity(job.path)
    content = image_file_bytes(job.path)
    masks = client.generate(content, **parameters)
    if job.overlay is not None:
        job.overlay.parent.mkdir(parents=True, exist_ok=True)
        save_picture(masks.overlay(content), job.overlay)
    if job.labels is not None:
        job.labels.parent.mkdir(parents=True, exist_ok=True)
        masks.save(job.labels)
    return JobResult(identity, _entries(masks, job.name))


def read_parameters(options: list[str]) -> dict[str, Any]:
    """`--set NAME=VALUE` options; which names there are is the server's knowledge."""
    parameters: dict[str, Any] = {}
    for text in options:
        name, separator, value = text.partition("=")
        try:
            parameters[name.strip()] = json.loads(value)
        except ValueError as error:
            raise InvalidInputError(
                f"--set: expected NAME=VALUE with a value in JSON (64, 0.9, true, null), got {text!r}"
            ) from error
        if not separator or not name.strip():
            raise InvalidInputError(f"--set: expected NAME=VALUE, got {text!r}")
    return parameters


def _plan(
    sources: list[str], output: Path, overlay: Path | None, labels: Path | None
) -> list[EverythingJob]:
    """The jobs, once it is clear that all they write can be written."""
    if output.suffix.lower() != ".json":
        raise InvalidInputError(f"--output: expected an ending of .json, got {output.name!r}")
    own = {path.resolve() for path in (output, journal_path(output), complete_path(output))}
    own |= {target.resolve() for target in (overlay, labels) if target is not None}
    found = _find_all(sources, lambda path: path.resolve() in own)
    alone = len(found) == 1
    files = [(path, "--output") for path in (output, journal_path(output), complete_path(output))]
    for target, option in ((overlay, "--overlay"), (labels, "--labels")):
        if target is None:
            continue
        if alone and target.suffix:
            files.append((target, option))
        else:
            check_folder(target, option)
    if overlay is not None and alone and overlay.suffix:
        check_picture_ending(overlay, "--overlay")
    check_files(files, dict.fromkeys(found.values(), "an image"))
    return [
        EverythingJob(
            name, path, _target(overlay, name, alone, ".png"), _target(labels, name, alone, ".tif")
        )
        for name, path in found.items()
    ]


def _find_all(sources: list[str], is_own: Callable[[Path], bool]) -> dict[str, Path]:
    """The pictures of all sources by name; no two may be called the same."""
    found: dict[str, Path] = {}
    for source in sources:
        images = find_images(source, is_own)
        for name in images.pictures:
            path = images.files[name]
            if found.setdefault(name, path) != path:
                raise InvalidInputError(
                    f"images: {found[name]} and {path} would both be called {name!r}; give the folder"
                    " above them"
                )
    if not found:
        raise InvalidInputError(f"images: no pictures in {', '.join(sources)}")
    return found


def _entries(masks: GeneratedMasks, name: str) -> list[dict[str, Any]]:
    entries = masks.to_coco(image_id=name)
    return [
        {**entry, "stability_score": record["stability_score"]}
        for entry, record in zip(entries, masks, strict=True)
    ]


def _target(option: Path | None, name: str, alone: bool, suffix: str) -> Path | None:
    """Where an image's picture goes: the file itself for one image, else a file in that folder."""
    if option is None or (alone and option.suffix):
        return option
    return option / f"{name}{suffix}"
