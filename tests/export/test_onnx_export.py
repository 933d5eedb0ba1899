"""The written files: what Triton will see, and that they compute what PyTorch computes."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from transformers import Sam2Model

from export import verify as verification
from export.errors import VerificationError
from export.graphs import build_graphs
from export.onnx_export import IR_VERSION, OPSET, GraphFiles, write_decoder
from export.onnx_files import read_onnx_file
from export.precision import with_precision
from export.reference import reference_encode
from export.repository import MODELS_DIR, check_against_config, resized_config
from export.verify import TOLERANCES, table_of, verify
from tests.export.conftest import CHANNELS, IMAGE_SIZE, micro_model, write_files


@pytest.mark.parametrize(
    ("name", "served_as"), [("encoder", "sam2_encoder"), ("decoder", "sam2_decoder")]
)
def test_tensors_are_those_of_the_configuration(
    files: GraphFiles, tmp_path_factory: pytest.TempPathFactory, name: str, served_as: str
) -> None:
    """Names, dtypes and dims, as Triton's C++ backend compares them."""
    config = tmp_path_factory.mktemp(served_as) / "config.pbtxt"
    text = (MODELS_DIR / served_as / "config.pbtxt").read_text()
    config.write_text(resized_config(text, {"S": IMAGE_SIZE, "C": CHANNELS}))
    check_against_config(config, read_onnx_file(getattr(files, name)))


def test_versions_are_such_that_tritons_onnx_runtime_reads_them(files: GraphFiles) -> None:
    assert IR_VERSION <= 10
    assert OPSET <= 21
    for file in files:
        model = onnx.load(file)
        assert model.ir_version == IR_VERSION
        # A map this small keeps to standard operators; larger ones: test_fused_attention.py.
        assert {o.domain: o.version for o in model.opset_import} == {"": OPSET}


def test_a_gpu_graph_has_standard_operators_alone(half_files: GraphFiles) -> None:
    for file in half_files:
        assert [o.domain for o in onnx.load(file).opset_import] == [""]


def test_static_dims_are_numbers_and_dynamic_ones_have_names(files: GraphFiles) -> None:
    graph = onnx.load(files.decoder).graph
    dims = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    side = IMAGE_SIZE // 4
    assert dims["unit_point_coords"] == ["B", "N", 2]
    assert dims["plane_logits"] == ["B", 4, side, side]
    assert dims["fingerprint_matches"] == [1]
    assert dims["image_embed"] == [1, CHANNELS, IMAGE_SIZE // 16, IMAGE_SIZE // 16]


def test_metadata(files: GraphFiles) -> None:
    encoder, decoder = (read_onnx_file(file) for file in files)
    assert encoder.metadata == decoder.metadata
    assert re.fullmatch(r"-?\d+", encoder.metadata.pop("fingerprint"))
    assert encoder.metadata == {
        "image_size": str(IMAGE_SIZE),
        "embed_channels": str(CHANNELS),
        "model_name": "micro",
        "precision": "fp32",
        "source_checkpoint": "micro.pt",
        "source_sha256": "0" * 64,
        "exporter_version": "2",
    }


def test_fp32_files_compute_what_pytorch_computes(files: GraphFiles, model: Sam2Model) -> None:
    said: list[str] = []
    measured = verify(files, model, "fp32", said.append)
    assert {m.tensor for m in measured} == {
        "image_embed",
        "high_res_feats_0",
        "high_res_feats_1",
        "plane_logits",
        "plane_ious",
    }
    assert any("mask alone" in case for case in said)
    Console(quiet=True).print(table_of(measured, "micro"))


def test_any_number_of_objects_and_points(files: GraphFiles) -> None:
    session = verification.open_session(files.decoder)
    side = IMAGE_SIZE // 4
    generator = np.random.default_rng(0)
    features = {
        value.name: generator.standard_normal(value.shape).astype(np.float16)
        for value in session.get_inputs()[:3]
    }
    for objects, count in ((1, 1), (5, 1), (1, 33), (7, 12)):
        planes, ious, _ = session.run(
            None,
            features
            | {
                "encoder_fingerprint": np.zeros((1, 1), np.int64),
                "unit_point_coords": generator.random((objects, count, 2), np.float32),
                "token_labels": np.ones((objects, count), np.int32),
                "dense_mask_input": np.zeros((objects, 1, side, side), np.float32),
                "has_mask_input": np.zeros(objects, np.float32),
            },
        )
        assert planes.shape == (objects, 4, side, side)
        assert ious.shape == (objects, 4)


def test_a_foreign_decoder_says_so(files: GraphFiles, model: Sam2Model, tmp_path: Path) -> None:
    foreign = tmp_path / "decoder.onnx"
    write_decoder(build_graphs(micro_model(seed=1)), foreign, {})
    with pytest.raises(VerificationError, match="does not recognise its own encoder's fingerprint"):
        verify(GraphFiles(files.encoder, foreign), model, "fp32")


def test_wrong_numbers_are_named(files: GraphFiles) -> None:
    with pytest.raises(VerificationError, match=r"image_embed \(1 image\): error .*allowed"):
        verify(files, micro_model(seed=1), "fp32")


@pytest.fixture(scope="module")
def half_files(model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return write_files(model, tmp_path_factory.mktemp("half-onnx"), "fp16")


@pytest.mark.slow
class TestFp16:
    def test_within_its_own_tolerance(self, half_files: GraphFiles, model: Sam2Model) -> None:
        verify(half_files, model, "fp16")

    def test_pairs_with_an_fp32_decoder(
        self, half_files: GraphFiles, files: GraphFiles, model: Sam2Model
    ) -> None:
        verify(GraphFiles(half_files.encoder, files.decoder), model, "fp16")
        assert (
            read_onnx_file(half_files.encoder).metadata["fingerprint"]
            == read_onnx_file(files.decoder).metadata["fingerprint"]
        )

    def test_types_stand_in_the_graph(self, half_files: GraphFiles) -> None:
        """LayerNorm and softmax in FP32, convolutions and linear layers in FP16."""
        for file in half_files:
            graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
            types = {
                v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)
            }
            weights = {i.name: i.data_type for i in graph.initializer}
            kinds: dict[str, set[int]] = {}
            for node in graph.node:
                kinds.setdefault(node.op_type, set()).add(types.get(node.output[0], 0))
            assert kinds["LayerNormalization"] == {onnx.TensorProto.FLOAT}
            assert kinds["Softmax"] == {onnx.TensorProto.FLOAT}
            assert kinds["Conv"] == {onnx.TensorProto.FLOAT16}
            for node in graph.node:
                if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
                    assert weights[node.input[1]] == onnx.TensorProto.FLOAT16
            for turn in ("Sin", "Cos"):
                assert kinds.get(turn, {onnx.TensorProto.FLOAT}) == {onnx.TensorProto.FLOAT}

    def test_inputs_and_outputs_keep_their_types(
        self, half_files: GraphFiles, files: GraphFiles
    ) -> None:
        for half, full in zip(half_files, files, strict=True):
            assert read_onnx_file(half).tensors == read_onnx_file(full).tensors

    def test_smaller(self, half_files: GraphFiles, files: GraphFiles) -> None:
        assert half_files.encoder.stat().st_size < 0.8 * files.encoder.stat().st_size

    def test_true_half_arithmetic_stays_within_tolerance(self, model: Sam2Model) -> None:
        """ONNX Runtime on a CPU computes FP16 in FP32; PyTorch rounds after every step, as GPUs do."""
        graphs = with_precision(build_graphs(model), "fp16")
        image = torch.randint(0, 256, (1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
        with torch.no_grad():
            features = graphs.encoder(image)
        for got, expected in zip(features, reference_encode(model, image), strict=False):
            error = (got.float() - expected).abs().max() / expected.std()
            assert error < TOLERANCES["fp16"]["features"]


def test_the_given_graphs_stay_fp32(model: Sam2Model) -> None:
    graphs = build_graphs(model)
    with_precision(graphs, "fp16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_nan_fails(files: GraphFiles) -> None:
    spoilt = micro_model()
    with torch.no_grad():
        spoilt.mask_decoder.conv_s0.bias[0] = torch.nan
    with pytest.raises(VerificationError, match="high_res_feats_0"):
        verify(files, spoilt, "fp32")
