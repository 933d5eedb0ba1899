"""`sam2_automask` on a real server: Meta's own generator around the same graphs, bad input over both
protocols, the cache's crops, cancellation, an image forgotten and a model reloaded midway."""

import json
import shutil
import threading
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import SAM2TritonClient

from tests.automask_cases import CASES as REFERENCE_CASES
from tests.automask_cases import SOFT
from tests.automask_reference import GraphPredictor, generate
from tests.masks import overlap
from tests.models.test_generator_parameters import WRONG
from tests.photographs import encoded, opened, photograph, picture_of_discs
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import ROOT, RunningServer
from tests.server_figures import cache_metrics

pytestmark = pytest.mark.server

ONNX = ROOT / "export/demo_model/onnx"
MODEL = "sam2_automask"
LEAST_IOU = 0.99
CASES = REFERENCE_CASES | {
    "a grid of one's own": {"stability_score_thresh": 0, "pred_iou_thresh": 0}
    | {"points_per_side": None, "point_grids": [[[0.28, 0.65], [0.5, 0.5], [0.9, 0.1]]]},
}
PHOTOGRAPHS = {
    "coins (384x303)": photograph("coins.png"),
    "coffee (600x400)": photograph("coffee.png"),
    "cell, portrait (550x660)": photograph("cell.png"),
    "chelsea (451x300)": photograph("chelsea.png"),
}
COINS = bytes_tensor(PHOTOGRAPHS["coins (384x303)"])


def parameters(**given) -> np.ndarray:
    return bytes_tensor(json.dumps(given).encode())


def masks_of(answer) -> list[np.ndarray]:
    return [coco_mask.decode(json.loads(text)) for text in answer["masks_rle"]]


@pytest.fixture(scope="module")
def grpc(server):
    return RawClient(server, "grpc")


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


@pytest.fixture(scope="module")
def reference():
    return GraphPredictor(ONNX / "encoder.onnx", ONNX / "decoder.onnx")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_masks_are_those_of_metas_generator(grpc, reference, name, case):
    """The same networks, so what is compared is all the rest. Bilinear enlargement rounds differently in
    PyTorch and OpenCV, which may move single pixels; no candidate of these has changed sides by it."""
    given, image = CASES[case], PHOTOGRAPHS[name]
    grids = given.get("point_grids")
    meta = given if grids is None else given | {"point_grids": [np.array(grid) for grid in grids]}
    expected = generate(reference, np.array(opened(image).convert("RGB")), **meta)
    answer = grpc.infer(MODEL, image=bytes_tensor(image), parameters=parameters(**given))
    assert len(expected) > 0
    masks = masks_of(answer)
    assert len(masks) == len(expected)
    np.testing.assert_array_equal(
        answer["predicted_iou"], np.float32([each["predicted_iou"] for each in expected])
    )
    worst = min(
        overlap(mask, each["segmentation"]) for mask, each in zip(masks, expected, strict=True)
    )
    print(f"{name} | {case} | {len(masks)} masks | least IoU {worst:.5f}")
    assert worst >= LEAST_IOU
    assert answer["crop_box"].tolist() == [each["crop_box"] for each in expected]
    assert answer["point_coords"].tolist() == [each["point_coords"][0] for each in expected]
    assert np.abs(answer["bbox"] - np.array([each["bbox"] for each in expected])).max() <= 1
    stability = np.array([each["stability_score"] for each in expected])
    np.testing.assert_allclose(answer["stability_score"], stability, atol=2e-3)


def test_nothing_found_is_an_answer(client):
    blank = bytes_tensor(encoded(Image.new("RGB", (90, 70), "grey"), "PNG"))
    answer = client.infer(MODEL, image=blank, parameters=parameters(points_per_side=2))
    assert len(answer["area"]) == 0
    assert answer["original_hw"].tolist() == [70, 90]


def test_every_format_says_the_same(client):
    formats = bytes_tensor(b"bitmap", b"png", b"rle")
    answer = client.infer(
        MODEL, image=COINS, parameters=parameters(**SOFT, max_masks=4), mask_format=formats
    )
    assert answer["masks"].shape == (4, 303, 384)
    for mask, png, rle in zip(answer["masks"], answer["masks_png"], masks_of(answer), strict=True):
        np.testing.assert_array_equal(mask, rle)
        np.testing.assert_array_equal(np.asarray(opened(png)) > 0, rle > 0)
    np.testing.assert_array_equal(answer["area"], answer["masks"].sum((1, 2)))


def test_what_users_ask_for_beside_metas_parameters(grpc):
    def found(**more):
        return grpc.infer(MODEL, image=COINS, parameters=parameters(**(SOFT | more)))

    plain = found()
    assert len(plain["area"]) > 10
    least, most = np.quantile(plain["area"], [0.3, 0.7]).astype(int).tolist()
    bounded = found(min_mask_area=least, max_mask_area=most)
    assert ((bounded["area"] >= least) & (bounded["area"] <= most)).all()
    for mask in masks_of(found(min_mask_region_area=40)):
        import cv2

        for part in (mask, 1 - mask):
            areas = cv2.connectedComponentsWithStats(part, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
            assert (areas >= 40).all()
    apart = masks_of(found(mask_nms_thresh=0.5, mask_containment_thresh=0.6))
    for i, one in enumerate(apart):
        for other in apart[:i]:
            shared = (one & other).sum()
            assert shared <= 0.6 * min(one.sum(), other.sum())
    best = found(max_masks=3)
    assert sorted(best["predicted_iou"]) == sorted(plain["predicted_iou"])[-3:]


def expect(client, status, part, **tensors):
    with pytest.raises(RefusedError) as refused:
        client.infer(MODEL, **tensors)
    assert refused.value.status == status, refused.value
    assert part in refused.value.message
    assert "Traceback" not in refused.value.message
    assert "/" + MODEL not in refused.value.message


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_is_named(client, name):
    for value in WRONG[name]:
        expect(
            client, "INVALID_ARGUMENT", name, image=COINS, parameters=parameters(**{name: value})
        )


LIMITS = {
    "points": ({"points_per_side": 200}, "max_points"),
    "crops": ({"crop_n_layers": 3, "points_per_side": 1}, "max_crops"),
    "unknown name": ({"points_per_sid": 3}, "points_per_sid"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_named(client, name):
    given, part = LIMITS[name]
    expect(client, "INVALID_ARGUMENT", part, image=COINS, parameters=parameters(**given))


BAD = {
    "no JSON": ({"image": COINS, "parameters": bytes_tensor(b"{")}, "parameters"),
    "two texts": ({"image": COINS, "parameters": bytes_tensor(b"{}", b"{}")}, "parameters"),
    "a number": ({"image": COINS, "parameters": np.ones(1, np.float32)}, "parameters"),
    "no format": ({"image": COINS, "mask_format": bytes_tensor(b"logits")}, "mask_format"),
    "no image": ({}, "image"),
    "a broken image": ({"image": bytes_tensor(b"nothing")}, "image: "),
    "an empty id": ({"image_id": bytes_tensor(b"")}, "image_id"),
    "an id that is no text": ({"image_id": bytes_tensor(b"\xff")}, "image_id"),
    "an unknown tensor": ({"image": COINS, "points_per_side": np.ones(1, np.int32)}, "points_per"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_bad_input(client, name):
    tensors, part = BAD[name]
    expect(client, "INVALID_ARGUMENT", part, **tensors)
    assert len(client.infer(MODEL, image=COINS, parameters=parameters(points_per_side=1))) > 5


def test_an_unknown_id_is_not_found(client):
    expect(client, "NOT_FOUND", "send the image again", image_id=bytes_tensor(b"nobody's"))


def encodes(server) -> int:
    time.sleep(1.2)  # published once a second
    return int(cache_metrics(server)["encodes_total"])


def test_crops_are_encoded_once_kept_under_the_image_and_forgotten_with_it(grpc, server):
    image = bytes_tensor(picture_of_discs(4711))
    name = bytes_tensor(b"slide 4711")
    given = parameters(points_per_side=4, crop_n_layers=1, crop_n_points_downscale_factor=2)
    before = encodes(server)
    first = grpc.infer(MODEL, image=image, image_id=name, parameters=given)
    assert encodes(server) == before + 5
    for again in ({"image_id": name}, {"image": image}, {"image_id": first["cached_image_id"]}):
        answer = grpc.infer(MODEL, parameters=given, **again)
        assert answer["masks_rle"].tolist() == first["masks_rle"].tolist()
    assert encodes(server) == before + 5
    entries = cache_metrics(server)["entries"]
    grpc.infer("sam2_embedding", ["cached_image_id"], image_id=name, forget=np.array([True]))
    expect(grpc, "NOT_FOUND", "send the image again", image_id=name, parameters=given)
    time.sleep(1.2)
    assert cache_metrics(server)["entries"] == entries - 5


def test_crops_need_the_image_once(grpc):
    image, name = bytes_tensor(picture_of_discs(4712)), bytes_tensor(b"slide 4712")
    grpc.infer("sam2_embedding", ["cached_image_id"], image=image, image_id=name)
    given = parameters(points_per_side=4, crop_n_layers=1)
    expect(grpc, "NOT_FOUND", "send the image again", image_id=name, parameters=given)
    assert len(grpc.infer(MODEL, image_id=name, parameters=parameters(points_per_side=2))) > 5


def test_our_client_sends_the_image_again_for_its_crops(server):
    with SAM2TritonClient(server.grpc_url) as client:
        client.set_image(picture_of_discs(4713))
        given = {"points_per_side": 4, "crop_n_layers": 1, "stability_score_thresh": 0.0}
        assert len(client.generate(**given, pred_iou_thresh=0.0)) > 0


def test_both_clients_protocols_agree(server):
    with (
        SAM2TritonClient(server.grpc_url) as one,
        SAM2TritonClient(f"http://{server.http_url}") as other,
    ):
        first, second = (
            client.generate(PHOTOGRAPHS["chelsea (451x300)"], **SOFT) for client in (one, other)
        )
        assert len(first) > 0
        assert first.tensors["masks_rle"].tolist() == second.tensors["masks_rle"].tolist()
        assert first.image_id == second.image_id


def automask_metrics(server) -> dict[str, float]:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.split(" ") for line in lines if line.startswith("sam2_automask_")]
    return {name.removeprefix("sam2_automask_"): float(value) for name, value in found}


LONG = {"points_per_side": 128, "points_per_batch": 16}  # over a minute on the small model


def test_a_cancelled_call_stops_and_leaves_its_turn(grpc, server):
    client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
    inputs = [tritonclient.grpc.InferInput(n, [1], "BYTES") for n in ("image", "parameters")]
    for tensor, values in zip(inputs, (COINS, parameters(**LONG)), strict=True):
        tensor.set_data_from_numpy(values)
    for _ in range(3):  # as many turns as there are, and one more
        before = automask_metrics(server)
        answered = threading.Event()
        outcome = []

        def done(result, error, outcome=outcome, answered=answered):
            outcome.append(error)
            answered.set()

        call = client.async_infer(MODEL, inputs, done)
        while automask_metrics(server)["running"] < 1:
            time.sleep(0.05)
        call.cancel()
        assert answered.wait(30)
        assert "cancel" in str(outcome[0]).lower()
        deadline = time.monotonic() + 60
        while automask_metrics(server)["running"] > 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        after = automask_metrics(server)
        assert after["cancelled_total"] == before["cancelled_total"] + 1
        # Far from all of its points.
        assert after["points_total"] - before["points_total"] < 128**2 / 2
    assert len(grpc.infer(image=COINS, **click(109, 199))["masks"]) == 1


def test_an_image_forgotten_midway_is_finished_with_what_was_sent(grpc, server):
    image, name = bytes_tensor(picture_of_discs(4714)), bytes_tensor(b"slide 4714")
    given = parameters(
        points_per_side=24,
        crop_n_layers=1,
        crop_n_points_downscale_factor=12,
        stability_score_thresh=0.0,
        pred_iou_thresh=0.5,
    )
    expected = grpc.infer(MODEL, image=image, image_id=name, parameters=given)
    grpc.infer("sam2_embedding", ["cached_image_id"], image_id=name, forget=np.array([True]))
    answers = []
    work = threading.Thread(
        target=lambda: answers.append(
            RawClient(server, "grpc").infer(MODEL, image=image, image_id=name, parameters=given)
        )
    )
    before = automask_metrics(server)["points_total"]
    work.start()
    forgotten = 0
    while work.is_alive():
        try:
            grpc.infer(
                "sam2_embedding", ["cached_image_id"], image_id=name, forget=np.ones(1, bool)
            )
            forgotten += 1
        except RefusedError as error:
            assert error.status == "NOT_FOUND"
    work.join()
    assert forgotten >= 1
    assert answers[0]["masks_rle"].tolist() == expected["masks_rle"].tolist()
    assert automask_metrics(server)["points_total"] > before


@pytest.fixture(scope="module")
def own_server(demo_repository, tmp_path_factory):
    """A server of this file's own, with short limits and models that may be reloaded."""
    directory = tmp_path_factory.mktemp("automask")
    repository = directory / "repository"
    shutil.copytree(demo_repository, repository)
    path = repository / MODEL / "config.pbtxt"
    text = path.read_text()
    for name, old, new in (
        ("max_seconds", "110", "3"),
        ("max_running", "2", "1"),
        ("max_waiting", "8", "0"),
    ):
        before = f'key: "{name}"'
        start = text.index(before)
        end = text.index("\n", start)
        line = text[start:end]
        assert f'"{old}"' in line
        text = text[:start] + line.replace(f'"{old}"', f'"{new}"') + text[end:]
    path.write_text(text)
    with RunningServer(
        repository, directory / "state", "--no-probe", "--explicit-models"
    ) as running:
        yield running


def test_time_and_turns_are_bounded(own_server):
    client = RawClient(own_server, "grpc")
    refused = []

    def work():
        try:
            RawClient(own_server, "grpc").infer(MODEL, image=COINS, parameters=parameters(**LONG))
        except RefusedError as error:
            refused.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while automask_metrics(own_server)["running"] < 1:
        time.sleep(0.05)
    expect(client, "UNAVAILABLE", "max_waiting", image=COINS)
    thread.join()
    assert refused[0].status == "INVALID_ARGUMENT"
    assert "max_seconds" in refused[0].message
    metrics = automask_metrics(own_server)
    assert (metrics["out_of_time_total"], metrics["overloaded_total"]) == (1, 1)


@pytest.mark.slow
def test_a_reload_midway_is_told_and_the_image_sent_again_is_segmented(own_server, other_weights):
    client = RawClient(own_server, "grpc")
    image = bytes_tensor(picture_of_discs(1))
    first = client.infer(MODEL, image=image, parameters=parameters(points_per_side=2))
    admin = tritonclient.http.InferenceServerClient(own_server.http_url, network_timeout=120)
    outcomes = []

    def work():
        try:
            given = parameters(**(LONG | {"points_per_side": 60}))
            RawClient(own_server, "grpc").infer(MODEL, image=image, parameters=given)
        except RefusedError as error:
            outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while automask_metrics(own_server)["running"] < 1:
        time.sleep(0.02)
    for model, file in (("sam2_decoder", "decoder.onnx"), ("sam2_encoder", "encoder.onnx")):
        shutil.copyfile(other_weights / file, own_server.repository / model / "1" / "model.onnx")
        admin.load_model(model)
    thread.join()
    assert outcomes[0].status == "NOT_FOUND", outcomes
    assert "send the image again" in outcomes[0].message
    known = {"image_id": first["cached_image_id"], "parameters": parameters(points_per_side=2)}
    expect(client, "NOT_FOUND", "send the image again", **known)
    assert len(client.infer(MODEL, image=image, parameters=parameters(points_per_side=2))) > 5
