"""The video predictor without a server: what it takes, refuses and lets go of."""

import gc
import sys

import numpy as np
import pytest
from triton_sam2 import InvalidInputError, NotOverServerError, SAM2VideoClient
from triton_sam2.sam2_api import (
    SAM2VideoPredictor,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)
from triton_sam2.sam2_api.host_tensors import as_tensor
from triton_sam2.sam2_api.video_options import video_options

from tests.client.fakes import FakeSam, png_of

FRAMES = [png_of(40, 60, shade) for shade in (0, 50, 100)]


@pytest.fixture
def sam():
    return FakeSam()


@pytest.fixture
def predictor(sam):
    return SAM2VideoPredictor(SAM2VideoClient("http://fake:8000", _transport=sam))


def commands(sam):
    return [
        request.inputs["command"][0].decode()
        for request in sam.requests
        if "command" in request.inputs
    ]


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        ([], {}),
        (["++model.non_overlap_masks=true"], {"non_overlap_masks": True}),
        (
            ["model.add_all_frames_to_correct_as_cond=True"],
            {"add_all_frames_to_correct_as_cond": True},
        ),
        (
            ["++model.fill_hole_area=3", "++model.max_cond_frames_in_attn=4"],
            {"max_cond_frames_in_attn": 4},
        ),
        (["++model.binarize_mask_from_pts_for_mem_enc=true"], {}),
    ],
)
def test_overrides_of_sessions_are_taken(overrides, options):
    # The area comes after the overrides, as in the original.
    assert video_options(overrides, True) == {**options, "fill_hole_area": 8}


@pytest.mark.parametrize(
    "override",
    [
        "++model.image_size=512",
        "++model.binarize_mask_from_pts_for_mem_enc=false",
        "++model.non_overlap_masks=perhaps",
        "++model.fill_hole_area=some",
        "nonsense",
    ],
)
def test_overrides_of_the_network_are_refused_by_name(override):
    with pytest.raises(NotOverServerError, match="hydra_overrides_extra"):
        build_sam2_video_predictor("c.yaml", hydra_overrides_extra=[override])


def test_without_postprocessing_holes_stay_and_the_rest_is_said():
    with pytest.warns(UserWarning, match="apply_postprocessing=False: holes are not filled"):
        predictor = build_sam2_video_predictor(
            "c.yaml",
            apply_postprocessing=False,
            hydra_overrides_extra=["++model.fill_hole_area=3"],
        )
    assert predictor.fill_hole_area == 3
    assert not predictor.add_all_frames_to_correct_as_cond  # Meta's default, not the server's


def test_it_is_made_as_metas(monkeypatch):
    monkeypatch.setenv("TRITON_URL", "somewhere:9001")
    for made in (
        SAM2VideoPredictor(),
        build_sam2_video_predictor("c.yaml", "x.pt", device="cuda", vos_optimized=True),
        build_sam2_video_predictor_hf("facebook/sam2.1-hiera-tiny", device="cpu"),
        SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-tiny", vos_optimized=True),
    ):
        assert made.client.url == "grpc://somewhere:9001"
        assert made.to("cuda").eval() is made
        assert (made.device, made.fill_hole_area) == ("cpu", 8)
    for call in (
        lambda: SAM2VideoPredictor(object()),
        lambda: SAM2VideoPredictor.from_pretrained("facebook/x", fill_holes=True),
        lambda: build_sam2_video_predictor("c.yaml", chekpoint="x"),
    ):
        with pytest.raises(InvalidInputError):
            call()
    with pytest.raises(NotOverServerError, match="mode='train'"):
        build_sam2_video_predictor("c.yaml", mode="train")
    with pytest.raises(NotOverServerError, match="track_step"):
        made.track_step  # noqa: B018


def test_options_reach_the_session(predictor, sam):
    predictor.init_state(FRAMES)
    inputs = sam.requests[0].inputs
    assert not inputs["add_all_frames_to_correct_as_cond"][0]
    assert inputs["fill_hole_area"][0] == 8


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({"points": [[1, 2]]}, "must be provided together"),
        ({"labels": [1], "box": [1, 2, 3, 4]}, "must be provided together"),
        ({}, "at least one of points or box"),
        ({"points": [[0.1, 0.2]], "labels": [1], "normalize_coords": False}, "normalize_coords"),
        ({"box": [1, 2, 3, 4], "clear_old_points": False}, "clear_old_points"),
    ],
)
def test_wrong_prompts_are_named(predictor, prompts, words):
    state = predictor.init_state(FRAMES)
    with pytest.raises(ValueError, match=words):
        predictor.add_new_points_or_box(state, 0, 1, **prompts)


def test_a_state_is_read_like_metas(predictor):
    state = predictor.init_state(FRAMES)
    assert list(state) == ["num_frames", "video_height", "video_width", "obj_ids"]
    assert (state["num_frames"], state["video_height"], len(state)) == (3, None, 4)
    predictor.add_new_points_or_box(state, 0, 5, [[10, 10]], [1])
    assert (state["video_height"], state["video_width"], state["obj_ids"]) == (40, 60, [5])


def test_a_state_that_nobody_holds_is_closed_with_the_next_one(predictor, sam):
    state = predictor.init_state(FRAMES)
    del state
    gc.collect()
    assert "close" not in commands(sam), "a finalizer calls nobody"
    kept = predictor.init_state(FRAMES)
    assert commands(sam) == ["start", "close", "start"]
    predictor.close_state(kept)
    assert commands(sam)[-1] == "close"


def test_without_pytorch_masks_take_the_same_first_steps(monkeypatch, sam):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    predictor = SAM2VideoPredictor(SAM2VideoClient("http://fake:8000", _transport=sam))
    state = predictor.init_state(FRAMES)
    _, _, logits = predictor.add_new_points_or_box(state, 0, 5, [[10, 10]], [1])
    mask = (logits[0] > 0.0).cpu().numpy()
    assert (type(mask), mask.dtype, mask.shape) == (np.ndarray, bool, (1, 40, 60))
    assert mask.any()
    assert logits.detach().float().numpy().dtype == np.float32


def test_tensors_are_copies():
    values = np.zeros((1, 1, 2, 2), np.float32)
    values.flags.writeable = False
    for torch in (True, False):
        tensor = as_tensor(values, torch=torch)
        tensor += 1
        assert not values.any()
