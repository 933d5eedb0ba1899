"""One image of a batch ► its entries of the COCO results file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import InvalidInputError, TritonSam2Error
from triton_sam2._inputs.images import image_file_bytes
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.segmentation import Segmentation
from triton_sam2.cli._batch_all import JobResult
from triton_sam2.cli._batch_images import ImageFiles
from triton_sam2.cli._batch_journal import file_identity
from triton_sam2.cli._batch_prompts import EVERY_IMAGE, ObjectPrompt, PromptFile
from triton_sam2.cli._outputs import save_picture

OBJECTS_PER_CALL = 32  # bounds the decoder's memory for images with hundreds of boxes


@dataclass(frozen=True)
class Job:
    """One image by its path below the folder, its objects, and where its overlay goes."""

    name: str
    path: Path | None  # None: there is no such image, for this reason
    objects: list[ObjectPrompt]
    overlay: Path | None = None
    error: TritonSam2Error | None = None


def overlay_path(overlays: Path, name: str) -> Path:
    """An overlay of its own for every name: folders below the folder stay folders."""
    return overlays / f"{name}.png"


def make_jobs(images: ImageFiles, prompts: PromptFile, overlays: Path | None) -> list[Job]:
    """One job per image that has prompts; a name without an image is a job that failed already.

    Two names of one image (`a.png` and `./a.png`) are one job.
    """
    objects: dict[str, list[ObjectPrompt]] = {}
    missing: dict[str, Job] = {}
    named = {name: listed for name, listed in prompts.items() if name != EVERY_IMAGE}
    found = images.find_all(named)
    for name, listed in named.items():
        if name not in found:
            missing[name] = Job(name, None, listed, error=images.missing(name))
            continue
        for prompt in listed:
            prompt.image_id = name if prompt.image_id is None else prompt.image_id
        objects.setdefault(found[name], []).extend(listed)
    everywhere = prompts.get(EVERY_IMAGE)
    if everywhere is not None:
        if not images.pictures:
            raise InvalidInputError(f"images: {images.folder} has no pictures, which '*' asks for")
        objects = {
            name: objects.get(name, everywhere) for name in sorted({*objects, *images.pictures})
        }
    jobs = [
        Job(name, images.files[name], listed, overlays and overlay_path(overlays, name))
        for name, listed in objects.items()
    ]
    return [*jobs, *missing.values()]


def run_job(client: SAM2TritonClient, job: Job, multimask: bool) -> JobResult:
    """Segment all objects of an image, whose file is read once."""
    if job.error is not None or job.path is None:
        raise job.error or InvalidInputError(f"image: no file {job.name!r}")
    identity = file_identity(job.path)
    content = image_file_bytes(job.path)
    groups = list(_groups(job.objects))
    results = _segment(client, content, [_arguments(job, group, multimask) for group in groups])
    entries: dict[int, dict[str, Any]] = {}
    for group, result in zip(groups, results, strict=True):
        for index, entry in zip(group, result.to_coco(), strict=True):
            prompt = job.objects[index]
            image_id = job.name if prompt.image_id is None else prompt.image_id
            entries[index] = {**entry, "image_id": image_id, "category_id": prompt.category_id}
    if job.overlay is not None:
        picture = upright_rgb(content)
        job.overlay.parent.mkdir(parents=True, exist_ok=True)
        save_picture(draw_masks(picture, _masks(groups, results, picture)), job.overlay)
    return JobResult(identity, [entries[index] for index in range(len(job.objects))])


def _segment(
    client: SAM2TritonClient, content: bytes, calls: list[dict[str, Any]]
) -> list[Segmentation]:
    if len(calls) == 1:
        return [client.segment(content, **calls[0])]
    if not calls:
        return []
    image = client.prefetch([content])[0]
    return [client.predict(**arguments, image=image) for arguments in calls]


def _groups(objects: list[ObjectPrompt]) -> Iterator[list[int]]:
    """Indices of objects that one call can take: all with a box, or none, and not too many."""
    for has_box in (False, True):
        indices = [
            i for i, prompt in enumerate(objects) if (prompt.box_xyxy is not None) == has_box
        ]
        for start in range(0, len(indices), OBJECTS_PER_CALL):
            yield indices[start : start + OBJECTS_PER_CALL]


def _arguments(job: Job, group: list[int], multimask: bool) -> dict[str, Any]:
    objects = [job.objects[index] for index in group]
    arguments: dict[str, Any] = {"multimask_output": multimask, "formats": "rle"}
    if any(prompt.points_xy for prompt in objects):
        arguments["point_coords"] = [prompt.points_xy for prompt in objects]
        arguments["point_labels"] = [prompt.labels for prompt in objects]
    if objects[0].box_xyxy is not None:
        arguments["box"] = [prompt.box_xyxy for prompt in objects]
    return arguments


def _masks(
    groups: list[list[int]], results: list[Segmentation], picture: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """[K, H, W] in the order of the prompts; K may be 0."""
    masks: dict[int, NDArray[np.uint8]] = {}
    for group, result in zip(groups, results, strict=True):
        masks |= dict(zip(group, result.best().masks[:, 0], strict=True))
    planes = np.zeros((len(masks), *picture.shape[:2]), np.uint8)
    if masks and masks[0].shape != picture.shape[:2]:
        raise InvalidInputError(
            f"image: masks of {list(masks[0].shape)} pixels for a picture of {list(picture.shape[:2])}"
        )
    for index, mask in masks.items():
        planes[index] = mask
    return planes
