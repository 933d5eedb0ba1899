"""What the client sends and asks for, against the models' own declarations."""

import json

import numpy as np
import pytest
from generator_parameters import NAMES
from google.protobuf import text_format
from triton_sam2 import GeneratorParameters, SAM2TritonClient, SAM2VideoClient
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2.cli._everything import everything
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype
from video_commands import TENSORS

from tests.running_server import ROOT

PIXELS = np.zeros((4, 6, 3), np.uint8)
LOW_RES = np.zeros((256, 256), np.float32)
EVERY_FORMAT = ("bitmap", "logits", "rle", "png")


STATUS = json.dumps({"objects": {"1": {"conditioning_frames": [0]}}}).encode()


class RecordingTransport:
    """Answers every call with a fitting small answer, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[InferRequest] = []

    def infer(self, request: InferRequest) -> Tensors:
        self.requests.append(request)
        answers = {
            "cached_image_id": np.array([b"sha256:0"], np.object_),
            "original_hw": np.array([4, 6], np.int32),
            "object_ids": np.array([1], np.int64),
            "frame_index": request.inputs.get("frame_index", np.array([-1], np.int32)),
            "memory_complete": np.array([True]),
            "status": np.array([STATUS], np.object_),
        }
        return {name: answers.get(name, np.ones((1, 1), np.float32)) for name in request.outputs}

    def close(self) -> None:
        """Nothing to close."""


def requests_of_every_kind() -> list[InferRequest]:
    transport = RecordingTransport()
    client = SAM2TritonClient("localhost:8001", _transport=transport)
    client.set_image(PIXELS, image_id="a name")
    client.set_image(image_id="a name")
    client.predict([[1, 2]], [1], formats=EVERY_FORMAT, low_res_masks=True)
    client.predict([[1, 2]], [1], [0, 0, 3, 3], LOW_RES, multimask_output=True, formats=())
    client.segment(PIXELS, box=[0, 0, 3, 3])
    client.generate(PIXELS, image_id="a name")
    client.generate(points_per_side=8, formats=("rle", "bitmap", "png"))
    client.forget("a name")
    return transport.requests + video_requests_of_every_kind()


def video_requests_of_every_kind() -> list[InferRequest]:
    transport = RecordingTransport()
    client = SAM2VideoClient("http://localhost:8000", _transport=transport)
    state = client.init_state(
        [PIXELS, PIXELS],
        add_all_frames_to_correct_as_cond=False,
        non_overlap_masks=True,
        max_cond_frames_in_attn=3,
        fill_hole_area=0,
    )
    client.add_new_points_or_box(state, 0, 1, [[1, 2]], [1], box=[0, 0, 3, 3], low_res_masks=True)
    client.add_new_mask(state, 1, 1, PIXELS[:, :, 0], formats=EVERY_FORMAT)
    list(client.propagate_in_video(state, formats=()))
    list(client.propagate_in_video(state, 1, reverse=True))
    client.clear_all_prompts_in_frame(state, 0, 1)
    client.remove_object(state, 1)
    client.reset_state(state)
    client.close_state(state)
    client.close_state(client.init_state(b"a video file", upload=True))
    return transport.requests


@pytest.mark.parametrize(
    "request_", requests_of_every_kind(), ids=lambda r: f"{r.model}-{len(r.inputs)}"
)
def test_every_tensor_is_declared_with_its_type_and_rank(request_):
    config = text_format.Parse(
        (ROOT / "models" / request_.model / "config.pbtxt").read_text(),
        model_config_pb2.ModelConfig(),
    )
    declared = {tensor.name: tensor for tensor in config.input}
    for name, values in request_.inputs.items():
        kind = model_config_pb2.DataType.Name(declared[name].data_type)
        expected = kind.removeprefix("TYPE_").replace("STRING", "BYTES")
        assert np_to_triton_dtype(values.dtype) == expected, name
        fits = [d in (-1, s) for d, s in zip(declared[name].dims, values.shape, strict=True)]
        assert all(fits), (name, values.shape)
    assert set(request_.outputs) <= {tensor.name for tensor in config.output}


@pytest.mark.parametrize("model", ["sam2", "sam2_video"])
def test_together_they_use_every_public_input(model):
    requests = [request for request in requests_of_every_kind() if request.model == model]
    used = {name for request in requests for name in request.inputs}
    config = text_format.Parse(
        (ROOT / f"models/{model}/config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    assert {tensor.name for tensor in config.input} <= used


def test_video_commands_are_all_used():
    commands = {r.inputs["command"][0].decode() for r in video_requests_of_every_kind()}
    assert commands == set(TENSORS)


def test_the_generators_parameters_are_the_servers():
    assert set(GeneratorParameters.__annotations__) == set(NAMES)


def test_every_parameter_is_named_where_it_can_be_set():
    for documented in (SAM2TritonClient.generate.__doc__, everything.__doc__):
        for name in NAMES:
            assert name in documented
