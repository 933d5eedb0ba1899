"""`triton-sam2 batch`: many images, a prompts file, one COCO results file."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from triton_sam2._errors import InvalidInputError
from triton_sam2.cli._batch_all import Batch
from triton_sam2.cli._batch_images import ImageFiles, find_images
from triton_sam2.cli._batch_journal import complete_path, journal_path
from triton_sam2.cli._batch_prompt_file import read_prompt_file
from triton_sam2.cli._batch_prompts import PromptFile
from triton_sam2.cli._batch_run import Job, make_jobs, overlay_path, run_job
from triton_sam2.cli._connection import (
    Connection,
    HeaderOption,
    JsonOption,
    TimeoutOption,
    TlsOption,
    UrlOption,
)
from triton_sam2.cli._outputs import check_files, check_folder


def batch(
    images: Annotated[
        str, typer.Argument(help="A folder, a quoted glob, or a file.", show_default=False)
    ],
    *,
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            "-p",
            help="Points and boxes: JSON, CSV, or COCO annotations (their boxes).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The COCO results file, .json.", show_default=False),
    ],
    overlays: Annotated[
        Path | None,
        typer.Option(help="A folder for pictures with masks: cats/1.jpg becomes cats/1.jpg.png."),
    ] = None,
    skip_crowds: Annotated[
        bool,
        typer.Option(
            "--skip-crowds",
            help="Leave out COCO annotations with iscrowd; else their boxes are prompts as all are.",
        ),
    ] = False,
    multimask: Annotated[
        bool,
        typer.Option("--multimask", "-m", help="Choose the best of three candidates per object."),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Images at a time.")] = 4,
    as_json: JsonOption = False,
    url: UrlOption = None,
    timeout: TimeoutOption = 60.0,
    header: HeaderOption = None,
    tls: TlsOption = None,
) -> None:
    """Segment many images, with prompts from a file.

    Interrupted, it goes on where it was when it is started again the same way. A broken image is reported,
    the others are done all the same, and the exit code is 1.

    An image's name is its path below the folder (`cats/1.jpg`), in the prompts file as in the results. If no
    name in the prompts file is one, all of them may count from a parent of the folder. Of a folder, hidden
    files and those that are no pictures are left out, and so is what this command wrote there before.

    Examples:

    `triton-sam2 batch photos/ --prompts clicks.csv -o results.json --overlays seen/`

    `triton-sam2 batch 'val2017/*.jpg' --prompts instances_val2017.json -o masks.json`

    clicks.csv: `image,object,x,y,label` and rows like `dog.jpg,1,512,380,1`, or `image,x0,y0,x1,y1`;
    separated by commas, semicolons or tabs.

    clicks.json: `{"dog.jpg": [{"points": [[512, 380]], "labels": [1]}, {"box": [10, 10, 200, 300]}]}`;
    the name `*` stands for every image.
    """
    parsed = read_prompt_file(prompts, skip_crowds=skip_crowds)
    found = find_images(images, _own_files(prompts, output, overlays))
    jobs = _plan(found, parsed, prompts, output, overlays)
    # Whatever makes a result what it is: the images' own folder, what to do with them, where it goes.
    options = [multimask, skip_crowds, str(overlays and overlays.absolute())]
    prompts_hash = hashlib.sha256(prompts.read_bytes()).hexdigest()
    description = json.dumps([str(Path(images).absolute()), prompts_hash, options])
    Batch(jobs, output, description, "objects").run(
        Connection(url, timeout, header, tls),
        partial(run_job, multimask=multimask),
        concurrency,
        as_json,
    )


def _own_files(prompts: Path, output: Path, overlays: Path | None) -> Callable[[Path], bool]:
    """Says whether a file or folder among the images is this command's own."""
    own = (
        prompts,
        output,
        journal_path(output),
        complete_path(output),
        *([overlays] if overlays else []),
    )
    paths = {path.resolve() for path in own}
    names = {path.name for path in paths}
    return lambda path: path.name in names and path.resolve() in paths


def _plan(
    images: ImageFiles, prompts: PromptFile, prompts_path: Path, output: Path, overlays: Path | None
) -> list[Job]:
    """The jobs, once it is clear that all they write can be written."""
    if output.suffix.lower() != ".json":
        raise InvalidInputError(f"--output: expected an ending of .json, got {output.name!r}")
    inputs = {prompts_path: "the prompts file"}
    written = (output, journal_path(output), complete_path(output))
    check_files([(path, "--output") for path in written], inputs)
    if overlays is None:
        return make_jobs(images, prompts, None)
    check_folder(overlays, "--overlays")
    # Overlays of an earlier run, if they lie among the images.
    earlier = {overlay_path(overlays, name).resolve() for name in images.files}
    pictures = [name for name in images.pictures if images.files[name].resolve() not in earlier]
    jobs = make_jobs(replace(images, pictures=pictures), prompts, overlays)
    sources = {job.path.resolve(): job.name for job in jobs if job.path is not None}
    for job in jobs:
        if job.overlay is not None and job.overlay.resolve() in sources:
            raise InvalidInputError(
                f"--overlays: {job.overlay} is an image already; choose another folder"
            )
    return jobs
