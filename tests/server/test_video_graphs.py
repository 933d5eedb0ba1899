"""The four video graphs on the real server: a frame is prompted, remembered, and the next one conditioned."""

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from tests.photographs import photograph

pytestmark = pytest.mark.server

OBJECTS = 2


class Graphs:
    """Calls a model with arrays, and gets its outputs by name."""

    def __init__(self, server, repository):
        self.client = grpc.InferenceServerClient(server.grpc_url)
        self.repository = repository

    def __call__(self, model, **arrays):
        path = self.repository / model / "config.pbtxt"
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        inputs = []
        for tensor in config.input:
            if tensor.optional and tensor.name not in arrays:
                continue
            array = arrays.pop(tensor.name)
            kind = "BYTES" if array.dtype == object else np_to_triton_dtype(array.dtype)
            inputs.append(grpc.InferInput(tensor.name, list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        assert not arrays, f"{model} takes no {set(arrays)}"
        answer = self.client.infer(model, inputs)
        outputs = {tensor.name: answer.as_numpy(tensor.name) for tensor in config.output}
        assert all(output is not None for output in outputs.values())
        return outputs


@pytest.fixture(scope="module")
def graphs(server, demo_repository):
    return Graphs(server, demo_repository)


@pytest.fixture(scope="module")
def features(graphs):
    image = np.array([photograph("coins.png")], object)
    resized = graphs("sam2_preprocess", image=image)["resized_image"]
    return graphs("sam2_encoder", resized_image=resized[None])


def decode(graphs, features, embed, points, labels, **changes):
    side = features["high_res_feats_0"].shape[2]
    objects = len(labels)
    inputs = {
        "image_embed": embed,
        "high_res_feats_0": features["high_res_feats_0"],
        "high_res_feats_1": features["high_res_feats_1"],
        "encoder_fingerprint": features["encoder_fingerprint"],
        "add_no_memory": np.ones(objects, np.float32),
        "unit_point_coords": np.array(points, np.float32),
        "token_labels": np.array(labels, np.int32),
        "dense_mask_input": np.zeros((objects, 1, side, side), np.float32),
        "has_mask_input": np.zeros(objects, np.float32),
        "best_of_three": np.ones(objects, np.float32),
        "object_present": np.ones(objects, np.float32),
    }
    return graphs("sam2_video_decoder", **(inputs | changes))


def test_prompted_remembered_and_conditioned(graphs, features):
    clicks = [[[0.284, 0.657], [0, 0]], [[0.5, 0.5], [0, 0]]]
    prompted = decode(graphs, features, features["image_embed"], clicks, [[1, -1]] * OBJECTS)
    assert prompted["fingerprint_matches"].all()
    assert (prompted["low_res_masks"] > 0).any()

    remembered = graphs(
        "sam2_memory_encoder",
        image_embed=features["image_embed"],
        encoder_fingerprint=features["encoder_fingerprint"],
        low_res_masks=prompted["low_res_masks"],
        object_score_logits=prompted["object_score_logits"],
        binarize=np.ones(OBJECTS, np.float32),
    )
    assert remembered["fingerprint_matches"].all()
    assert (remembered["memory_fingerprint"] == prompted["memory_fingerprint"]).all()

    def conditioned(pointers, fingerprint=prompted["memory_fingerprint"]):
        kept = prompted["obj_ptr"][:, None][:, :pointers]
        return graphs(
            "sam2_memory_attention",
            image_embed=features["image_embed"],
            encoder_fingerprint=features["encoder_fingerprint"],
            maskmem_features=remembered["maskmem_features"][:, None],
            maskmem_tpos=np.full((OBJECTS, 1), 6, np.int64),
            obj_ptrs=kept,
            obj_ptr_offsets=np.full(kept.shape[:2], 1 / 15, np.float32),
            memory_fingerprint=fingerprint,
        )

    with_pointer, without = conditioned(1), conditioned(0)
    assert with_pointer["fingerprint_matches"].all()
    assert without["conditioned_embed"].shape == with_pointer["conditioned_embed"].shape
    assert np.isfinite(without["conditioned_embed"]).all()
    assert not np.array_equal(without["conditioned_embed"], with_pointer["conditioned_embed"])
    other = conditioned(1, prompted["memory_fingerprint"] + 1)
    assert not other["fingerprint_matches"].any()

    tracked = decode(
        graphs,
        features,
        with_pointer["conditioned_embed"],
        np.zeros((OBJECTS, 2, 2)),
        [[-1, -1]] * OBJECTS,
        add_no_memory=np.zeros(OBJECTS, np.float32),
    )
    assert tracked["low_res_masks"].shape == prompted["low_res_masks"].shape


def test_a_click_gives_the_image_models_own_candidate(graphs, features):
    """The first prompt of a video is an image's prompt; the best candidate by predicted IoU."""
    points, labels = [[[0.284, 0.657], [0, 0]]], [[1, -1]]
    prompted = decode(graphs, features, features["image_embed"], points, labels)
    side = features["high_res_feats_0"].shape[2]
    image = graphs(
        "sam2_decoder",
        **{name: features[name] for name in features},
        unit_point_coords=np.array(points, np.float32),
        token_labels=np.array(labels, np.int32),
        dense_mask_input=np.zeros((1, 1, side, side), np.float32),
        has_mask_input=np.zeros(1, np.float32),
    )
    best = 1 + image["plane_ious"][0, 1:].argmax()
    np.testing.assert_allclose(
        prompted["low_res_masks"][0, 0], image["plane_logits"][0, best], atol=1e-3
    )
    np.testing.assert_allclose(
        prompted["iou_predictions"][0, 0], image["plane_ious"][0, best], atol=1e-4
    )


def test_a_mask_as_a_prompt(graphs, features):
    size = 4 * features["high_res_feats_0"].shape[2]
    mask = np.zeros((1, 1, size, size), np.uint8)
    mask[..., 64:128, 32:96] = 1
    answer = graphs(
        "sam2_mask_prompt", mask_prompt=mask, encoder_fingerprint=features["encoder_fingerprint"]
    )
    assert answer["fingerprint_matches"].all()
    inside = answer["low_res_masks"][0, 0] > 0
    assert np.array_equal(inside, mask[0, 0, 2::4, 2::4] > 0)
