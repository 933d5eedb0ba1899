"""Two tenants through the front, on a real server. bob knows alice's key's name, her images' ids and her
picture itself; he gets nothing of hers, moves nothing, forgets nothing, and learns nothing."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
import urllib3
from triton_sam2 import ImageNotFoundError, RetryPolicy, SAM2TritonClient, ServerUnavailableError
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.client.test_examples import PHOTO
from tests.front.conftest import ALICE, BOB, written_keys
from tests.front.samples import click_request
from tests.patience import PATIENCE_SECONDS
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_front import RunningFront
from tests.server.test_one_call import fresh

pytestmark = pytest.mark.server

NAME = "page-1"
CLICK = ([[109, 199]], [1])
# What a client might try to be somebody by.
FORGED = {"sam2_tenant": "alice", "sam2_inner_secret": "0" * 64, "tenant": "alice"}


@pytest.fixture(params=["grpc", "http"])
def url(request, keyed_front):
    http = request.param == "http"
    return f"http://{keyed_front.http_url}" if http else f"grpc://{keyed_front.grpc_url}"


@pytest.fixture
def clients(url):
    """alice and bob, whose clients have sent nothing yet."""
    retry = RetryPolicy(retries=0)
    with (
        SAM2TritonClient(url, headers={"x-api-key": ALICE}, retry=retry) as alice,
        SAM2TritonClient(url, headers={"x-api-key": BOB}, retry=retry) as bob,
    ):
        yield alice, bob


@pytest.fixture
def alices(clients):
    """alice's picture, her mask of it, and her ids: a name and the hash of the file."""
    alice, _ = clients
    picture = fresh(photograph("coins.png"))
    named = alice.segment(picture, *CLICK, image_id=NAME)
    content = alice.segment(picture, *CLICK)
    yield picture, named, [NAME, content.image_id]
    for client in clients:
        try:
            client.forget(NAME)
        except ImageNotFoundError:
            continue


def rest(keyed_front, key, method, path, **arguments):
    return httpx.request(
        method,
        f"http://{keyed_front.http_url}/v1{path}",
        headers={"x-api-key": key},
        timeout=PATIENCE_SECONDS,
        **arguments,
    )


def stands(alice, named):
    """alice's click, by the name alone, is what it was."""
    alice.set_image(image_id=NAME)
    again = alice.predict(*CLICK)
    np.testing.assert_array_equal(again.masks, named.masks)


def test_1_and_2_a_click_on_her_image_finds_nothing_nor_do_its_embeddings(clients, alices):
    alice, bob = clients
    _, named, ids = alices
    for image_id in ids:
        with pytest.raises(ImageNotFoundError):
            bob.set_image(image_id=image_id)
    stands(alice, named)


@pytest.mark.parametrize("output", ["image_embed", "high_res_feats_0", "encoder_fingerprint"])
def test_2_embeddings_are_nobodys(keyed_front, output):
    for key in (ALICE, BOB):
        answer = oip(
            keyed_front, key, "sam2_embedding", {"image_id": ["x"]}, outputs=[{"name": output}]
        )
        assert answer.status == 400
        assert "no such output" in answer.json()["error"]


def test_3_and_4_his_picture_of_the_same_name_is_his_alone(clients, alices):
    alice, bob = clients
    _, named, _ = alices
    his = bob.segment(photograph("camera.png"), *CLICK, image_id=NAME)
    assert his.original_hw != named.original_hw
    stands(alice, named)
    bob.set_image(image_id=NAME)
    assert bob.predict(*CLICK).original_hw == his.original_hw


def test_5_he_forgets_nothing_of_hers(clients, alices):
    alice, bob = clients
    _, named, ids = alices
    for image_id in ids:
        with pytest.raises(ImageNotFoundError):
            bob.forget(image_id)
    bob.segment(photograph("camera.png"), *CLICK, image_id=NAME)
    bob.forget(NAME)
    stands(alice, named)


def test_6_he_retires_nobodys_weights(keyed_front, clients, alices):
    alice, _ = clients
    _, named, _ = alices
    tensor = {"retired_fingerprint": [[1]]}
    answer = oip(keyed_front, BOB, "sam2_embedding", tensor, kinds={"retired_fingerprint": "INT64"})
    assert answer.status == 400
    assert "no such input" in answer.json()["error"]
    stands(alice, named)


def test_7_that_she_sent_a_file_is_not_to_be_learned(clients, alices, keyed_front):
    """Neither by its hash nor by sending it: what he is told of it is told of a file that nobody sent."""
    _, bob = clients
    picture, _, ids = alices
    nobodys = fresh(photograph("coins.png"))
    words = set()
    for content_id in (ids[1], "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFoundError) as missing:
            bob.forget(content_id)
        words.add(str(missing.value).replace(content_id, "..."))
    assert len(words) == 1
    before = encodes(keyed_front)
    for image in (picture, nobodys):
        bob.segment(image, *CLICK)  # both are encoded for him
    assert encodes(keyed_front) == before + 2


def encodes(keyed_front):
    """How often Triton has encoded an image, by its own statistics."""
    with grpc.insecure_channel(keyed_front.triton) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (model,) = stub.ModelStatistics(
            service_pb2.ModelStatisticsRequest(name="sam2_encoder")
        ).model_stats
        return model.execution_count


def test_8_after_he_sent_it_too_each_has_his_own(clients, alices):
    alice, bob = clients
    picture, named, ids = alices
    his = bob.segment(picture, *CLICK)
    assert his.image_id == ids[1]
    bob.forget(his.image_id)
    stands(alice, named)


def test_9_the_probes_tenant_is_nobodys(keyed_front):
    """Keys' names and tenants cannot begin like the inside's; and what a client says of them is dropped."""
    request = click_request(b"sam2-health-probe-")
    request.parameters["sam2_tenant"].string_param = ":probe"
    with grpc.insecure_channel(keyed_front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, metadata=[("x-api-key", BOB)], timeout=PATIENCE_SECONDS)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_10_forged_parameters_are_dropped(keyed_front, alices):
    body = {"parameters": FORGED}
    answer = oip(keyed_front, BOB, "sam2", {"image_id": [NAME]}, click_too=True, **body)
    assert answer.status == 404
    request = click_request(NAME.encode())
    for name, value in FORGED.items():
        request.parameters[name].string_param = value
        request.inputs[0].parameters[name].string_param = value
        request.outputs[0].parameters[name].string_param = value
    with grpc.insecure_channel(keyed_front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = [("x-api-key", BOB)]
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, metadata=metadata, timeout=PATIENCE_SECONDS)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        (streamed,) = stub.ModelStreamInfer(
            iter([request]), metadata=metadata, timeout=PATIENCE_SECONDS
        )
        assert "no image is kept" in streamed.error_message
        assert stub.ModelInfer(request, metadata=[("x-api-key", ALICE)], timeout=PATIENCE_SECONDS)


def test_11_forged_headers_are_dropped(keyed_front, alices):
    forged = {name.replace("_", "-"): value for name, value in FORGED.items()} | FORGED
    forged |= {f"triton-grpc-protocol-{name}": value for name, value in FORGED.items()}
    answer = oip(keyed_front, BOB, "sam2", {"image_id": [NAME]}, click_too=True, headers=forged)
    assert answer.status == 404
    metadata = [("x-api-key", BOB), *((name.lower(), value) for name, value in forged.items())]
    with grpc.insecure_channel(keyed_front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(
                click_request(NAME.encode()), metadata=metadata, timeout=PATIENCE_SECONDS
            )
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_12_nor_by_rest_everything_or_video(keyed_front, clients, alices):
    alice, _ = clients
    _, named, ids = alices
    for image_id in ids:
        form = {"image_id": image_id}
        clicked = rest(keyed_front, BOB, "POST", "/segment", data=form | {"point": "109,199"})
        assert clicked.status_code == 404
        assert rest(keyed_front, BOB, "DELETE", f"/images/{image_id}").status_code == 404
        assert oip(keyed_front, BOB, "sam2_automask", {"image_id": [image_id]}).status == 404
    start = {"session_id": ["clip"], "command": ["start"]}
    assert oip(keyed_front, ALICE, "sam2_video", start).status == 200
    close = start | {"command": ["close"]}
    assert oip(keyed_front, BOB, "sam2_video", close).status == 404
    assert oip(keyed_front, ALICE, "sam2_video", close).status == 200
    stands(alice, named)


def oip(keyed_front, key, model, tensors, *, kinds=None, headers=None, click_too=False, **body):
    """A request as JSON."""
    shapes = {name: np.shape(values) for name, values in tensors.items()}
    kinds = kinds or {}
    inputs = [
        {
            "name": name,
            "datatype": kinds.get(name, "BYTES"),
            "shape": list(shapes[name]),
            "data": values,
        }
        for name, values in tensors.items()
    ]
    if click_too:
        inputs += [
            {"name": "point_coords", "datatype": "FP32", "shape": [1, 1, 2], "data": [109, 199]},
            {"name": "point_labels", "datatype": "INT32", "shape": [1, 1], "data": [1]},
        ]
    wanted = [{"name": "iou_predictions"}] if model == "sam2" else []
    document = {"inputs": inputs, "outputs": wanted} | body
    with urllib3.PoolManager(retries=False, timeout=PATIENCE_SECONDS) as pool:
        return pool.request(
            "POST",
            f"http://{keyed_front.http_url}/v2/models/{model}/infer",
            body=json.dumps(document),
            headers={"x-api-key": key} | (headers or {}),
        )


def test_a_flood_of_bobs_images_does_not_keep_alices_out(keyed_front, clients, alices):
    """More of his images at once than may be pending in all: some of his are refused, hers is encoded."""
    alice, bob = clients
    _, named, _ = alices

    def send(number: int) -> bool:
        try:
            bob.set_image(fresh(photograph("coins.png")), image_id=f"flood-{number}")
        except ServerUnavailableError:
            return False
        return True

    with ThreadPoolExecutor(30) as flood:
        sent = [flood.submit(send, number) for number in range(30)]
        new = alice.segment(fresh(photograph("coins.png")), *CLICK)
        stands(alice, named)
        assert new.masks.any()
        assert any(future.result(PATIENCE_SECONDS) for future in sent)
    for number in range(30):
        try:
            bob.forget(f"flood-{number}")
        except ImageNotFoundError:
            continue


def test_keys_of_one_tenant_share_its_images(server, tmp_path):
    keys = written_keys(tmp_path, f"one {ALICE} team\ntwo {BOB} team\n")
    with RunningFront(server.grpc_url, tmp_path / "front", "--api-keys", keys) as front:
        for key in (ALICE, BOB):
            with SAM2TritonClient(front.grpc_url, headers={"x-api-key": key}) as client:
                if key == ALICE:
                    first = client.segment(PHOTO, *CLICK, image_id="of-the-team")
                client.set_image(image_id="of-the-team")
                np.testing.assert_array_equal(client.predict(*CLICK).masks, first.masks)
    # Without a tenant, as on a trusted network, it is not there.
    with pytest.raises(RefusedError, match="NOT_FOUND"):
        RawClient(server, "grpc").infer(image_id=bytes_tensor(b"of-the-team"), **click(109, 199))
