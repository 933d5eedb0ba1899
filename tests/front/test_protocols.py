"""The inference protocol through the front: any client, the same answers, no more than it shall see."""

import gzip
import json
import queue
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import urllib3
from PIL import Image
from triton_sam2 import (
    AccessDeniedError,
    AsyncSAM2TritonClient,
    ImageNotFoundError,
    InvalidInputError,
    RetryPolicy,
    SAM2TritonClient,
)
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.client.test_examples import BUILDERS, CLICK, EXAMPLES, PHOTO, execute
from tests.front.conftest import ALICE, BOB, log_lines
from tests.front.samples import click_request
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server


def http(front, method, path, body=None, **headers):
    with urllib3.PoolManager(retries=False, timeout=PATIENCE_SECONDS) as pool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return pool.request(method, f"http://{front.http_url}{path}", body=body, headers=named)


@pytest.fixture
def stub(front):
    with grpc.insecure_channel(front.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_all_outputs_are_tritons_own(server, front, protocol):
    image = bytes_tensor(photograph("coins.png"))
    formats = bytes_tensor(b"bitmap", b"logits", b"rle", b"png")
    tensors = {"image": image, "mask_format": formats, **click(109, 199)}
    expected = RawClient(server, "grpc").infer(**tensors)
    found = RawClient(front, protocol).infer(**tensors)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_our_client(front, scheme):
    url = f"{scheme}://{front.grpc_url if scheme == 'grpc' else front.http_url}"
    with SAM2TritonClient(url, retry=RetryPolicy(retries=0)) as client:
        name = f"front-{scheme}"
        handle = client.set_image(PHOTO, image_id=name)
        masks, iou = client.predict([[109, 199]], [1], multimask_output=True)
        assert masks.shape == (1, 3, *handle.original_hw)
        assert iou.shape == (1, 3)
        client.forget(name)
        with pytest.raises(ImageNotFoundError):
            client.predict([[109, 199]], [1], image=type(handle)(name, handle.original_hw))
        with pytest.raises(InvalidInputError, match="image"):
            client.set_image(b"not an image")


def test_our_asyncio_client(front):
    import asyncio

    async def many():
        async with AsyncSAM2TritonClient(front.grpc_url) as client:
            await client.set_image(PHOTO)
            calls = [client.predict([[60.0 + x, 50.0]], [1]) for x in range(12)]
            return [result.masks for result in await asyncio.gather(*calls)]

    assert all(masks.any() for masks in asyncio.run(many()))


@pytest.mark.parametrize("language", BUILDERS)
def test_the_examples_run_unchanged(language, server, front, tmp_path):
    command = BUILDERS[language](tmp_path)
    address = front.grpc_url if language == "nodejs_grpc" else f"http://{front.http_url}"
    environment = {"OPEN_INFERENCE_PROTO": str(EXAMPLES / "proto/open_inference.proto")}
    output = tmp_path / "mask.png"
    done = execute(*command, address, PHOTO, *CLICK, output, environment=environment)
    assert done.returncode == 0, done.stderr
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.segment(PHOTO, [[float(side) for side in CLICK]], [1])
    np.testing.assert_array_equal(np.asarray(Image.open(output)) > 0, expected.masks[0, 0] > 0)
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    done = execute(*command, address, text, *CLICK, tmp_path / "none.png", environment=environment)
    assert done.returncode == 1
    assert "image" in done.stderr


def test_tritonclient_http_with_compression_and_json(front):
    client = tritonclient.http.InferenceServerClient(front.http_url)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sam2")
    assert client.get_server_metadata()["name"] == "triton-sam2"
    metadata = client.get_model_metadata("sam2")
    assert {"name": "box", "datatype": "FP32", "shape": [-1, 4]} in metadata["inputs"]
    inputs = []
    for name, values in {"image": bytes_tensor(photograph("coins.png")), **click(109, 199)}.items():
        kind = {"O": "BYTES", "f": "FP32", "i": "INT32"}[values.dtype.kind]
        tensor = tritonclient.http.InferInput(name, list(values.shape), kind)
        inputs.append(tensor.set_data_from_numpy(values, binary_data=name != "point_coords"))
    wanted = [
        tritonclient.http.InferRequestedOutput("iou_predictions", binary_data=False),
        tritonclient.http.InferRequestedOutput("masks", binary_data=True),
    ]
    for algorithm in (None, "gzip", "deflate"):
        result = client.infer(
            "sam2",
            inputs,
            outputs=wanted,
            request_id="seven",
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert result.as_numpy("masks").any()
        assert result.as_numpy("iou_predictions").shape == (1, 1)
        assert result.get_response()["id"] == "seven"


def test_png_masks_in_json_are_base64(front):
    RawClient(front, "grpc").infer(
        image=bytes_tensor(photograph("coins.png")), image_id=bytes_tensor(b"png"), **click(9, 9)
    )
    inputs = [
        {"name": "image_id", "shape": [1], "datatype": "BYTES", "data": ["png"]},
        {"name": "mask_format", "shape": [1], "datatype": "BYTES", "data": ["png"]},
        {"name": "box", "shape": [1, 4], "datatype": "FP32", "data": [[80, 170, 140, 230]]},
    ]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "masks_png"}]})
    answer = http(front, "POST", "/v2/models/sam2/infer", body)
    assert answer.status == 200
    (output,) = answer.json()["outputs"]
    assert output["parameters"] == {"encoding": "base64"}
    assert output["data"][0].startswith("iVBORw0KGgo")


INNER = (
    "sam2_decoder",
    "sam2_encoder",
    "sam2_prompt",
    "sam2_postprocess",
    "sam2_preprocess",
    "none",
)


@pytest.mark.parametrize("model", INNER)
def test_inner_models_do_not_exist(front, stub, model):
    paths = (f"/v2/models/{model}", f"/v2/models/{model}/ready", f"/v2/models/{model}/versions/1")
    for path in paths:
        assert http(front, "GET", path).status == 404
    answer = http(front, "POST", f"/v2/models/{model}/infer", "{}")
    assert answer.status == 404
    assert "expected one of sam2, sam2_embedding" in answer.json()["error"]
    for call in (
        lambda: stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=model)),
        lambda: stub.ModelReady(service_pb2.ModelReadyRequest(name=model)),
        lambda: stub.ModelInfer(service_pb2.ModelInferRequest(model_name=model)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_nothing_administrative_is_there(front, stub):
    for path in (
        "/v2/repository/index",
        "/v2/models/sam2/config",
        "/v2/models/sam2/stats",
        "/v2/systemsharedmemory/status",
        "/v2/trace/setting",
        "/v2/logging",
        "/metrics",
        "/v2/models/sam2/generate",
    ):
        for method in ("GET", "POST"):
            answer = http(front, method, path)
            assert answer.status in (404, 405), path
            assert answer.json()["error"]
    for call, request in (
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
        ("ModelConfig", service_pb2.ModelConfigRequest(name="sam2")),
        ("ModelStatistics", service_pb2.ModelStatisticsRequest()),
        ("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()),
        ("TraceSetting", service_pb2.TraceSettingRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, call)(request)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", b"\x0a\x05sam", b"\x0a\x01\xff", b"\x2a\0" * 50_000]
)
def test_garbage_is_the_clients_mistake(front, data):
    with grpc.insecure_channel(front.grpc_url) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            infer(data, timeout=PATIENCE_SECONDS)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        good = click_request(b"unknown").SerializeToString()
        answers = [
            service_pb2.ModelStreamInferResponse.FromString(answer)
            for answer in stream(iter([data, good]), timeout=PATIENCE_SECONDS)
        ]
    assert [answer.infer_response.id for answer in answers] == ["", "7"]
    assert answers[0].error_message == refused.value.details()
    assert "unknown" in answers[1].error_message


def test_gzip_both_ways_over_grpc(front):
    with grpc.insecure_channel(front.grpc_url, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = click_request(b"gzip")
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        content = photograph("coins.png")
        request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
        assert stub.ModelInfer(request, timeout=PATIENCE_SECONDS).outputs


def test_a_message_beyond_the_limit(front):
    request = click_request()
    request.raw_input_contents[0] = bytes(81_000_000)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(front.grpc_url, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, timeout=PATIENCE_SECONDS)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = http(front, "POST", "/v2/models/sam2/infer", bytes(81_000_000))
    assert answer.status == 413


def test_streams_answer_in_order_with_ids(front):
    RawClient(front, "grpc").infer(
        image=bytes_tensor(photograph("coins.png")), image_id=bytes_tensor(b"s"), **click(9, 9)
    )
    answers = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(front.grpc_url)
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for number in range(40):
            # Every fourth asks for an image that nobody has.
            name = b"nobody" if number % 4 == 3 else b"s"
            inputs = []
            tensors = {"image_id": bytes_tensor(name), **click(60 + number, 50)}
            for tensor_name, values in tensors.items():
                kind = {"O": "BYTES", "f": "FP32", "i": "INT32"}[values.dtype.kind]
                tensor = tritonclient.grpc.InferInput(tensor_name, list(values.shape), kind)
                inputs.append(tensor.set_data_from_numpy(values))
            client.async_stream_infer("sam2", inputs, request_id=str(number))
        for number in range(40):
            result, error = answers.get(timeout=PATIENCE_SECONDS)
            if number % 4 == 3:
                assert isinstance(error, InferenceServerException)
                assert "nobody" in str(error)
            else:
                assert error is None
                assert result.get_response().id == str(number)
                assert result.as_numpy("masks").ndim == 4
    finally:
        client.stop_stream()
    # tritonclient hides the ids of errors; they are there.
    with grpc.insecure_channel(front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        wrong = click_request(b"nobody")
        (answer,) = stub.ModelStreamInfer(iter([wrong]), timeout=PATIENCE_SECONDS)
    assert (answer.infer_response.id, "nobody" in answer.error_message) == ("7", True)


def test_an_idle_stream_waits_and_a_slow_reader_is_waited_for(front, stub):
    """Thirty large answers to somebody who does not read them stay with the sender's requests."""
    RawClient(front, "grpc").infer(
        image=bytes_tensor(photograph("coins.png")), image_id=bytes_tensor(b"s"), **click(9, 9)
    )
    go = threading.Event()

    def requests():
        yield click_request(b"s")
        go.wait(PATIENCE_SECONDS)
        for _ in range(30):
            request = click_request(b"s")
            del request.outputs[:]
            yield request

    answers = stub.ModelStreamInfer(requests(), timeout=PATIENCE_SECONDS)
    assert next(answers).infer_response.id == "7"
    assert RawClient(front, "http").infer(image_id=bytes_tensor(b"s"), **click(60, 50))
    go.set()
    # Meanwhile others are served.
    assert RawClient(front, "grpc").infer(image_id=bytes_tensor(b"s"), **click(60, 50))
    assert sum(not answer.error_message for answer in answers) == 30


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_key_is_needed_and_ends_at_the_front(keyed_front, protocol):
    url = keyed_front.grpc_url if protocol == "grpc" else f"http://{keyed_front.http_url}"
    for headers in ({}, {"x-api-key": ALICE.upper()}, {"authorization": f"Basic {ALICE}"}):
        with SAM2TritonClient(url, headers=headers) as client, pytest.raises(AccessDeniedError):
            client.segment(PHOTO, [[109, 199]], [1])
    for headers in ({"x-api-key": ALICE}, {"authorization": f"Bearer {BOB}"}):
        with SAM2TritonClient(url, headers=headers) as client:
            assert client.segment(PHOTO, [[109, 199]], [1]).masks.any()
    assert ALICE not in keyed_front.output()


def test_a_key_is_asked_for_before_the_message_is_read(keyed_front):
    """A caller without a key, who has sent nothing yet, has its answer."""
    never = threading.Event()
    with grpc.insecure_channel(keyed_front.grpc_url) as channel:
        for method in ("ModelInfer", "ModelStreamInfer"):
            stream = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as refused:
                next(stream(iter(never.wait, True), timeout=PATIENCE_SECONDS))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    never.set()


def test_rates_count_the_messages_of_streams(server, tmp_path):
    from tests.front.conftest import written_keys
    from tests.running_front import RunningFront

    keys = written_keys(tmp_path, f"alice {ALICE}\nbob {BOB}\n")
    options = ("--api-keys", keys, "--requests-per-second", "0.1", "--burst", "5")
    with RunningFront(server.grpc_url, tmp_path, *options) as front:
        with grpc.insecure_channel(front.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            messages = iter([click_request(b"nobody") for _ in range(12)])
            answers = list(stub.ModelStreamInfer(messages, metadata=[("x-api-key", ALICE)]))
        limited = ["requests_per_second" in answer.error_message for answer in answers]
        assert limited[:5] == [False] * 5
        assert limited[-1]
        assert {answer.infer_response.id for answer in answers} == {"7"}
        answer = http(front, "POST", "/v2/models/sam2/infer", "{}", x_api_key=ALICE)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert http(front, "POST", "/v2/models/sam2/infer", "{}", x_api_key=BOB).status == 400


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("", {}, 400),
        ("{", {}, 400),
        ("[]", {}, 400),
        ('{"inputs":[]}', {}, 400),
        ("{}", {"content_encoding": "br"}, 415),
        (gzip.compress(b"{}"), {"content_encoding": "gzip"}, 400),
        ("{}", {"inference_header_content_length": "99"}, 400),
        ("{}", {"inference_header_content_length": "x"}, 400),
        ("{}", {"inference_header_content_length": "-1"}, 400),
        ("{}", {"inference_header_content_length": "9" * 30}, 400),
    ],
)
def test_http_mistakes(front, body, headers, status):
    answer = http(front, "POST", "/v2/models/sam2/infer", body, **headers)
    assert answer.status == status
    assert answer.json()["error"]


def test_health_and_logs_and_metrics(keyed_front):
    assert http(keyed_front, "GET", "/v2/health/live").status == 200
    assert http(keyed_front, "GET", "/v2/health/ready").status == 200
    assert http(keyed_front, "GET", "/v2").status == 401
    assert http(keyed_front, "GET", "/v2", x_api_key=BOB).json()["name"] == "triton-sam2"
    with pytest.raises(RefusedError):
        RawClient(keyed_front, "grpc").infer(image_id=bytes_tensor(b"secret-name"), **click(1, 1))
    name = "secret-name"
    with SAM2TritonClient(keyed_front.grpc_url, headers={"x-api-key": BOB}) as client:
        client.set_image(PHOTO, image_id=name)
    with urllib3.PoolManager() as pool:
        metrics = pool.request("GET", keyed_front.metrics_url).data.decode()
    assert 'tenant="guests"' in metrics
    assert "sam2_front_seconds_bucket" in metrics
    wait_until(
        lambda: any(
            line.get("client") == "bob" and line["call"] == "infer sam2_embedding"
            for line in log_lines(keyed_front)
        ),
        "a line in the log",
    )
    assert name not in keyed_front.output()
    assert name not in metrics
    assert BOB not in metrics
