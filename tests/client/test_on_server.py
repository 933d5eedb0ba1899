"""The client against the real server with the demo model."""

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image
from skimage import data
from triton_sam2 import (
    ImageChangedError,
    ImageNotFoundError,
    InvalidInputError,
    SAM2TritonClient,
)
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.client.wire import relay_to

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def photo():
    """An astronaut, 512×512, as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return (
        server.grpc_url
        if request.param == "grpc"
        else f"http://{server.http_url.removeprefix('http://')}"
    )


@pytest.fixture
def client(url):
    with SAM2TritonClient(url) as client:
        yield client


def test_two_lines_to_a_mask(client, photo):
    client.set_image(photo)
    masks, iou = client.predict([[256, 180]], [1])
    assert masks.shape == (1, 1, 512, 512)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 1}
    assert iou.shape == (1, 1)


@pytest.mark.parametrize("mask_format", ["logits", "rle", "png"])
def test_every_format_is_the_same_mask(client, photo, mask_format):
    prompts = ([[[256, 180]], [[100, 400], [30, 30]]], [[1], [1, 0]])
    client.set_image(photo)
    expected = client.predict(*prompts, multimask_output=True)
    result = client.predict(*prompts, multimask_output=True, formats=mask_format)
    assert expected.masks.shape == (2, 3, 512, 512)
    np.testing.assert_array_equal(result.masks, expected.masks)
    np.testing.assert_allclose(result.iou_predictions, expected.iou_predictions, rtol=1e-6)


def test_one_call_equals_two(client, photo):
    once = client.segment(photo, [[256, 180]], [1])
    client.set_image(photo)
    again = client.predict([[256, 180]], [1])
    np.testing.assert_array_equal(once.masks, again.masks)
    assert once.image_id == again.image_id == client.image_id
    assert once.original_hw == again.original_hw == (512, 512)


def test_refinement_with_low_res_masks_alone(client, photo):
    client.set_image(photo)
    first = client.predict([[256, 180]], [1], formats=(), low_res_masks=True)
    side = first.low_res_masks.shape[-1]
    assert first.low_res_masks.shape == (1, 1, side, side)
    refined = client.predict([[256, 180]], [1], mask_input=first.low_res_masks[0])
    assert refined.masks.shape == (1, 1, 512, 512)


def test_pixels_as_the_image(client):
    pixels = data.astronaut()[:200, :301]
    assert client.segment(pixels, box=[10, 10, 200, 150]).masks.shape == (1, 1, 200, 301)
    assert client.segment(pixels[:, :, 0], box=[10, 10, 200, 150]).masks.shape == (1, 1, 200, 301)


def test_a_forgotten_image_is_sent_again(client, photo):
    content = photo + b"\0"  # an image of our own, so that nobody else's cache entry is touched
    client.set_image(content)
    expected = client.predict([[256, 180]], [1]).masks
    with pytest.raises(ImageNotFoundError, match="send the image"):
        client.set_image(image_id="never heard of")
    client.forget(client.image_id)
    np.testing.assert_array_equal(client.predict([[256, 180]], [1]).masks, expected)


def test_empty_points_beside_a_box_are_no_points(server, photo):
    """As front ends in any language send them: [B, 0, 2] and [B, 0] on the wire."""
    with triton.InferenceServerClient(server.grpc_url) as client:

        def ask(**tensors):
            content = np.array([photo], object)
            inputs = []
            for name, array in {"image": content, **tensors}.items():
                datatype = np_to_triton_dtype(array.dtype)
                tensor = triton.InferInput(name, list(array.shape), datatype)
                inputs.append(tensor.set_data_from_numpy(array))
            return client.infer("sam2", inputs).as_numpy("low_res_masks")

        box = np.array([[100, 50, 300, 250]], np.float32)
        expected = ask(box=box)
        empty = {
            "point_coords": np.zeros((1, 0, 2), np.float32),
            "point_labels": np.zeros((1, 0), np.int32),
        }
        np.testing.assert_array_equal(ask(box=box, **empty), expected)
        with pytest.raises(InferenceServerException, match="point_coords"):
            ask(**empty)


@pytest.mark.parametrize("image", ["pil", "file", "[H, W, 1]"])
def test_images_as_people_hold_them(client, photo, image):
    picture = Image.open(io.BytesIO(photo))
    held = {
        "pil": picture,
        "file": io.BytesIO(photo),
        "[H, W, 1]": np.asarray(picture.convert("L"))[:, :, None],
    }[image]
    expected = np.asarray(picture.convert("L")) if image == "[H, W, 1]" else photo
    masks = client.segment(held, [[256, 180]], [1]).masks
    np.testing.assert_array_equal(masks, client.segment(expected, [[256, 180]], [1]).masks)


def test_a_name_that_another_client_gives_to_another_picture(url, photo):
    with SAM2TritonClient(url) as ours, SAM2TritonClient(url) as theirs:
        ours.set_image(photo, image_id=f"shared over {url}")
        assert ours.predict([[256, 180]], [1]).masks.shape == (1, 1, 512, 512)
        theirs.set_image(data.astronaut()[:300], image_id=f"shared over {url}")
        with pytest.raises(ImageChangedError, match="512 x 512 pixels and now .* 512 x 300"):
            ours.predict([[256, 180]], [1])


def test_what_the_server_refuses_is_invalid_input(client, photo):
    with pytest.raises(InvalidInputError, match="image"):
        client.set_image(b"this is not an image")
    client.set_image(photo)
    with pytest.raises(InvalidInputError, match="mask_input"):
        client.predict(mask_input=np.zeros((8, 8), np.float32))
    assert client.predict([[1, 1]], [1]).masks.shape == (1, 1, 512, 512)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_cached_click_sends_at_most_a_kilobyte(server, photo, protocol):
    address = server.grpc_url if protocol == "grpc" else server.http_url
    encodes_before = executions(server, "sam2_encoder")
    with relay_to(address) as relay, SAM2TritonClient(f"{protocol}://{relay.address}") as client:
        client.set_image(photo)
        client.predict([[256, 180]], [1])  # opens connections
        encodes = executions(server, "sam2_encoder")
        before = relay.bytes_sent
        clicks = 20
        for index in range(clicks):
            client.predict([[200 + index, 180]], [1])
        per_click = (relay.bytes_sent - before) / clicks
    print(f"{protocol}: {per_click:.0f} bytes on the wire per cached click")
    assert per_click <= 1024
    assert executions(server, "sam2_encoder") == encodes <= encodes_before + 1


def test_large_images_and_masks(client):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2200, 3), dtype=np.uint8)
    result = client.segment(pixels, [[1000, 700]], [1], multimask_output=True)
    assert result.masks.nbytes == 3 * 1500 * 2200


def executions(server, model):
    """How many inferences a model has executed, by the server's own metrics."""
    url = server.metrics_url if "://" in server.metrics_url else f"http://{server.metrics_url}"
    url = url if url.endswith("/metrics") else f"{url}/metrics"
    with urllib.request.urlopen(url, timeout=60) as response:
        lines = response.read().decode().splitlines()
    name = f'nv_inference_count{{model="{model}"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
