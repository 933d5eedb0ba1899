"""Requests that are nearly right, from seeds, on both protocols, through the front.

    just fuzz-front --requests 10000 --seed 1

Each seed is one request: a good one of a few kinds with some of its parts replaced. No answer may be
INTERNAL, UNKNOWN or 500, no process may die, and good requests in between are right, bit for bit. Where the
front has keys, the seeds are two tenants', and a third one's image, of the same name, stays what it was.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import urllib3
from triton_sam2 import SAM2TritonClient
from tritonclient.grpc import service_pb2

from export.repository import assemble_repository
from tests.front.samples import strings
from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_front import RunningFront
from tests.running_server import ROOT, RunningServer

CLIENTS_MISTAKES = {
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"),
}
# What a server that has much to do may say; not a mistake, and not a fault.
BUSY = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
HTTP_ALLOWED = {200, 400, 404, 405, 408, 409, 411, 413, 415, 429, 431, 503, 504}
SIDES = (-(2**63), -5, -1, 0, 1, 2, 3, 255, 2**31, 2**32, 2**61, 2**62, 2**63 - 1)
NUMBERS = (0.0, -1.0, 1e30, float("nan"), float("inf"), 109.0, 0.5, -0.0)
TEXTS = (b"", b"coins", b"\0", b"\xff\xfe", "é".encode(), b"x" * 300, b"../../etc/passwd", b"%s%n")
DATATYPES = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "", "STRING")
NAMES = ("image", "image_id", "point_coords", "point_labels", "box", "mask_input", "mask_format")
OUTPUTS = (
    "masks",
    "mask_logits",
    "masks_rle",
    "masks_png",
    "iou_predictions",
    "cached_image_id",
    "x",
)
PARAMETERS = (
    "classification",
    "sequence_id",
    "shared_memory_region",
    "priority",
    "sam2_tenant",
    "x",
)
MODELS = (
    *("sam2", "sam2", "sam2", "sam2_embedding", "sam2_automask", "sam2_video"),
    *("sam2_decoder", "sam2_prompt", "", "x" * 1000),
)


@dataclass
class Tensor:
    """One input, before it is written down in either protocol."""

    name: str
    datatype: str
    shape: list[int]
    raw: bytes
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Request:
    """One request, before it is written down in either protocol."""

    model: str
    inputs: list[Tensor]
    outputs: list[tuple[str, dict[str, Any]]]
    id: str = "fuzz"
    parameters: dict[str, Any] = field(default_factory=dict)


def good(dice: random.Random) -> Request:
    """One of the requests that clients send."""
    point = np.array([[[dice.uniform(0, 300), dice.uniform(0, 300)]]], np.float32).tobytes()
    clicks = [
        Tensor("point_coords", "FP32", [1, 1, 2], point),
        Tensor("point_labels", "INT32", [1, 1], struct.pack("<i", dice.choice([0, 1]))),
    ]
    box = [Tensor("box", "FP32", [1, 4], np.array([80, 170, 140, 230], np.float32).tobytes())]
    known = Tensor("image_id", "BYTES", [1], strings(b"coins"))
    image = Tensor("image", "BYTES", [1], strings(photograph("coins.png")))
    few = Tensor("parameters", "BYTES", [1], strings(b'{"points_per_side": 1}'))
    session = Tensor("session_id", "BYTES", [1], strings(b"clip"))
    commands = (b"start", b"status", b"track", b"reset", b"close")
    command = Tensor("command", "BYTES", [1], strings(dice.choice(commands)))
    rle = Tensor("mask_format", "BYTES", [1], strings(b"rle"))
    wanted: list[tuple[str, dict[str, Any]]] = [("iou_predictions", {}), ("masks_rle", {})]
    return dice.choice(
        [
            Request("sam2", [known, *clicks, rle], wanted),
            Request("sam2", [known, *box, rle], wanted),
            Request("sam2", [image, known, *clicks], [("iou_predictions", {})]),
            Request("sam2_embedding", [known], [("cached_image_id", {}), ("original_hw", {})]),
            Request("sam2_automask", [known, few], [("area", {}), ("masks_rle", {})]),
            Request("sam2_video", [session, command], [("object_ids", {}), ("status", {})]),
        ]
    )


def mutate(request: Request, dice: random.Random) -> None:
    """Replaces one part of a request."""
    tensor = dice.choice(request.inputs) if request.inputs else Tensor("x", "FP32", [1], bytes(4))

    def change_raw() -> None:
        cut = dice.randrange(len(tensor.raw) + 1)
        tensor.raw = dice.choice(
            [
                tensor.raw[:cut],
                tensor.raw + dice.randbytes(dice.randrange(9)),
                dice.randbytes(dice.randrange(200)),
                np.array(dice.choices(NUMBERS, k=2), np.float32).tobytes(),
                strings(*dice.choices(TEXTS, k=dice.randrange(4))),
                b"\xff\xff\xff\xff" + tensor.raw[4:],
                bytes(dice.randrange(2000)),
            ]
        )

    def change_shape() -> None:
        tensor.shape = dice.choices(SIDES, k=dice.randrange(6))

    def change_side() -> None:
        if tensor.shape:
            tensor.shape[dice.randrange(len(tensor.shape))] = dice.choice(SIDES)

    def rename() -> None:
        tensor.name = dice.choice([*NAMES, *NAMES, "retired_fingerprint", "x", ""])

    def retype() -> None:
        tensor.datatype = dice.choice(DATATYPES)

    def add_output() -> None:
        parameters = {dice.choice(PARAMETERS): dice.choice([0, 1, -1, 2**40, True, "x"])}
        request.outputs.append((dice.choice(OUTPUTS), dice.choice([{}, parameters])))

    def add_parameter() -> None:
        place = dice.choice([request.parameters, tensor.parameters])
        place[dice.choice(PARAMETERS)] = dice.choice([0, 1, -1, 2**40, True, "x"])

    def change_model() -> None:
        request.model = dice.choice(MODELS)

    def change_id() -> None:
        request.id = dice.choice(["", "x" * 2000, "é", "\0"])

    def drop() -> None:
        if request.inputs:
            request.inputs.remove(dice.choice(request.inputs))

    def double() -> None:
        request.inputs.append(Tensor(**vars(tensor)))

    changes: list[Callable[[], None]] = [
        *(change_raw, change_raw, change_shape, change_side, change_side, rename, retype),
        *(add_output, add_parameter, change_model, change_id, drop, double),
    ]
    dice.choice(changes)()


def as_message(request: Request, dice: random.Random) -> bytes:
    """The request for gRPC; now and then with broken bytes."""
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.id)
    for tensor in request.inputs:
        added = message.inputs.add(name=tensor.name, datatype=tensor.datatype)
        added.shape.extend(tensor.shape)
        _set_parameters(added.parameters, tensor.parameters)
        if dice.random() < 0.02:
            added.contents.int_contents.extend([1, 2])
        message.raw_input_contents.append(tensor.raw)
    for name, parameters in request.outputs:
        _set_parameters(message.outputs.add(name=name).parameters, parameters)
    _set_parameters(message.parameters, request.parameters)
    return _broken(message.SerializeToString(), dice)


def as_body(request: Request, dice: random.Random) -> tuple[bytes, dict[str, str]]:
    """The request for HTTP: JSON or bytes behind it; now and then broken, or packed."""
    inputs, binary = [], b""
    for tensor in request.inputs:
        described: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": dict(tensor.parameters),
        }
        if dice.random() < 0.7:
            size = len(tensor.raw) if dice.random() < 0.95 else dice.choice(SIDES)
            described["parameters"]["binary_data_size"] = size
            binary += tensor.raw
        else:
            described["data"] = dice.choice(
                [[1], [109, 199], ["coins"], [[1, "x"]], None, {}, [[[]]], [1e300], [2**64], [True]]
            )
        inputs.append(described)
    document = {
        "id": request.id,
        "inputs": inputs,
        "parameters": request.parameters,
        "outputs": [{"name": name, "parameters": given} for name, given in request.outputs],
    }
    if dice.random() < 0.05:
        document[dice.choice(list(document))] = dice.choice([None, 1, "x", [], {}, [[]] * 50])
    header = _broken(json.dumps(document).encode(), dice)
    length = len(header) if dice.random() < 0.97 else dice.choice([0, 1, 10**9, len(header) + 1])
    headers = {"Inference-Header-Content-Length": str(length)}
    body = header + binary
    if dice.random() < 0.1:
        headers["Content-Encoding"] = "gzip"
        body = _broken(gzip.compress(body, 1), dice)
    return body, headers


class Fuzzer:
    """Sends requests by seed and keeps what is wrong with the answers."""

    def __init__(
        self,
        server: RunningServer,
        front: RunningFront,
        keys: tuple[str, ...] = (),
        watchers_key: str = "",
    ) -> None:
        """`keys` are those that requests come with by turns, `watchers_key` is the third tenant's."""
        self._keys = keys
        self._watchers = {"x-api-key": watchers_key} if watchers_key else {}
        self._server = server
        self._front = front
        self._pid = server.server_pid
        self._pool = urllib3.PoolManager(retries=False, timeout=120)
        self._stub = grpc.insecure_channel(front.grpc_url).unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        tensors = {"image": bytes_tensor(photograph("coins.png")), **click(109, 199)}
        self._expected = RawClient(server, "grpc").infer(**tensors)
        self._good_tensors = tensors
        if watchers_key:
            with self._watcher() as client:
                client.set_image(photograph("coins.png"), image_id="coins")

    def _watcher(self) -> SAM2TritonClient:
        return SAM2TritonClient(self._front.grpc_url, headers=self._watchers)

    def send(self, seed: int) -> None:
        """One request, and a look at its answer."""
        dice = random.Random(seed)
        request = good(dice)
        for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 5])):
            mutate(request, dice)
        key = self._keys[seed // 2 % len(self._keys)] if self._keys else ""
        if seed % 2:
            status, message = self._over_grpc(as_message(request, dice), key)
            is_fault = status not in {"OK", *CLIENTS_MISTAKES, *BUSY}
        else:
            body, headers = as_body(request, dice)
            status, message = self._over_http(request.model, body, headers | {"X-API-Key": key})
            is_fault = int(status) not in HTTP_ALLOWED
        self.statuses[status] += 1
        if is_fault or "Traceback" in message or ".py" in message:
            self.faults.append(f"seed {seed}: {status} {message[:300]}")

    def check_good(self) -> None:
        """A good request on both protocols is right, and the server is the one that it was."""
        if self._server.server_pid != self._pid or self._server.state["restarts"]:
            self.faults.append(f"the server was restarted: {self._server.state}")
            self._pid = self._server.server_pid
        if self._watchers:
            with self._watcher() as client:
                client.set_image(image_id="coins")
                masks = client.predict([[109.0, 199.0]], [1]).masks
            if not np.array_equal(masks, self._expected["masks"]):
                self.faults.append("the third tenant's image is not what it was")
            return
        for protocol in ("grpc", "http"):
            found = RawClient(self._front, protocol).infer(**self._good_tensors)
            for name, tensor in self._expected.items():
                if not np.array_equal(found[name], tensor):
                    self.faults.append(f"{protocol}: {name} is not what it was")

    def _over_grpc(self, message: bytes, key: str) -> tuple[str, str]:
        try:
            self._stub(message, timeout=120, metadata=[("x-api-key", key)])
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def _over_http(self, model: str, body: bytes, headers: dict[str, str]) -> tuple[str, str]:
        path = f"/v2/models/{model}/infer"
        url = f"http://{self._front.http_url}{path}"
        answer = self._pool.request("POST", url, body=body, headers=headers)
        return str(answer.status), "" if answer.status == 200 else answer.data.decode()


def _broken(data: bytes, dice: random.Random) -> bytes:
    """Mostly the bytes themselves; at times with some of them changed, cut off or doubled."""
    if dice.random() < 0.9 or not data:
        return data
    at = dice.randrange(len(data))
    return dice.choice(
        [
            data[:at],
            data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :],
            data[:at] + dice.randbytes(4) + data[at:],
            data[:at] + data[at // 2 :],
        ]
    )


def _set_parameters(target: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(target[name], kind, value)


KEYS = tuple(f"fuzz-key-of-{name}-0123456789abcdef" for name in ("bob", "carol", "alice"))


def with_keys(folder: Path) -> tuple[str, ...]:
    """The front's options for three tenants, at rates that nobody reaches."""
    file = folder / "api_keys"
    file.write_text("".join(f"tenant-{number} {key}\n" for number, key in enumerate(KEYS)))
    return ("--api-keys", str(file), "--requests-per-second", "100000", "--burst", "1000000")


def main() -> None:
    """The recipe: a server, a front, and as many requests as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assemble_repository(ROOT / "export/demo_model/onnx", folder / "repository")
        with (
            RunningServer(folder / "repository", folder / "server", "--no-probe") as server,
            RunningFront(server.grpc_url, folder / "front", *with_keys(folder)) as front,
        ):
            fuzzer = Fuzzer(server, front, KEYS[:2], KEYS[2])
            for number in range(options.requests):
                fuzzer.send(options.seed + number)
                if number % 200 == 199:
                    fuzzer.check_good()
                    print(
                        number + 1, dict(fuzzer.statuses), len(fuzzer.faults), "faults", flush=True
                    )
    for fault in fuzzer.faults[:50]:
        print(fault)
    raise SystemExit(1 if fuzzer.faults else 0)


if __name__ == "__main__":
    main()
