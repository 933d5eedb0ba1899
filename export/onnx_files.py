"""What an exported ONNX file says about itself: tensors and metadata. Needs no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from export.errors import RepositoryError

ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
VIDEO_FILES = (
    "memory_attention.onnx",
    "video_decoder.onnx",
    "memory_encoder.onnx",
    "mask_prompt.onnx",
)

_NEEDED = ("fingerprint", "image_size", "embed_channels")
_NEEDED_FOR_VIDEO = (*_NEEDED, "memory_fingerprint", "memory_channels")
_TRITON_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
}


@dataclass(frozen=True)
class OnnxFile:
    """Tensors as Triton names them: data type and dims, -1 where dynamic."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def image_size(self) -> int:
        """Edge length, in pixels, of the images the graphs are for."""
        return int(self.metadata["image_size"])

    @property
    def embed_channels(self) -> int:
        """Width of the image embeddings."""
        return int(self.metadata["embed_channels"])

    @property
    def memory_channels(self) -> int:
        """Width of the memories; only the video graphs' files know it."""
        return int(self.metadata["memory_channels"])


def read_onnx_file(path: Path) -> OnnxFile:
    """Read metadata and tensors.

    Raises:
        RepositoryError: no such file, no ONNX file, or not one of this exporter's.
    """
    if not path.is_file():
        raise RepositoryError(
            f"{path}: no such file. Export a checkpoint first (python -m export --help)"
        )
    options = ort.SessionOptions()
    # Nothing is computed here.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no narrower base class
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RepositoryError(f"{path}: not a readable ONNX file ({first_line})") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    needed = _NEEDED_FOR_VIDEO if path.name in VIDEO_FILES else _NEEDED
    missing = [name for name in needed if not metadata.get(name, "").lstrip("-").isdigit()]
    if missing:
        raise RepositoryError(
            f"{path}: expected a file of this exporter, with {', '.join(needed)} in its metadata; "
            f"missing: {', '.join(missing)}"
        )
    tensors = {
        tensor.name: (
            _TRITON_TYPES.get(tensor.type, tensor.type),
            tuple(dim if isinstance(dim, int) else -1 for dim in tensor.shape),
        )
        for tensor in (*session.get_inputs(), *session.get_outputs())
    }
    return OnnxFile(path, metadata, tensors)
