"""What the classes refuse, and how: with a fake transport in the server's place."""

import logging

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import InvalidInputError, NoImageError, NotOverServerError, SAM2TritonClient
from triton_sam2.sam2_api import (
    SAM2AutomaticMaskGenerator,
    SAM2ImagePredictor,
    ServerModel,
    build_sam2,
    build_sam2_hf,
)
from triton_sam2.sam2_api.automatic_mask_generator import uncompressed_rle

from tests.client.fakes import FakeSam

PIXELS = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture
def sam():
    return FakeSam()


@pytest.fixture
def client(sam):
    return SAM2TritonClient(_transport=sam)


@pytest.fixture
def predictor(client):
    return SAM2ImagePredictor(client)


def test_a_model_is_a_client_a_url_or_what_build_sam2_gives(client, monkeypatch, caplog):
    monkeypatch.setenv("TRITON_URL", "somewhere:9001")
    assert SAM2ImagePredictor().model.client.url == "grpc://somewhere:9001"
    assert SAM2ImagePredictor("http://other:8000").model.client.url == "http://other:8000"
    model = ServerModel(client)
    assert SAM2ImagePredictor(model).model is model
    with caplog.at_level(logging.INFO, "triton_sam2"):
        built = build_sam2("sam2.1_hiera_l.yaml", "large.pt", device="cuda:0")
    assert "sam2.1_hiera_l.yaml" in caplog.text
    assert built.client.url in caplog.text
    assert built.to("cuda").eval().cuda().cpu().train(False) is built
    with pytest.raises(InvalidInputError, match="got object"):
        SAM2ImagePredictor(object())


def test_from_pretrained_takes_arguments_of_both(monkeypatch):
    given = {"device": "cpu", "url": "grpc://here:1", "timeout": 7.0}
    predictor = SAM2ImagePredictor.from_pretrained(
        "facebook/sam2.1-hiera-large", mask_threshold=0.5, **given
    )
    assert (predictor.mask_threshold, predictor.model.client.url) == (0.5, "grpc://here:1")
    assert predictor.device == "cpu"
    generator = SAM2AutomaticMaskGenerator.from_pretrained(
        "facebook/sam2.1-hiera-large", points_per_side=8, apply_postprocessing=True, **given
    )
    assert generator.model.client.url == "grpc://here:1"
    with pytest.raises(TypeError, match="mask_treshold"):
        SAM2ImagePredictor.from_pretrained("facebook/sam2.1-hiera-large", mask_treshold=0.5)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: build_sam2("c.yaml", mode="train"), "mode='train'"),
        (lambda: build_sam2("c.yaml", hydra_overrides_extra=["++model.x=1"]), r"\+\+model.x=1"),
        (lambda: build_sam2_hf("facebook/sam2-hiera-tiny").train(), "training"),
        (lambda: SAM2ImagePredictor(max_hole_area=8), "max_hole_area=8"),
        (lambda: SAM2ImagePredictor(max_sprinkle_area=1.0), "max_sprinkle_area=1.0"),
        (lambda: SAM2ImagePredictor().get_image_embedding(), "get_image_embedding"),
        (lambda: SAM2ImagePredictor()._features, "_features"),
        (lambda: SAM2ImagePredictor()._transforms, "_transforms"),
    ],
)
def test_what_needs_the_network_says_so(call, named):
    with pytest.raises(NotOverServerError, match=f"{named}.*stays in the server"):
        call()


def test_parts_of_the_network_are_missing_attributes(predictor):
    with pytest.raises(AttributeError, match="sam_mask_decoder: the network stays in the server"):
        predictor.model.sam_mask_decoder  # noqa: B018
    assert not hasattr(predictor, "nothing")


def test_other_postprocessing_warns():
    with pytest.warns(UserWarning, match="apply_postprocessing=False"):
        build_sam2("c.yaml", apply_postprocessing=False)
    with pytest.raises(InvalidInputError, match="chekpoint: expected any of url"):
        build_sam2("c.yaml", chekpoint="x.pt")


def test_images_come_first(predictor):
    point = ([[1, 2]], [1])
    with pytest.raises(RuntimeError, match="An image must be set"):
        predictor.predict(*point)
    predictor.set_image(PIXELS)
    assert (predictor._orig_hw, predictor._is_image_set) == ([(40, 60)], True)
    masks, scores, logits = predictor.predict(*point)
    assert (masks.shape, scores.shape, logits.shape[:1]) == ((3, 40, 60), (3,), (3,))
    with pytest.raises(NoImageError, match="batched mode only"):
        predictor.predict_batch([point[0]], [point[1]])
    predictor.reset_predictor()
    with pytest.raises(NoImageError):
        predictor.predict(*point)
    assert predictor._orig_hw is None


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        ("photo.jpg", NotImplementedError, "Image format not supported"),
        (PIXELS.astype(np.float32), InvalidInputError, "uint8 array"),
        (PIXELS.transpose(2, 0, 1), InvalidInputError, r"got uint8 \[3, 40, 60\]"),
    ],
)
def test_other_images_are_refused_and_leave_none_set(predictor, image, error, words):
    predictor.set_image(PIXELS)
    with pytest.raises(error, match=words):
        predictor.set_image(image)
    with pytest.raises(NoImageError):
        predictor.predict([[1, 2]], [1])


def test_a_batch_is_a_list_of_arrays(predictor):
    for images in ((PIXELS,), [Image.fromarray(PIXELS)]):
        with pytest.raises(InvalidInputError, match="list of numpy arrays"):
            predictor.set_image_batch(images)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({}, "no prompt"),
        ({"point_labels": [1]}, "no prompt"),
        ({"point_coords": [[1, 2]]}, "point_labels"),
        ({"point_coords": "here", "point_labels": [1]}, "point_coords: expected an array"),
        ({"box": [1, 2, 3]}, r"box: expected .* got \[3\]"),
        ({"mask_input": np.zeros((1, 4, 5))}, "mask_input"),
    ],
)
def test_wrong_prompts_are_named(predictor, prompts, words):
    predictor.set_image(PIXELS)
    with pytest.raises(InvalidInputError, match=words):
        predictor.predict(**prompts)


def test_predictors_share_a_client_without_sharing_its_image(client):
    first, second = SAM2ImagePredictor(client), SAM2ImagePredictor(client)
    first.set_image(PIXELS)
    second.set_image(PIXELS[:20])
    assert first.predict([[1, 2]], [1])[0].shape[1:] == (40, 60)
    assert len(SAM2AutomaticMaskGenerator(client).generate(PIXELS)) == 3
    assert client.image is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"output_mode": "rle"}, "output_mode: expected binary_mask"),
        ({"points_per_side": None}, "exactly one"),
        ({"point_grids": [np.zeros((1, 2))]}, "exactly one"),
    ],
)
def test_a_generator_is_told_at_once(given, words):
    with pytest.raises(InvalidInputError, match=words):
        SAM2AutomaticMaskGenerator("here:8001", **given)


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[1, 0], [1, 0]], [0, 2, 2]),
        ([[0, 1, 1], [1, 0, 1]], [1, 2, 1, 2]),
    ],
)
def test_runs_go_down_the_columns_and_begin_with_zeros(rows, counts):
    mask = np.array(rows, np.uint8)
    assert uncompressed_rle(mask) == {"size": list(mask.shape), "counts": counts}
