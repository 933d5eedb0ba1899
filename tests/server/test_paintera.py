"""An unchanged Paintera against a real server: its streams, its pictures, Meta's decoder on what it gets."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.meta_package import S, decoded, encoded_features, meta_model
from tests.paintera import OUTPUTS, Lane, letterboxed
from tests.photographs import encoded, opened, photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor

pytestmark = pytest.mark.server

COINS = np.array(opened(photograph("coins.png")).convert("RGB"))
SHAPES = {
    "image_embed": (1, 96, S // 16, S // 16),
    "high_res_feats_0": (1, 12, S // 4, S // 4),
    "high_res_feats_1": (1, 24, S // 8, S // 8),
}
LEAST_AGREEMENT = 0.999


@pytest.fixture(scope="module")
def lane(paintera_server):
    with Lane(paintera_server.grpc_url) as lane:
        yield lane


@pytest.fixture(scope="module")
def network():
    return meta_model()


PICTURES = {
    "landscape": COINS,
    "portrait": COINS[:, 60:160],
    "smaller than the model's": COINS[150:250, 60:160],
    "as it is": COINS[:256, :256],
}


@pytest.mark.parametrize("name", PICTURES)
def test_metas_decoder_makes_the_same_masks_of_them(lane, network, name):
    image = letterboxed(PICTURES[name], S)
    got = lane.encode(image)
    assert {key: value.shape for key, value in got.items()} == SHAPES
    expected = dict(zip(OUTPUTS, encoded_features(network, image), strict=True))
    for key in OUTPUTS:
        # FP16 on the way, nothing else: 8 bits a pixel arrive whole.
        error = np.abs(got[key] - expected[key].numpy())
        assert error.max() < 2e-3 * max(1.0, np.abs(expected[key].numpy()).max()), key
    features = {key: torch.from_numpy(value.copy()) for key, value in got.items()}
    for points, labels in (
        ([[0.3 * S, 0.5 * S]], [1]),
        ([[0.3 * S, 0.5 * S], [0.6 * S, 0.2 * S]], [1, 0]),
        ([[0.2 * S, 0.3 * S], [0.5 * S, 0.6 * S]], [2, 3]),
    ):
        ours = decoded(network, [features[key] for key in OUTPUTS], points, labels)
        theirs = decoded(network, [expected[key] for key in OUTPUTS], points, labels)
        assert theirs.any()
        assert (ours == theirs).mean() >= LEAST_AGREEMENT


def test_an_answer_has_its_tensors_in_the_clients_order_and_the_requests_id(lane):
    request_id = lane.send(letterboxed(COINS, S))
    response = lane.answer(request_id).infer_response
    assert response.id == request_id
    assert {output.name for output in response.outputs} == set(OUTPUTS)
    assert len(response.raw_output_contents) == len(OUTPUTS)


def test_the_model_is_ready_by_its_name(lane):
    assert lane.is_ready()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (255 * letterboxed(COINS, S), "image: expected numbers from 0 to 1"),
        (letterboxed(COINS, S) - 0.5, "image: expected numbers from 0 to 1"),
        (letterboxed(COINS, 128), "shape"),
        # Comparisons pass it over; the graph does not. Its own words are in the log.
        (
            np.full((1, 3, S, S), np.nan, np.float32),
            "sam2_client_pixels: the graph could not be run",
        ),
    ],
    ids=["from 0 to 255", "mean taken off", "another size", "not a number"],
)
def test_what_is_no_picture_is_an_error_with_its_id_and_the_stream_lives(lane, image, words):
    request_id = lane.send(image)
    response = lane.answer(request_id)
    assert words in response.error_message
    assert response.infer_response.id == request_id
    assert lane.encode(letterboxed(COINS, S)).keys() == set(OUTPUTS)


def test_another_models_name_is_an_error_with_its_id(lane):
    request_id = lane.send(letterboxed(COINS, S), "sam1_encoder")
    assert "sam1_encoder" in lane.answer(request_id).error_message


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_file_instead_of_pixels(paintera_server, lane, protocol):
    client = RawClient(paintera_server, protocol)
    square = Image.fromarray(COINS[:S, :S])
    jpeg = encoded(square, "JPEG", quality=90)
    got = client.infer("sam2_encoder_jpeg", list(OUTPUTS), encoded_image=bytes_tensor(jpeg))
    pixels = np.array(Image.open(io.BytesIO(jpeg)))
    expected = lane.encode(letterboxed(pixels, S))
    for name in OUTPUTS:
        np.testing.assert_array_equal(got[name], expected[name])
    for data, words in (
        (encoded(Image.fromarray(COINS), "JPEG"), "exactly 256 x 256 pixels, got 384 x 303"),
        (b"no picture", "image"),
    ):
        with pytest.raises(RefusedError, match=words) as refused:
            client.infer("sam2_encoder_jpeg", list(OUTPUTS), encoded_image=bytes_tensor(data))
        assert refused.value.status == "INVALID_ARGUMENT"
