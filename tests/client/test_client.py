import hashlib

import numpy as np
import pytest
from triton_sam2 import (
    CallTimeoutError,
    ImageChangedError,
    ImageNotFoundError,
    InvalidInputError,
    NoImageError,
    NotRequestedError,
    RetryPolicy,
    SAM2TritonClient,
    ServerError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from triton_sam2._transports.rpc import bytes_tensor

from tests.client.fakes import FakeSam, png_of

CLICK = ([[30, 20]], [1])


@pytest.fixture
def server():
    return FakeSam()


@pytest.fixture
def client(server):
    retry = RetryPolicy(retries=3, first_pause_s=0.001, longest_pause_s=0.002)
    with SAM2TritonClient("localhost:8001", retry=retry, _transport=server) as client:
        yield client


def test_two_lines_to_a_mask(client, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png_of(40, 60))
    client.set_image(path)
    masks, iou = client.predict(*CLICK)
    assert masks.shape == (1, 1, 40, 60)
    assert masks.dtype == np.uint8
    expected = np.zeros((40, 60), bool)
    expected[15:25, 25:35] = True
    np.testing.assert_array_equal(masks[0, 0] > 0, expected)
    np.testing.assert_array_equal(iou, np.array([[0.5]], np.float32))


def test_a_files_own_bytes_are_sent_once(client, server, tmp_path):
    content = png_of()
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    handle = client.set_image(str(path))
    assert server.requests[0].model == "sam2_embedding"
    assert server.requests[0].inputs["image"][0] == content
    assert server.requests[0].outputs == ("cached_image_id", "original_hw")
    assert handle.image_id == client.image_id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert handle.original_hw == client.original_hw == (40, 60)
    for _ in range(3):
        client.predict(*CLICK)
    assert all("image" not in request.inputs for request in server.requests[1:])
    assert server.encodes.total() == 1


def test_only_what_is_looked_at_is_requested(client, server):
    client.set_image(png_of())
    client.predict(*CLICK)
    request = server.requests[-1]
    assert set(request.inputs) == {"image_id", "point_coords", "point_labels"}
    assert request.outputs == ("masks", "iou_predictions", "cached_image_id", "original_hw")
    client.predict(
        box=[1, 2, 3, 4], formats=("rle", "png"), low_res_masks=True, multimask_output=True
    )
    request = server.requests[-1]
    assert set(request.inputs) == {"image_id", "box", "mask_format", "multimask_output"}
    assert request.inputs["mask_format"].tolist() == [b"rle", b"png"]
    assert {"masks_rle", "masks_png", "low_res_masks"} < set(request.outputs)
    assert "masks" not in request.outputs


@pytest.mark.parametrize("mask_format", ["bitmap", "logits", "rle", "png"])
def test_every_format_gives_the_same_masks(client, mask_format):
    client.set_image(png_of())
    expected = client.predict(*CLICK, multimask_output=True).masks
    masks = client.predict(*CLICK, multimask_output=True, formats=mask_format).masks
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, expected)


def test_parts_that_were_not_asked_for_say_how_to_ask(client):
    client.set_image(png_of())
    result = client.predict(*CLICK)
    with pytest.raises(NotRequestedError, match="low_res_masks=True"):
        _ = result.low_res_masks
    with pytest.raises(NotRequestedError, match='formats=\\("rle",\\)'):
        _ = result.rles
    result = client.predict(*CLICK, formats=(), low_res_masks=True)
    with pytest.raises(NotRequestedError, match="masks were not asked for"):
        _ = result.masks
    assert client.predict(mask_input=result.low_res_masks[0]).masks.shape == (1, 1, 40, 60)


def test_segment_is_one_request_and_sets_the_image(client, server):
    result = client.segment(png_of(), *CLICK)
    assert len(server.requests) == 1
    assert server.requests[0].model == "sam2"
    assert result.original_hw == (40, 60)
    client.predict(*CLICK)
    assert "image" not in server.requests[1].inputs


@pytest.mark.parametrize("name", [None, "cat"])
def test_a_forgotten_image_is_sent_again_once(client, server, name):
    content = png_of()
    client.set_image(content, image_id=name)
    server.sizes.clear()
    assert client.predict(*CLICK).masks.any()
    _, refused, resent = server.requests
    assert "image" not in refused.inputs
    assert resent.inputs["image"][0] == content
    assert ("image_id" in resent.inputs) == (name is not None)
    np.testing.assert_array_equal(resent.inputs["point_coords"], refused.inputs["point_coords"])
    client.predict(*CLICK)
    assert len(server.requests) == 4


def test_a_reload_under_way_is_waited_out(client, server):
    client.set_image(png_of())
    server.failures = [ImageNotFoundError("retired")] * 3
    assert client.predict(*CLICK).masks.any()
    assert ["image" in request.inputs for request in server.requests[1:]] == [
        False,
        True,
        True,
        True,
    ]


def test_resending_is_bounded(client, server):
    client.set_image(png_of())
    server.failures = [ImageNotFoundError("retired")] * 99
    with pytest.raises(ImageNotFoundError, match="retired"):
        client.predict(*CLICK)
    assert len(server.requests) == 1 + 1 + 4


def test_an_image_known_by_id_alone_cannot_be_resent(client, server):
    server.sizes["cat"] = (10, 20)
    assert client.set_image(image_id="cat").original_hw == (10, 20)
    server.sizes.clear()
    with pytest.raises(ImageNotFoundError, match="cat"):
        client.predict(*CLICK)
    with pytest.raises(ImageNotFoundError, match="dog"):
        client.set_image(image_id="dog")


def test_a_busy_server_is_asked_again_but_not_forever(client, server):
    client.set_image(png_of())
    server.failures = [ServerUnavailableError("busy")] * 3
    assert client.predict(*CLICK).masks.any()
    server.failures = [ServerUnavailableError("busy")] * 99
    with pytest.raises(ServerUnavailableError, match="busy"):
        client.predict(*CLICK)
    assert len(server.failures) == 99 - 4


def test_a_server_that_restarts_is_waited_for(client, server):
    client.set_image(png_of())
    server.failures = [ServerUnavailableError("stopping"), ServerUnreachableError("refused")]
    assert client.predict(*CLICK).masks.any()
    assert not server.failures


@pytest.mark.parametrize(
    "error",
    [ServerUnreachableError("x"), ServerError("x"), InvalidInputError("x"), CallTimeoutError("x")],
)
def test_other_errors_are_not_retried(client, server, error):
    client.set_image(png_of())
    server.failures = [error]
    with pytest.raises(type(error)):
        client.predict(*CLICK)
    assert len(server.requests) == 2


def test_the_timeout_bounds_the_whole_call(server):
    retry = RetryPolicy(retries=50, first_pause_s=0.04, longest_pause_s=0.04)
    client = SAM2TritonClient(retry=retry, timeout=0.2, _transport=server)
    server.failures = [ServerUnavailableError("busy")] * 99
    with pytest.raises((ServerUnavailableError, CallTimeoutError)):
        client.set_image(png_of())
    assert 1 <= len(server.requests) < 51  # what the policy alone would allow
    timeouts = [request.timeout_s for request in server.requests]
    assert timeouts == sorted(timeouts, reverse=True)
    assert 0 < timeouts[-1] <= timeouts[0] <= 0.2


def test_the_pauses_grow_and_differ():
    pauses = list(RetryPolicy(retries=6, first_pause_s=1, longest_pause_s=8).pauses_s())
    for pause_s, most in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert most / 2 <= pause_s <= most
    assert pauses != list(RetryPolicy(retries=6, first_pause_s=1, longest_pause_s=8).pauses_s())


def test_bad_arguments_are_named_before_anything_is_sent(client, server):
    with pytest.raises(NoImageError, match="set_image"):
        client.predict(*CLICK)
    client.set_image(png_of())
    sent = len(server.requests)
    for arguments, message in [
        ({"formats": "gif"}, "formats: .*gif"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            client.predict(*CLICK, **arguments)
    for image_id in ["", 7]:
        with pytest.raises(InvalidInputError, match="image_id"):
            client.set_image(png_of(), image_id=image_id)
    assert len(server.requests) == sent


def test_calls_may_name_another_image(client):
    small = client.set_image(png_of(10, 20))
    large = client.set_image(png_of(30, 50))
    assert client.predict(*CLICK, image=small).original_hw == (10, 20)
    assert client.predict(*CLICK).original_hw == large.original_hw
    assert client.set_image(small) == client.image == small


@pytest.mark.parametrize("name", [None, "cat"])
def test_an_id_that_stands_for_another_image_now_gives_no_mask(client, server, name):
    handle = client.set_image(png_of(40, 60), image_id=name)
    assert client.predict(*CLICK).masks.any()
    server.sizes[handle.image_id] = (40, 61)  # what another client of that name does
    for image in (None, handle):
        with pytest.raises(ImageChangedError, match="60 x 40 pixels and now .* 61 x 40"):
            client.predict(*CLICK, image=image)
    client.set_image(png_of(40, 60), image_id=name)
    assert client.predict(*CLICK).original_hw == (40, 60)


def test_an_answer_about_another_id_gives_no_mask(client, server):
    client.set_image(png_of(40, 60))
    answer = server.infer
    server.infer = lambda request: {**answer(request), "cached_image_id": bytes_tensor("other")}
    with pytest.raises(ImageChangedError, match="'other'"):
        client.predict(*CLICK)


def test_a_resent_image_is_checked_as_well(client, server):
    client.set_image(png_of(40, 60), image_id="cat")
    server.failures = [ImageNotFoundError("evicted")]
    answer = server.infer
    server.infer = lambda request: {**answer(request), "original_hw": np.array([9, 9], np.int32)}
    with pytest.raises(ImageChangedError):
        client.predict(*CLICK)


def test_an_answer_that_lacks_a_part_is_an_error(client, server):
    server.infer = lambda request: {}
    with pytest.raises(ServerError, match="cached_image_id"):
        client.set_image(png_of())


def test_certificates_need_an_encrypted_url(tmp_path):
    pem = tmp_path / "ca.pem"
    pem.write_text("x")
    with pytest.raises(InvalidInputError, match="grpcs://"):
        SAM2TritonClient("grpc://gpu", ca_file=pem)
    with pytest.raises(InvalidInputError, match="both"):
        SAM2TritonClient("grpcs://gpu", cert_file=pem)
    with pytest.raises(InvalidInputError, match="key_file: no file"):
        SAM2TritonClient("https://gpu", cert_file=pem, key_file=tmp_path / "none.pem")


def test_the_environment_gives_the_default_url(monkeypatch):
    monkeypatch.setenv("TRITON_URL", "gpu:8000")
    assert SAM2TritonClient().url == "http://gpu:8000"
    assert SAM2TritonClient("other").url == "grpc://other:8001"
