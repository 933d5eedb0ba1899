"""The graphs for decoders in clients, run as they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pixel_types
import pytest
from client_image import InvalidClientImageError, square_image

from export.client_graphs import write_client_features, write_client_pixels
from export.onnx_files import read_onnx_file
from export.pixels import FP16_ZERO

S, C = 64, 32
METADATA = {"fingerprint": "-77", "image_size": str(S), "embed_channels": str(C), "size": "large"}
EMBEDDING = np.linspace(-1, 1, C, dtype=np.float32)
Run = Callable[..., list[Any]]


def runner(path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda **inputs: session.run(None, inputs)


@pytest.fixture(scope="module")
def whole_pixels(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("graphs") / "client_pixels.onnx"
    write_client_pixels(path, S, METADATA, "uint8")
    return runner(path)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("graphs") / "client_pixels.onnx"
    write_client_pixels(path, S, METADATA)
    assert read_onnx_file(path).metadata == METADATA
    return runner(path)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("graphs") / "client_features.onnx"
    write_client_features(path, S, EMBEDDING.reshape(1, 1, C), METADATA)
    assert read_onnx_file(path).metadata == METADATA
    return runner(path)


def test_all_256_levels_arrive_whole(pixels: Run, whole_pixels: Run) -> None:
    levels = np.arange(3 * S * S).reshape(1, 3, S, S) % 256
    (got,) = whole_pixels(image=levels.astype(np.float32) / np.float32(255))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, levels)
    (got,) = pixels(image=levels.astype(np.float32) / np.float32(255))
    assert got.dtype == np.float16
    # Around zero FP16 also holds what is left of dividing and multiplying again.
    np.testing.assert_allclose(got.astype(np.float32) + FP16_ZERO, levels, atol=2e-5)


def test_what_lies_between_levels_is_kept_or_rounded(pixels: Run, whole_pixels: Run) -> None:
    image = np.full((1, 3, S, S), 100.4 / 255, np.float32)
    image[0, 1] = 100.6 / 255
    (got,) = pixels(image=image)
    np.testing.assert_allclose(got[0, :, 0, 0] + FP16_ZERO, [100.4, 100.6, 100.4], atol=0.05)
    (got,) = whole_pixels(image=image)
    assert [int(plane[0, 0]) for plane in got[0]] == [100, 101, 100]


@pytest.mark.parametrize("value", [1.01, 255.0, -0.01, np.inf, -np.inf, np.nan])
def test_one_pixel_that_is_none_stops_the_graph(pixels: Run, value: float) -> None:
    image = np.full((1, 3, S, S), 0.5, np.float32)
    image[0, 2, 7, 9] = value
    with pytest.raises(Exception, match="image_expected_from_0_to_1"):
        pixels(image=image)


def some_features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {
        "image_embed": (C, 4),
        "high_res_feats_0": (C // 8, 16),
        "high_res_feats_1": (C // 4, 8),
    }
    return {
        name: rng.normal(size=(1, width, side, side)).astype(np.float16)
        for name, (width, side) in shapes.items()
    }


def test_features_are_fp32_with_the_no_memory_embedding_added(features: Run) -> None:
    given = some_features()
    embed, *high_res = features(**given, encoder_fingerprint=np.array([[-77]]))
    added = given["image_embed"].astype(np.float32) + EMBEDDING.reshape(1, C, 1, 1)
    np.testing.assert_array_equal(embed, added)
    for name, got in zip(("high_res_feats_0", "high_res_feats_1"), high_res, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, given[name].astype(np.float32))


def test_features_of_another_checkpoint_stop_the_graph(features: Run) -> None:
    with pytest.raises(Exception, match="encoder_of_another_checkpoint"):
        features(**some_features(), encoder_fingerprint=np.array([[77]]))


def test_a_file_of_the_right_size_passes_and_others_are_named() -> None:
    decoded = np.zeros((3, S, S), np.uint8)
    assert square_image(decoded, np.array([S, S], np.int32)).shape == (1, 3, S, S)
    with pytest.raises(InvalidClientImageError, match="exactly 64 x 64 pixels, got 65 x 64"):
        square_image(decoded, np.array([S, S + 1], np.int32))


def test_exporter_and_server_mean_the_same_pixels() -> None:
    """The exporter runs without the server's modules, so that the number stands in both."""
    assert FP16_ZERO == pixel_types.FP16_ZERO
