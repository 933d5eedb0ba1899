"""The steps of the reference's video notebook, written anew, with Meta's own predictor and with ours: the
same code, another import, on weights that make every rule of it count.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from triton_sam2 import sam2_api

from export.repository import assemble_repository
from tests.models.video.answers import Answer, compare
from tests.models.video.meta_predictor import set_options
from tests.models.video.reference import one_thread
from tests.models.video.scenarios import FRAMES, HEIGHT, WIDTH, disc
from tests.running_server import RunningServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

# Holes of untrained masks are a matter of rounding.
OPTIONS = {"fill_hole_area": 0, "non_overlap_masks": False}


@pytest.fixture(scope="module")
def predictors(
    video_reference: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """Meta's, and ours made by its builder."""
    folder = tmp_path_factory.mktemp("video-api")
    assemble_repository(video_reference.onnx_dir, folder / "repository")
    set_options(video_reference.predictor, add_all_frames_to_correct_as_cond=False, **OPTIONS)
    with RunningServer(folder / "repository", folder / "state", "--no-probe") as running:
        ours = sam2_api.build_sam2_video_predictor(
            "configs/sam2.1/sam2.1_hiera_l.yaml", "large.pt", device="cuda", url=running.grpc_url
        )
        ours.fill_hole_area = 0
        with ours.client:
            yield video_reference.predictor, ours


def shown(answer: tuple[int, list[int], Any]) -> Answer:
    frame_idx, obj_ids, logits = answer
    assert isinstance(logits, torch.Tensor)
    assert (logits.dtype, logits.device.type) == (torch.float32, "cpu")
    assert tuple(logits.shape) == (len(obj_ids), 1, HEIGHT, WIDTH)
    assert isinstance(obj_ids, list)
    return Answer(frame_idx, list(obj_ids), logits[:, 0].numpy(), [None] * len(obj_ids))


def one_object_refined(predictor: Any, folder: str) -> Iterator[Answer]:
    """A click, a second one, tracking; a click on a tracked frame, tracking again."""
    state = predictor.init_state(video_path=folder)
    assert state["num_frames"] == FRAMES
    points, labels = np.array([[150, 110]], dtype=np.float32), np.array([1], np.int32)
    yield shown(
        predictor.add_new_points_or_box(
            inference_state=state, frame_idx=0, obj_id=1, points=points, labels=labels
        )
    )
    assert (state["video_height"], state["video_width"]) == (HEIGHT, WIDTH)
    points = np.array([[150, 110], [170, 130]], dtype=np.float32)
    labels = np.array([1, 1], np.int32)
    yield shown(predictor.add_new_points_or_box(state, 0, 1, points=points, labels=labels))
    yield from map(shown, predictor.propagate_in_video(state))
    negative = np.array([[60, 60]], dtype=np.float32)
    yield shown(
        predictor.add_new_points_or_box(
            inference_state=state,
            frame_idx=5,
            obj_id=1,
            points=negative,
            labels=np.array([0], np.int32),
        )
    )
    yield from map(shown, predictor.propagate_in_video(state))
    predictor.reset_state(state)
    assert state["obj_ids"] == []


def a_box_and_a_click(predictor: Any, folder: str) -> Iterator[Answer]:
    """A box, with coordinates of both kinds; a box and a click; backward and a stretch."""
    state = predictor.init_state(folder)
    box = np.array([90, 60, 220, 180], dtype=np.float32)
    yield shown(
        predictor.add_new_points_or_box(inference_state=state, frame_idx=3, obj_id=4, box=box)
    )
    yield shown(
        predictor.add_new_points_or_box(
            state, 3, 4, [[130.0, 100.0]], [1], box=torch.from_numpy(box)
        )
    )
    unit = box / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    yield shown(
        predictor.add_new_points_or_box(
            state, 3, 4, np.array([[130 / WIDTH, 100 / HEIGHT]]), [1], True, False, unit
        )
    )
    yield from map(shown, predictor.propagate_in_video(state, reverse=True))
    yield from map(
        shown, predictor.propagate_in_video(state, start_frame_idx=3, max_frame_num_to_track=2)
    )


def several_objects(predictor: Any, folder: str) -> Iterator[Answer]:
    """Two clicked, one masked; prompts taken back; one removed, by its masks on prompted frames."""
    state = predictor.init_state(video_path=folder)
    prompts = {2: [[150, 110]], 3: [[90, 90]]}
    for obj_id, points in prompts.items():
        yield shown(predictor.add_new_points_or_box(state, 0, obj_id, points, [1]))
    yield shown(predictor.add_new_mask(state, 0, 7, disc() > 0))
    yield shown(predictor.add_new_points_or_box(state, 4, 3, [[100, 95]], [1]))
    yield from map(shown, predictor.propagate_in_video(state))
    assert predictor.clear_all_prompts_in_frame(state, 0, 2, need_output=False) is None
    yield shown(predictor.add_new_points_or_box(state, 0, 2, [[152, 112]], [1]))
    yield shown(predictor.clear_all_prompts_in_frame(state, 4, 3))
    assert predictor.remove_object(state, 99) == ([2, 3, 7], [])
    left, updated = predictor.remove_object(state, 2)
    assert left == [2 + 1, 7]
    for frame_idx, logits in updated:
        yield shown((frame_idx, left, logits))
    yield from map(shown, predictor.propagate_in_video(state))
    left, updated = predictor.remove_object(state, 3, strict=True, need_output=False)
    assert (left, updated) == ([7], [])
    assert predictor.remove_object(state, 7) == ([], [])


@pytest.mark.parametrize("steps", [one_object_refined, a_box_and_a_click, several_objects])
def test_the_notebooks_steps_give_metas_results(
    predictors: tuple[Any, Any], video_reference: Any, steps: Any
) -> None:
    theirs, ours = predictors
    folder = str(video_reference.folders[FRAMES])
    with one_thread(), torch.inference_mode():
        expected = list(steps(theirs, folder))
    difference = compare(expected, list(steps(ours, folder)))
    print(f"{steps.__name__}: {len(expected)} answers, pixels {1 - difference.pixels:.6f}")
    assert difference.is_within_bounds, difference
