"""`triton-sam2 everything`: every mask of one image or of many, without prompts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import InvalidInputError
from triton_sam2._results.generated import GeneratedMasks
from triton_sam2.cli._batch_journal import Journal
from triton_sam2.cli._batch_prompts import ImagePrompts
from triton_sam2.cli._batch_run import Job, find_images, run_all
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
    print_json,
)
from triton_sam2.cli._exit_codes import EXIT_ERROR
from triton_sam2.cli._segment import save_picture


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
    found = _find_all(images)
    alone = len(found) == 1
    jobs = [
        Job(
            name,
            path,
            ImagePrompts(name),
            _target(overlay, name, alone, ".png"),
            _target(labels, name, alone, ".tif"),
        )
        for name, path in found.items()
    ]
    journal = Journal(output, json.dumps([images, parameters], sort_keys=True))
    resumed = len(journal.entries)

    def run(client: SAM2TritonClient, job: Job) -> list[dict[str, Any]]:
        return run_everything(client, job, parameters)

    with Connection(url, timeout, header, tls).client() as client:
        errors = run_all(client, jobs, journal, run, concurrency)
    entries = [entry for job in jobs for entry in journal.entries.get(job.name, [])]
    journal.finish(output, entries)
    summary = {
        "results": str(output),
        "images": len(jobs) - len(errors),
        "resumed": resumed,
        "masks": len(entries),
        "errors": {name: str(error) for name, error in sorted(errors.items())},
    }
    if as_json:
        print_json(summary)
    else:
        before = f", {resumed} of them before" if resumed else ""
        typer.echo(f"{summary['images']} images{before}, {len(entries)} masks: {output}")
    if errors:
        typer.echo(f"{len(errors)} images failed", err=True)
        raise typer.Exit(EXIT_ERROR)


def run_everything(
    client: SAM2TritonClient, job: Job, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """One image: its entries of the results file, its overlay, its label image."""
    masks = client.generate(job.path, **parameters)
    if job.overlay is not None:
        save_picture(masks.overlay(job.path), job.overlay)
    if job.labels is not None:
        masks.save(job.labels)
    return _entries(masks, job.name)


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


def _find_all(sources: list[str]) -> dict[str, Path]:
    """The images of all sources by name; no two may be called the same."""
    found: dict[str, Path] = {}
    for source in sources:
        for name, path in find_images(source).items():
            if found.setdefault(name, path) != path:
                raise InvalidInputError(
                    f"images: {found[name]} and {path} would both be called {name!r}; give the folder"
                    " above them"
                )
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
    option.mkdir(parents=True, exist_ok=True)
    return option / f"{name.replace('/', '_')}{suffix}"
