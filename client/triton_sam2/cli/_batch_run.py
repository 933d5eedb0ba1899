"""Many images: which ones, one after the other, and what a batch with prompts does with each."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import InvalidInputError, ServerUnavailableError, TritonSam2Error
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.segmentation import Segmentation
from triton_sam2.cli._batch_journal import Journal
from triton_sam2.cli._batch_prompts import EVERY_IMAGE, ImagePrompts, ObjectPrompt, PromptFile
from triton_sam2.cli._segment import save_picture

OBJECTS_PER_CALL = 32  # bounds the decoder's memory for images with hundreds of boxes


@dataclass(frozen=True)
class Job:
    """One image, its prompts, and where its overlay and its label image go."""

    name: str
    path: Path
    prompts: ImagePrompts
    overlay: Path | None
    labels: Path | None = None


def find_images(source: str) -> dict[str, Path]:
    """Images by name: the files of a folder, of a glob pattern, or one file.

    A name is the path below the folder, or below the pattern's part before its first wildcard.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        root, files = path, list(path.rglob("*"))
    elif path.is_file():
        root, files = path.parent, [path]
    else:
        fixed = list(takewhile(lambda part: not set(part) & set("*?["), path.parts[:-1]))
        root = Path(*fixed)
        files = list(root.glob(str(path.relative_to(root))))
    images = {file.relative_to(root).as_posix(): file for file in files if file.is_file()}
    if not images:
        raise InvalidInputError(f"images: no file matches {source!r}")
    return dict(sorted(images.items()))


def make_jobs(images: dict[str, Path], prompts: PromptFile, overlays: Path | None) -> list[Job]:
    """One job per image that has prompts, in the order of their names; a missing image is a job, too."""
    names = [name for name in prompts if name != EVERY_IMAGE]
    everywhere = prompts.get(EVERY_IMAGE)
    if everywhere is not None:
        names = sorted({*names, *images})
    jobs = []
    for name in names:
        path = images.get(name) or images.get(Path(name).name) or Path(name)
        overlay = overlays / f"{name.replace('/', '_')}.png" if overlays is not None else None
        found = prompts.get(name) or ImagePrompts(name, everywhere.objects if everywhere else [])
        jobs.append(Job(name, path, found, overlay))
    return jobs


def run_all(
    client: SAM2TritonClient,
    jobs: list[Job],
    journal: Journal,
    run: Callable[[SAM2TritonClient, Job], list[dict[str, Any]]],
    concurrency: int,
) -> dict[str, TritonSam2Error]:
    """Run what the journal does not have; returns the images' errors. A server that is gone ends it all."""
    try:
        return _run_open(client, jobs, journal, run, concurrency)
    except BaseException:
        journal.close()
        typer.echo(f"interrupted; start it again to go on from {journal.path}", err=True)
        raise


def _run_open(
    client: SAM2TritonClient,
    jobs: list[Job],
    journal: Journal,
    run: Callable[[SAM2TritonClient, Job], list[dict[str, Any]]],
    concurrency: int,
) -> dict[str, TritonSam2Error]:
    open_jobs = [job for job in jobs if job.name not in journal.entries]
    errors: dict[str, TritonSam2Error] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        bar = progress.add_task("images", total=len(jobs), completed=len(jobs) - len(open_jobs))
        running: dict[Future[list[dict[str, Any]]], Job] = {
            pool.submit(run, client, job): job for job in open_jobs
        }
        try:
            for done in as_completed(running):
                name = running[done].name
                try:
                    journal.add(name, done.result())
                except ServerUnavailableError:
                    raise
                except TritonSam2Error as error:
                    errors[name] = error
                    console.print(
                        f"error: {name}: {error}", highlight=False, markup=False, soft_wrap=True
                    )
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return errors


def run_job(client: SAM2TritonClient, job: Job, multimask: bool) -> list[dict[str, Any]]:
    """Segment all objects of an image; entries in the order of its prompts."""
    groups = list(_groups(job.prompts.objects))
    if len(groups) == 1:
        results = [client.segment(job.path, **_arguments(job, groups[0], multimask))]
    else:
        image = client.prefetch([job.path])[0]
        results = [
            client.predict(**_arguments(job, group, multimask), image=image) for group in groups
        ]
    entries: dict[int, dict[str, Any]] = {}
    for group, result in zip(groups, results, strict=True):
        for index, entry in zip(group, result.to_coco(image_id=job.prompts.image_id), strict=True):
            entries[index] = {**entry, "category_id": job.prompts.objects[index].category_id}
    if job.overlay is not None:
        save_picture(draw_masks(upright_rgb(job.path), _masks(groups, results)), job.overlay)
    return [entries[index] for index in range(len(job.prompts.objects))]


def _groups(objects: list[ObjectPrompt]) -> Iterator[list[int]]:
    """Indices of objects that one call can take: all with a box, or none, and not too many."""
    for has_box in (False, True):
        indices = [
            i for i, prompt in enumerate(objects) if (prompt.box_xyxy is not None) == has_box
        ]
        for start in range(0, len(indices), OBJECTS_PER_CALL):
            yield indices[start : start + OBJECTS_PER_CALL]


def _arguments(job: Job, group: list[int], multimask: bool) -> dict[str, Any]:
    objects = [job.prompts.objects[index] for index in group]
    arguments: dict[str, Any] = {"multimask_output": multimask, "formats": "rle"}
    if any(prompt.points_xy for prompt in objects):
        arguments["point_coords"] = [prompt.points_xy for prompt in objects]
        arguments["point_labels"] = [prompt.labels for prompt in objects]
    if objects[0].box_xyxy is not None:
        arguments["box"] = [prompt.box_xyxy for prompt in objects]
    return arguments


def _masks(groups: list[list[int]], results: list[Segmentation]) -> NDArray[np.uint8]:
    masks: dict[int, NDArray[np.uint8]] = {}
    for group, result in zip(groups, results, strict=True):
        masks |= dict(zip(group, result.best().masks[:, 0], strict=True))
    return np.stack([masks[index] for index in sorted(masks)])
