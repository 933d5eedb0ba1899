"""Paintera's side of the wire, from its contract: pictures as it makes them, lanes of long-lived streams,
requests as protobuf; and a repository for it that is small.
"""

from __future__ import annotations

import queue
import shutil
import threading
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from tritonclient.grpc import service_pb2

from tests.running_server import ROOT

MODEL = "sam2.1_large_encoder"
OUTPUTS = ("image_embed", "high_res_feats_0", "high_res_feats_1")
SERVICE = "/inference.GRPCInferenceService/"
PATIENCE_SECONDS = 120
LARGEST_ANSWER = 32 * 2**20
ONNX = ROOT / "export/demo_model/onnx"


def write_small_client_files(folder: Path) -> None:
    """The small model's graphs and what the exporter writes beside those of `large`, for the small model."""
    from export.checkpoint import load_checkpoint
    from export.client_graphs import write_client_features, write_client_pixels

    shutil.copytree(ONNX, folder, dirs_exist_ok=True)
    model = load_checkpoint(str(ROOT / "export/demo_model/weights")).model
    properties = onnx.load(ONNX / "encoder.onnx").metadata_props
    metadata = {each.key: each.value for each in properties} | {"size": "demo"}
    embedding = model.no_memory_embedding.detach().numpy()
    write_client_pixels(folder / "client_pixels.onnx", 256, metadata)
    write_client_features(folder / "client_features.onnx", 256, embedding, metadata)


def small_repository(folder: Path) -> Path:
    """A repository as an export of `large` makes it, round the small model.

    Of the other models only those that these stand on. The rule that other sizes have no such models is in
    force everywhere but in here, where the small model takes large's place for as long as this runs.
    """
    from export import client_models
    from export.repository import assemble_repository

    write_small_client_files(folder / "onnx")
    with pytest.MonkeyPatch.context() as patched:
        small = client_models.DecoderInClients("demo", 256)
        patched.setattr(client_models, "DECODER", small)
        assemble_repository(folder / "onnx", folder / "repository", video=False)
    # What is not asked here need not be loaded.
    wanted = {*client_models.CLIENT_MODELS, "sam2_encoder", "sam2_preprocess"}
    for model in (folder / "repository").iterdir():
        if model.name not in wanted:
            shutil.rmtree(model)
    return folder / "repository"


def letterboxed(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] ► FP32 [1, 3, side, side] from 0 to 1: the longest edge scaled to `side` by the nearest
    neighbour, the other one in proportion, cut to whole pixels; at the top left, the rest black."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    new_height, new_width = int(height * scale), int(width * scale)
    rows = np.minimum((np.arange(new_height) + 0.5) / scale, height - 1).astype(int)
    columns = np.minimum((np.arange(new_width) + 0.5) / scale, width - 1).astype(int)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[:new_height, :new_width] = pixels[rows][:, columns]
    return canvas.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)


def request_for(image: np.ndarray, request_id: str, model: str = MODEL) -> Any:
    """One input with raw contents, a priority as int64, no list of outputs."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["priority"].int64_param = 5
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    request.raw_input_contents.append(image.astype("<f4").tobytes())
    return request


def features_of(response: Any) -> dict[str, np.ndarray]:
    """Raw FP32 tensors in the order of `outputs`, by name; what this client cannot read fails."""
    found = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        assert output.datatype == "FP32"
        found[output.name] = np.frombuffer(raw, "<f4").reshape(output.shape)
    return found


class Lane:
    """A channel of its own with one stream that stays open; use it in a `with`."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", LARGEST_ANSWER),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ],
            compression=grpc.Compression.Gzip,
        )
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: dict[str, Any] = {}
        self._news = threading.Condition()
        self.error: grpc.RpcError | None = None

    def __enter__(self) -> Lane:
        call = self._channel.stream_stream(
            f"{SERVICE}ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        self._stream = call(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._stream.cancel()
        self._reader.join()
        self._channel.close()

    def is_ready(self, model: str = MODEL) -> bool:
        """As Paintera asks: unary."""
        call = self._channel.unary_unary(
            f"{SERVICE}ModelReady",
            request_serializer=service_pb2.ModelReadyRequest.SerializeToString,
            response_deserializer=service_pb2.ModelReadyResponse.FromString,
        )
        return call(service_pb2.ModelReadyRequest(name=model), timeout=PATIENCE_SECONDS).ready

    def send(self, image: np.ndarray, model: str = MODEL) -> str:
        """Sends a request and returns its id, without waiting."""
        request_id = str(uuid.uuid4())
        self._requests.put(request_for(image, request_id, model))
        return request_id

    def answer(self, request_id: str) -> Any:
        """The ModelStreamInferResponse of that id; the stream's error, where it ended before."""
        with self._news:
            arrived = self._news.wait_for(
                lambda: request_id in self._answers or self.error, PATIENCE_SECONDS
            )
            assert arrived, "no answer of this id"
            if request_id not in self._answers:
                raise self.error
            return self._answers.pop(request_id)

    def encode(self, image: np.ndarray, model: str = MODEL) -> dict[str, np.ndarray]:
        """Features of a picture."""
        response = self.answer(self.send(image, model))
        assert response.error_message == ""
        return features_of(response.infer_response)

    def _read(self) -> None:
        try:
            for response in self._stream:
                with self._news:
                    self._answers[response.infer_response.id] = response
                    self._news.notify_all()
        except grpc.RpcError as error:
            with self._news:
                self.error = error
                self._news.notify_all()
