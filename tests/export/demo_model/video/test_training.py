"""Training by clips: batches depend on their number alone, a stopped run goes on as if it had not been,
and what it must not change stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.demo_model.model import load_model
from export.demo_model.video.clip_pool import BatchShape, ClipBatches, ClipPool
from export.demo_model.video.model import choose_trained, load_video_model
from export.demo_model.video.steps import ClipSchedule
from export.demo_model.video.train import VideoTrainingOptions, train

FRAMES = 4


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(pool_folder):
    return ClipPool(pool_folder, count=3, frames=FRAMES, seed=0)


@pytest.fixture(scope="module")
def batches(pool):
    made = ClipBatches(pool, seed=0, shape=BatchShape(clips=2, objects=2, frames=3))
    return {number: made[number] for number in range(12)}


def test_a_batch_holds_what_it_says(batches):
    for batch in batches.values():
        assert batch.image_embed.shape == (3, 2, 96, 16, 16)
        assert batch.high_res_feats_0.shape == (3, 2, 12, 64, 64)
        assert batch.high_res_feats_1.shape == (3, 2, 24, 32, 32)
        assert batch.masks.shape == (3, 4, 256, 256)
        points = {"click": 1, "box": 2, "mask": 0}[batch.kind]
        assert batch.point_coords.shape == (4, points, 2)
        assert batch.point_labels.shape == (4, points)
        assert batch.correction_frame in (0, 1)
        assert batch.masks[0].flatten(1).any(1).all(), "every object shows where it is prompted"
    assert {batch.kind for batch in batches.values()} == {"click", "box", "mask"}
    assert {batch.correction_frame for batch in batches.values()} == {0, 1}


def test_a_batch_depends_on_its_number_alone(batches, tmp_path):
    """Another pool of the same seed, asked in another order."""
    other = ClipPool(tmp_path, count=3, frames=FRAMES, seed=0)
    again = ClipBatches(other, seed=0, shape=BatchShape(clips=2, objects=2, frames=3))[7]
    for name in ("image_embed", "masks", "point_coords", "point_labels"):
        assert torch.equal(getattr(again, name), getattr(batches[7], name)), name
    assert not torch.equal(batches[7].masks, batches[8].masks)


def test_first_clicks_and_boxes_lie_on_their_objects(batches):
    for batch in batches.values():
        if batch.kind == "click":
            for mask, ((x, y),) in zip(batch.masks[0], batch.point_coords, strict=True):
                top, left = max(int(y) - 1, 0), max(int(x) - 1, 0)
                assert mask[top : top + 3, left : left + 3].any()
        if batch.kind == "box":
            centres = batch.point_coords.mean(1)
            for mask, (x, y) in zip(batch.masks[0], centres, strict=True):
                rows, columns = np.nonzero(mask.numpy())
                assert rows.min() <= y <= rows.max()
                assert columns.min() <= x <= columns.max()


@pytest.fixture
def options(tmp_path, pool_folder):
    run = tmp_path / "run"
    run.mkdir()
    (run / "pool").symlink_to(pool_folder)  # clips that are there already
    return VideoTrainingOptions(
        output_dir=run,
        steps=2,
        clips=1,
        objects=2,
        pool_clips=3,
        pool_frames=FRAMES,
        workers=0,
        threads=2,
        schedule=ClipSchedule(1e-3, lengths=((0.0, 2), (0.5, 3))),
    )


def test_a_run_stopped_after_one_step_ends_like_one_that_was_not(options, tmp_path, pool_folder):
    whole = train(options)
    stopped = replace(options, output_dir=tmp_path / "stopped")
    stopped.output_dir.mkdir()
    (stopped.output_dir / "pool").symlink_to(pool_folder)
    assert train(replace(stopped, stop_after=1)).step == 1
    resumed = train(stopped)
    assert resumed.step == whole.step == 2
    for name in ("model", "average", "heads"):
        expected = getattr(whole, name).state_dict()
        for key, tensor in getattr(resumed, name).state_dict().items():
            assert torch.equal(tensor, expected[key]), f"{name}.{key}"

    # What stills are answered with is what it was; the memory is not.
    image = load_model().state_dict()
    shipped = load_video_model(options.output_dir / "weights").state_dict()
    learning = set(choose_trained(whole.model))
    for name, tensor in image.items():
        if name not in learning:
            assert torch.equal(shipped[name], tensor), name
    moved = [
        name
        for name, parameter in whole.model.named_parameters()
        if name in learning and parameter.grad is not None and parameter.grad.abs().sum() > 0
    ]
    assert len(moved) > 0.8 * len(learning)


def test_clips_grow_and_own_masks_take_over():
    schedule = ClipSchedule(1e-3)
    lengths = [schedule.frames(progress) for progress in np.linspace(0, 1, 21)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (3, 8)
    assert schedule.forced_share(0) == 1
    assert schedule.forced_share(0.4) == 0
    assert schedule.learning_rate(0, 0) == pytest.approx(1e-3 / 60)
    assert schedule.learning_rate(1, 1000) == pytest.approx(1e-5)
