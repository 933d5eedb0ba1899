"""The written video files: what Triton will see, and that they compute what PyTorch computes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import Sam2Model, Sam2VideoModel

from export.errors import VerificationError
from export.graphs import VideoGraphs, fingerprint_of
from export.onnx_export import IR_VERSION, OPSET
from export.onnx_files import read_onnx_file
from export.precision import with_precision
from export.repository import MODELS_DIR, check_against_config, resized_config
from export.verify import TOLERANCES, open_session
from export.verify_video import verify_video
from export.video_export import VideoFiles
from tests.export.conftest import (
    CHANNELS,
    IMAGE_SIZE,
    MEMORY_CHANNELS,
    micro_video_model,
    write_video_files,
)
from tests.export.test_video_graphs import Remembered

SIDE, LOW = IMAGE_SIZE // 16, IMAGE_SIZE // 4


@pytest.mark.parametrize("name", VideoFiles._fields)
def test_tensors_are_those_of_the_configuration(
    video_files: VideoFiles, tmp_path: Path, name: str
) -> None:
    """Names, dtypes and dims, as Triton's C++ backend compares them."""
    text = (MODELS_DIR / f"sam2_{name}/config.pbtxt").read_text()
    config = tmp_path / f"sam2_{name}" / "config.pbtxt"
    config.parent.mkdir()
    sizes = {"S": IMAGE_SIZE, "C": CHANNELS, "D": MEMORY_CHANNELS}
    config.write_text(resized_config(text, sizes))
    check_against_config(config, read_onnx_file(getattr(video_files, name)))


def test_versions_are_such_that_tritons_onnx_runtime_reads_them(video_files: VideoFiles) -> None:
    for file in video_files:
        model = onnx.load(file)
        assert model.ir_version == IR_VERSION <= 10
        assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
        # No control flow: every provider takes the whole graph.
        assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}


def test_metadata(video_files: VideoFiles, tracker: Sam2VideoModel, model: Sam2Model) -> None:
    first, *others = (read_onnx_file(file).metadata for file in video_files)
    assert all(other == first for other in others)
    assert first["fingerprint"] == str(fingerprint_of(model))
    assert first["memory_fingerprint"] not in ("", first["fingerprint"])
    assert first["memory_channels"] == str(MEMORY_CHANNELS)
    assert first["source_memory"] == first["source_checkpoint"] == "micro.pt"


def test_fp32_files_compute_what_pytorch_computes(
    video_files: VideoFiles, tracker: Sam2VideoModel, model: Sam2Model
) -> None:
    said: list[str] = []
    measured = verify_video(video_files, tracker, fingerprint_of(model), "fp32", said.append)
    assert {m.tensor for m in measured} == {
        "conditioned_embed",
        "low_res_masks",
        "iou_predictions",
        "object_score_logits",
        "obj_ptr",
        "maskmem_features",
        "dense_mask_input",
    }
    # Masks of objects that are there, or the comparison says little.
    assert not [m.case for m in measured if "nobody there" in m.case]
    assert any("memory_attention: 1 memories, 0 pointers" in case for case in said)


@pytest.mark.slow
def test_an_absent_object_is_said_to_be_one(model: Sam2Model, tmp_path: Path) -> None:
    nobody = micro_video_model()
    with torch.no_grad():
        nobody.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-9.0)
    files = write_video_files(nobody, model, tmp_path)
    measured = verify_video(files, nobody, fingerprint_of(model), "fp32")
    cases = {m.case for m in measured if m.tensor == "obj_ptr"}
    assert all(case.endswith(": nobody there") for case in cases)


def attend(session: Any, remembered: Remembered, file: Path) -> np.ndarray:
    metadata = read_onnx_file(file).metadata
    conditioned, matches = session.run(
        None,
        {
            "image_embed": remembered.embed.numpy(),
            "encoder_fingerprint": np.array([[int(metadata["fingerprint"])]]),
            "maskmem_features": remembered.memories.numpy(),
            "maskmem_tpos": remembered.times.numpy(),
            "obj_ptrs": remembered.pointers.numpy(),
            "obj_ptr_offsets": remembered.offsets.numpy(),
            "memory_fingerprint": np.array([[int(metadata["memory_fingerprint"])]]),
        },
    )
    assert matches.tolist() == [True]
    return conditioned


def test_any_number_of_objects_memories_and_pointers(
    video_files: VideoFiles, video_graphs: VideoGraphs
) -> None:
    session = open_session(video_files.memory_attention)
    for objects, memories, pointers in ((1, 1, 0), (3, 1, 0), (1, 7, 16), (2, 3, 1), (5, 2, 31)):
        remembered = Remembered(objects, memories, pointers)
        got = attend(session, remembered, video_files.memory_attention)
        assert got.shape == (objects, CHANNELS, SIDE, SIDE)
        expected = remembered.condition(video_graphs)
        np.testing.assert_allclose(got, expected.numpy(), rtol=2e-3, atol=1e-3)


def test_a_batch_is_each_object_alone(video_files: VideoFiles) -> None:
    session = open_session(video_files.memory_attention)
    together = Remembered(3, 2, 2)
    answer = attend(session, together, video_files.memory_attention)
    for index in range(3):
        alone = attend(session, together.of_object(index), video_files.memory_attention)
        # The same sums, blocked in another way: one step of FP16.
        np.testing.assert_allclose(alone[0], answer[index], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("objects", "count", "frames"), [(1, 1, 1), (4, 2, 4), (4, 7, 1)])
def test_any_number_of_objects_and_points(
    video_files: VideoFiles, objects: int, count: int, frames: int
) -> None:
    """`frames` is how many features come: one for each object, or one for all."""
    session = open_session(video_files.video_decoder)
    generator = np.random.default_rng(0)
    ones = np.ones(objects, np.float32)
    masks, ious, scores, pointers, _, matches = session.run(
        None,
        {
            "image_embed": generator.standard_normal((frames, CHANNELS, SIDE, SIDE)).astype("f2"),
            "high_res_feats_0": generator.standard_normal((1, CHANNELS // 8, LOW, LOW)).astype(
                "f2"
            ),
            "high_res_feats_1": generator.standard_normal(
                (1, CHANNELS // 4, 2 * SIDE, 2 * SIDE)
            ).astype("f2"),
            "encoder_fingerprint": np.zeros((1, 1), np.int64),
            "add_no_memory": ones,
            "unit_point_coords": generator.random((objects, count, 2), np.float32),
            "token_labels": np.ones((objects, count), np.int32),
            "dense_mask_input": np.zeros((objects, 1, LOW, LOW), np.float32),
            "has_mask_input": 0 * ones,
            "best_of_three": ones,
            "object_present": ones,
        },
    )
    assert masks.shape == (objects, 1, LOW, LOW)
    assert ious.shape == scores.shape == (objects, 1)
    assert pointers.shape == (objects, CHANNELS)
    assert matches.tolist() == [False]


def test_wrong_numbers_are_named(video_files: VideoFiles, model: Sam2Model) -> None:
    fingerprint = fingerprint_of(model)
    with pytest.raises(VerificationError, match=r"conditioned_embed \(1 memories, 0 pointers\)"):
        verify_video(video_files, micro_video_model(seed=1), fingerprint, "fp32")
    with pytest.raises(VerificationError, match="its own encoder's fingerprint"):
        verify_video(video_files, micro_video_model(), fingerprint + 1, "fp32")


@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("memory_temporal_positional_encoding", "conditioned_embed"),
        ("no_object_pointer", "obj_ptr"),
        ("occlusion_spatial_embedding_parameter", "maskmem_features"),
    ],
)
def test_nan_fails(
    video_files: VideoFiles, model: Sam2Model, tracker: Sam2VideoModel, part: str, tensor: str
) -> None:
    spoilt = copy.deepcopy(tracker)
    with torch.no_grad():
        getattr(spoilt, part).fill_(torch.nan)
    with pytest.raises(VerificationError, match=tensor):
        verify_video(video_files, spoilt, fingerprint_of(model), "fp32")


def test_memories_beyond_fp16_are_refused(
    video_files: VideoFiles, model: Sam2Model, tracker: Sam2VideoModel
) -> None:
    large = copy.deepcopy(tracker)
    with torch.no_grad():
        large.memory_encoder.projection.weight.mul_(1e6)
    with pytest.raises(VerificationError, match=r"maskmem_features reach .* more than FP16 holds"):
        verify_video(video_files, large, fingerprint_of(model), "fp32")


@pytest.fixture(scope="module")
def half_files(
    tracker: Sam2VideoModel, model: Sam2Model, tmp_path_factory: pytest.TempPathFactory
) -> VideoFiles:
    return write_video_files(tracker, model, tmp_path_factory.mktemp("half-video"), "fp16")


@pytest.mark.slow
class TestFp16:
    def test_within_its_own_tolerance(
        self, half_files: VideoFiles, tracker: Sam2VideoModel, model: Sam2Model
    ) -> None:
        verify_video(half_files, tracker, fingerprint_of(model), "fp16")

    def test_inputs_and_outputs_keep_their_types(
        self, half_files: VideoFiles, video_files: VideoFiles
    ) -> None:
        for half, full in zip(half_files, video_files, strict=True):
            assert read_onnx_file(half).tensors == read_onnx_file(full).tensors
            assert (
                read_onnx_file(half).metadata["memory_fingerprint"]
                == read_onnx_file(full).metadata["memory_fingerprint"]
            )

    def test_types_stand_in_the_graph(self, half_files: VideoFiles) -> None:
        """LayerNorm, softmax and rotation in FP32, products in FP16."""
        for file in (half_files.memory_attention, half_files.memory_encoder):
            graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
            types = {
                v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)
            }
            kinds: dict[str, set[int]] = {}
            for node in graph.node:
                kinds.setdefault(node.op_type, set()).add(types.get(node.output[0], 0))
            assert kinds["LayerNormalization"] == {onnx.TensorProto.FLOAT}
            assert kinds.get("Softmax", {onnx.TensorProto.FLOAT}) == {onnx.TensorProto.FLOAT}
            assert kinds["MatMul"] == {onnx.TensorProto.FLOAT16}
            assert kinds.get("Conv", {onnx.TensorProto.FLOAT16}) == {onnx.TensorProto.FLOAT16}

    def test_smaller(self, half_files: VideoFiles, video_files: VideoFiles) -> None:
        for name in ("memory_attention", "memory_encoder"):
            half, full = getattr(half_files, name), getattr(video_files, name)
            assert half.stat().st_size < 0.8 * full.stat().st_size

    def test_true_half_arithmetic_stays_within_tolerance(
        self, tracker: Sam2VideoModel, video_graphs: VideoGraphs
    ) -> None:
        """ONNX Runtime on a CPU computes FP16 in FP32; PyTorch rounds after every step, as GPUs do."""
        remembered = Remembered(1, 3, 3)
        got = remembered.condition(with_precision(video_graphs, "fp16"))
        expected = remembered.reference(tracker, 0)
        error = (got[0].float() - expected).abs().max() / expected.std()
        assert error < TOLERANCES["fp16"]["features"]
