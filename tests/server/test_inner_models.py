"""Inner models called directly over gRPC: a mistake is the caller's, in words about a tensor."""

import re

import numpy as np
import pytest

from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server

SIDE = 64  # S/4 of the small model
# What a path, a line number, a traceback or a shared-memory region would look like.
INNARDS = re.compile(r"Traceback|/\w+/|\.py\b|\.cc\b|\bline \d+|At:|0x[0-9a-f]{6}|sam2_\d+_")


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


PLANES = {
    "plane_logits": floats(1, 4, SIDE, SIDE),
    "plane_ious": floats(1, 4),
    "fingerprint_matches": np.array([True]),
    "encoder_fingerprint": np.zeros((1, 1), np.int64),
    "original_hw": whole(30, 40),
}
HW = {"original_hw": whole(30, 40)}
NAN = np.full((1, 4, SIDE, SIDE), np.nan, np.float32)

# name: (model, tensors, which tensor the message must name)
MISTAKES = {
    "postprocess: no rows": (
        "sam2_postprocess",
        PLANES | {"original_hw": whole(0, 7)},
        "original_hw",
    ),
    "postprocess: negative": (
        "sam2_postprocess",
        PLANES | {"original_hw": whole(-5, 7)},
        "original_hw",
    ),
    "postprocess: too large": (
        "sam2_postprocess",
        PLANES | {"original_hw": whole(16000, 16000), "mask_format": bytes_tensor(b"png")},
        "original_hw",
    ),
    "postprocess: wraps": (
        "sam2_postprocess",
        PLANES | {"original_hw": whole(2**31 - 1, 2**31 - 1)},
        "original_hw",
    ),
    "postprocess: unequal B": (
        "sam2_postprocess",
        PLANES | {"plane_ious": floats(2, 4)},
        "plane_ious",
    ),
    "postprocess: no object": (
        "sam2_postprocess",
        PLANES | {"plane_logits": floats(0, 4, SIDE, SIDE), "plane_ious": floats(0, 4)},
        "plane_logits",
    ),
    "postprocess: NaN": ("sam2_postprocess", PLANES | {"plane_logits": NAN}, "plane_logits"),
    "postprocess: NaN IoU": (
        "sam2_postprocess",
        PLANES | {"plane_ious": np.full((1, 4), np.nan, np.float32)},
        "plane_ious",
    ),
    "prompt: no rows": ("sam2_prompt", {"original_hw": whole(0, 7)} | click(1, 1), "original_hw"),
    "prompt: negative": ("sam2_prompt", {"original_hw": whole(4, -7)} | click(1, 1), "original_hw"),
    "prompt: too large": (
        "sam2_prompt",
        {"original_hw": whole(10**5, 10**5)} | click(1, 1),
        "original_hw",
    ),
    "prompt: label 99": ("sam2_prompt", HW | click(1, 1, 99), "point_labels"),
    "prompt: NaN": ("sam2_prompt", HW | click(np.nan, 1), "point_coords"),
    "prompt: unequal B": ("sam2_prompt", HW | click(1, 1) | {"box": floats(2, 4)}, "box"),
    "prompt: 8,000 tokens": (
        "sam2_prompt",
        HW | {"point_coords": floats(8, 1000, 2), "point_labels": np.ones((8, 1000), np.int32)},
        "max_tokens",
    ),
}


def decoder_inputs(objects: int, tokens: int) -> dict[str, np.ndarray]:
    return {
        "unit_point_coords": floats(objects, tokens, 2),
        "token_labels": np.ones((objects, tokens), np.int32),
        "dense_mask_input": floats(objects, 1, SIDE, SIDE),
        "has_mask_input": floats(objects),
    }


DECODER_MISTAKES = {
    "unequal B": (decoder_inputs(2, 3) | {"has_mask_input": floats(3)}, "has_mask_input"),
    "unequal B of labels": (
        decoder_inputs(2, 3) | {"token_labels": np.ones((1, 3), np.int32)},
        "token_labels",
    ),
    "unequal N": (
        decoder_inputs(1, 3) | {"token_labels": np.ones((1, 2), np.int32)},
        "token_labels",
    ),
    "label 99": (
        decoder_inputs(1, 3) | {"token_labels": np.full((1, 3), 99, np.int32)},
        "token_labels",
    ),
    "label -3": (
        decoder_inputs(1, 3) | {"token_labels": np.full((1, 3), -3, np.int32)},
        "token_labels",
    ),
    "8,000 tokens": (decoder_inputs(1, 8000), "max_elements:token_labels"),
    "257 objects": (decoder_inputs(257, 1), "max_elements:has_mask_input"),
}


@pytest.fixture(scope="module")
def client(server):
    return RawClient(server, "grpc")


@pytest.fixture(scope="module")
def embeddings(client):
    outputs = ["image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint"]
    return client.infer("sam2_embedding", outputs, image=bytes_tensor(photograph("coins.png")))


def expect_refusal(client, model, tensors, part):
    with pytest.raises(RefusedError) as refused:
        client.infer(model, **tensors)
    assert refused.value.status == "INVALID_ARGUMENT", refused.value
    assert part in refused.value.message
    assert not INNARDS.search(refused.value.message), refused.value.message


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_callers_and_named(client, name):
    expect_refusal(client, *MISTAKES[name])
    good = client.infer("sam2_postprocess", **PLANES)
    assert good["masks"].shape == (1, 1, 30, 40)


@pytest.mark.parametrize("name", DECODER_MISTAKES)
def test_the_decoder_refuses_what_does_not_fit(client, embeddings, name):
    tensors, part = DECODER_MISTAKES[name]
    expect_refusal(client, "sam2_decoder", embeddings | tensors, part)
    good = client.infer("sam2_decoder", **embeddings, **decoder_inputs(1, 2))
    assert np.isfinite(good["plane_logits"]).all()


def test_objects_decoded_in_turns_are_those_decoded_one_by_one(client, embeddings):
    """More than are run at once, with unequal prompts: every object is its own, in its own place."""
    objects, tokens = 21, 4
    random = np.random.default_rng(0)
    many = decoder_inputs(objects, tokens)
    many["unit_point_coords"] = random.random((objects, tokens, 2), np.float32)
    many["token_labels"] = random.integers(-2, 4, (objects, tokens)).astype(np.int32)
    many["dense_mask_input"] = random.normal(size=(objects, 1, SIDE, SIDE)).astype(np.float32)
    many["has_mask_input"] = random.integers(0, 2, objects).astype(np.float32)
    together = client.infer("sam2_decoder", **embeddings, **many)
    assert together["fingerprint_matches"].tolist() == [True]
    for place in range(objects):
        alone = client.infer(
            "sam2_decoder",
            **embeddings,
            **{name: array[place : place + 1] for name, array in many.items()},
        )
        for output in ("plane_logits", "plane_ious"):
            # The same numbers in another order of additions: matrices of other sizes.
            np.testing.assert_allclose(
                together[output][place], alone[output][0], rtol=1e-3, atol=1e-3
            )
