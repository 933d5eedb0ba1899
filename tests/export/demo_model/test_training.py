"""Training: batches depend on the step alone, and a stopped run goes on as if it had not been."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Sam2Model

from export.demo_model.batches import PromptBatches, ScenePool
from export.demo_model.model import WEIGHTS_DIR, decode, encode, load_model, save_model
from export.demo_model.predictors import TorchPredictor, select_single_plane
from export.demo_model.steps import Schedule
from export.demo_model.train import TrainingOptions, train


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture
def options(tmp_path):
    return TrainingOptions(
        output_dir=tmp_path / "run", steps=2, images=1, objects=2, pool_scenes=3, workers=0
    )


def test_a_run_stopped_after_one_step_ends_like_one_that_was_not(tmp_path, options):
    whole = train(options)
    stopped = replace(options, output_dir=tmp_path / "stopped")
    # the same schedule, cut short: the first step of two
    first = train(replace(stopped, stop_after=1))
    assert first.step == 1
    resumed = train(stopped)
    assert resumed.step == whole.step == 2
    for name in ("model", "average", "heads"):
        expected = getattr(whole, name).state_dict()
        for key, tensor in getattr(resumed, name).state_dict().items():
            assert torch.equal(tensor, expected[key]), f"{name}.{key}"
    assert resumed.choices.random() == whole.choices.random()


def test_a_batch_depends_on_its_step_alone(tmp_path):
    def batches(folder):
        pool = ScenePool(tmp_path / folder, count=3, size=96, seed=0)
        return PromptBatches(pool, pool_size=3, seed=0, images=2, objects=3)

    first, other = batches("a"), batches("b")
    expected = first[5]
    other[4]
    again = other[5]
    assert again.kind == expected.kind
    for name in ("images", "labels", "coverage", "point_coords", "point_labels"):
        assert torch.equal(getattr(again, name), getattr(expected, name)), name
    assert expected.images.shape == (2, 3, 256, 256)
    assert expected.coverage.shape == (6, 1, 128, 128)
    assert not torch.equal(first[6].images, expected.images)


def test_foreground_points_of_a_batch_lie_in_their_objects(tmp_path):
    pool = ScenePool(tmp_path, count=3, size=96, seed=0)
    batches = PromptBatches(pool, pool_size=3, seed=0, images=2, objects=4)
    checked = 0
    for step in range(8):
        batch = batches[step]
        for coverage, coords, labels in zip(
            batch.coverage[:, 0], batch.point_coords, batch.point_labels, strict=True
        ):
            for (x, y), label in zip(
                (coords / 2).round().long().clamp(0, 127), labels, strict=True
            ):
                if label == 1:
                    near = coverage[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    assert near.max() > 0
                    checked += 1
    assert checked > 20


def test_the_schedule_starts_slowly_and_ends_near_nothing():
    schedule = Schedule(4e-4)
    assert schedule.learning_rate(0, 0) == pytest.approx(4e-6)
    assert schedule.learning_rate(0, 100) == pytest.approx(4e-4)
    assert schedule.learning_rate(0.5, 1000) == pytest.approx(2.05e-4)
    assert schedule.learning_rate(1, 1000) == pytest.approx(1e-5)


def test_decoding_agrees_with_transformers(model):
    """Our decoder forward against `Sam2Model.forward`: the same modules, hence tight."""
    assert isinstance(model, Sam2Model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=generator)
    coords, labels = torch.tensor([[[100.0, 80.0], [30.0, 200.0]]]), torch.tensor([[1, 0]])
    mask_input = torch.randn(1, 1, 64, 64, generator=generator)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        answer = decode(model, encode(model, images), coords, labels, mask_input)
        planes, iou = answer.planes, answer.iou_predictions
        expected = model(
            pixel_values=pixels,
            input_points=coords[:, None],
            input_labels=labels[:, None],
            input_masks=mask_input,
            multimask_output=True,
        )
    assert torch.allclose(planes[:, 1:], expected.pred_masks[:, 0], atol=1e-3)
    assert torch.allclose(iou[:, 1:], expected.iou_scores[:, 0], atol=1e-5)


def test_an_unstable_single_mask_gives_way_to_the_best_of_three():
    planes = torch.zeros(2, 4, 4, 4)
    planes[0, 0] = 5.0  # all sure: stable
    planes[1, 0] = 0.01  # within the margin of 0.05 everywhere: unstable
    iou = torch.tensor([[0.9, 0.1, 0.95, 0.2]] * 2)
    assert select_single_plane(planes, 0.05, 0.98, iou).tolist() == [0, 2]


def test_weights_survive_saving_in_half_precision(model, tmp_path):
    save_model(model, tmp_path)
    again = load_model(tmp_path).state_dict()
    assert (tmp_path / "model.safetensors").stat().st_size < 4_500_000
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_the_shipped_weights_segment_what_is_clicked():
    """A bright disc right of the middle of a wide image: its place catches swapped axes."""
    height, width = 120, 200
    y, x = np.mgrid[0:height, 0:width]
    truth = (x - 150) ** 2 + (y - 40) ** 2 < 22**2
    image = np.full((height, width, 3), 50, np.uint8)
    image[truth] = (190, 170, 120)
    predictor = TorchPredictor(load_model(WEIGHTS_DIR))
    predictor.set_image(image)
    click, label = np.array([[[150, 40]]], np.float32), np.array([[1]], np.int32)
    answer = predictor.predict(click, label, multimask_output=True)
    assert answer.masks.shape == (1, 3, height, width)
    mask = answer.masks[0, answer.iou_predictions[0].argmax()] > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    box = predictor.predict(box=np.array([[128, 18, 172, 62]], np.float32))
    assert box.masks.shape == (1, 1, height, width)
    assert (box.masks[0, 0].astype(bool) & truth).sum() / truth.sum() > 0.8
