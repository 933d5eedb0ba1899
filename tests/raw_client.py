"""Triton's own clients with nothing of ours around them: what any language can send, and what it gets."""

from __future__ import annotations

import json

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HTTP_STATUSES = {"400": "INVALID_ARGUMENT", "404": "NOT_FOUND", "503": "UNAVAILABLE"}


class RefusedError(Exception):
    """The server's error: `status` by its gRPC name, `message` in its own words."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class RawClient:
    """One call over gRPC or HTTP; tensors by name in and out."""

    def __init__(self, server, protocol: str) -> None:
        self.protocol = protocol
        if protocol == "grpc":
            self._module = tritonclient.grpc
            self._client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        else:
            self._module = tritonclient.http
            self._client = tritonclient.http.InferenceServerClient(
                server.http_url, network_timeout=120
            )

    def infer(
        self,
        model: str = "sam2",
        outputs: list[str] | None = None,
        request_parameters: dict | None = None,
        **tensors: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Raises RefusedError where the server answers with an error."""
        inputs = []
        for name, values in tensors.items():
            tensor = self._module.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
            tensor.set_data_from_numpy(values)
            inputs.append(tensor)
        wanted = [self._module.InferRequestedOutput(name) for name in outputs or ()] or None
        try:
            result = self._client.infer(
                model, inputs, outputs=wanted, parameters=request_parameters
            )
        except InferenceServerException as error:
            status = str(error.status()).removeprefix("StatusCode.")
            raise RefusedError(HTTP_STATUSES.get(status, status), error.message()) from error
        response = result.get_response()
        listed = response.outputs if self.protocol == "grpc" else response["outputs"]
        names = [o.name if self.protocol == "grpc" else o["name"] for o in listed]
        return {name: result.as_numpy(name) for name in names}

    def executions(self, model: str) -> int:
        """How often a model has been executed, by Triton's own statistics."""
        if self.protocol == "grpc":
            statistics = self._client.get_inference_statistics(model, as_json=True)
        else:
            statistics = self._client.get_inference_statistics(model)
        return int(statistics["model_stats"][0].get("execution_count", 0))


def bytes_tensor(*values: bytes) -> np.ndarray:
    """A BYTES tensor of shape [len(values)]."""
    tensor = np.empty(len(values), np.object_)
    tensor[:] = values
    return tensor


def click(x: float, y: float, label: int = 1) -> dict[str, np.ndarray]:
    """One object, one point."""
    return {
        "point_coords": np.array([[[x, y]]], np.float32),
        "point_labels": np.array([[label]], np.int32),
    }


def large_form() -> tuple[bytes, dict[str, str]]:
    """Body and headers of 60 MB that are no image, sent as curl does unless told otherwise: as a form."""
    image = b"no image" * 7_500_000  # near the limit of an image file
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(image) + 4}
    box = {"name": "box", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 9, 9]}
    header = json.dumps({"inputs": [tensor, box]}).encode()
    return header + len(image).to_bytes(4, "little") + image, {
        "Content-Type": "application/x-www-form-urlencoded",
        "Inference-Header-Content-Length": str(len(header)),
    }
