"""`triton-sam2 batch`: many images, a prompts file, one COCO results file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2.cli._batch_journal import Journal
from triton_sam2.cli._batch_prompts import read_prompt_file
from triton_sam2.cli._batch_run import Job, find_images, make_jobs, run_all, run_job
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


def batch(
    images: Annotated[
        str, typer.Argument(help="A folder, a quoted glob, or a file.", show_default=False)
    ],
    *,
    prompts: Annotated[
        Path, typer.Option("--prompts", "-p", help="JSON, CSV or COCO boxes.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The COCO results file.", show_default=False)
    ],
    overlays: Annotated[Path | None, typer.Option(help="A folder for pictures with masks.")] = None,
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

    Examples:

    `triton-sam2 batch photos/ --prompts clicks.csv -o results.json --overlays seen/`

    `triton-sam2 batch 'val2017/*.jpg' --prompts instances_val2017.json -o masks.json`

    clicks.csv: `image,object,x,y,label` and rows like `dog.jpg,1,512,380,1`, or `image,x0,y0,x1,y1`.

    clicks.json: `{"dog.jpg": [{"points": [[512, 380]], "labels": [1]}, {"box": [10, 10, 200, 300]}]}`;
    the name `*` stands for every image.
    """
    jobs = make_jobs(find_images(images), read_prompt_file(prompts), overlays)
    if overlays is not None:
        overlays.mkdir(parents=True, exist_ok=True)
    key = json.dumps([images, prompts.read_text(encoding="utf-8-sig"), multimask])
    journal = Journal(output, key)
    resumed = len(journal.entries)

    def run(client: SAM2TritonClient, job: Job) -> list[dict[str, Any]]:
        return run_job(client, job, multimask)

    with Connection(url, timeout, header, tls).client() as client:
        errors = run_all(client, jobs, journal, run, concurrency)
    entries = [entry for job in jobs for entry in journal.entries.get(job.name, [])]
    journal.finish(output, entries)
    summary = {
        "results": str(output),
        "images": len(jobs) - len(errors),
        "resumed": resumed,
        "objects": len(entries),
        "errors": {name: str(error) for name, error in sorted(errors.items())},
    }
    if as_json:
        print_json(summary)
    else:
        before = f", {resumed} of them before" if resumed else ""
        typer.echo(f"{summary['images']} images{before}, {len(entries)} objects: {output}")
    if errors:
        typer.echo(f"{len(errors)} images failed", err=True)
        raise typer.Exit(EXIT_ERROR)
