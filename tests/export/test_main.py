"""The command line, on the micro model."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import typer
from safetensors.torch import save_file
from transformers import Sam2Model
from typer.testing import CliRunner

from export import __main__ as command
from export import client_models
from export.onnx_files import VIDEO_FILES, read_onnx_file
from tests.export.conftest import MEMORY

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Run:
    app = typer.Typer()
    app.command()(command.export)

    def run(*arguments: object, exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, result.output
        return " ".join(result.output.split())

    return run


@pytest.fixture(scope="module")
def weights(model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "my-sam2"
    directory.mkdir()
    config = {"model_type": "sam2", **model.config.to_dict(), **MEMORY}
    (directory / "config.json").write_text(json.dumps(config))
    save_file(
        {k: v.clone() for k, v in model.state_dict().items()}, directory / "model.safetensors"
    )
    return directory


@pytest.mark.slow
def test_a_checkpoint_becomes_a_repository(run: Run, weights: Path, tmp_path: Path) -> None:
    target = ("--output-dir", tmp_path / "repo", "--image-size", 64)
    said = run("--checkpoint", weights, *target, "--untrained-memory", 5)
    assert "plane_logits" in said
    assert "conditioned_embed" in said
    assert "the memory is untrained (random-weights-seed-5): it tracks nothing" in said
    attention = read_onnx_file(tmp_path / "repo/sam2_memory_attention/1/model.onnx")
    assert attention.metadata["source_memory"] == "random-weights-seed-5"
    assert (attention.image_size, attention.memory_channels) == (64, 8)
    encoder = read_onnx_file(tmp_path / "repo/sam2_encoder/1/model.onnx")
    assert encoder.image_size == 64
    assert encoder.metadata["model_name"] == "my-sam2"
    assert encoder.tensors["resized_image"] == ("FP16", (-1, 3, 64, 64))
    assert "dims: [ 3, 64, 64 ]" in (tmp_path / "repo/sam2_preprocess/config.pbtxt").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["repo"], "nothing else is left behind"


@pytest.mark.slow
def test_without_video_there_are_two_files(run: Run, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    said = run("--checkpoint", weights, "--onnx-only", folder, "--no-video")
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    assert "sam2.1_large_encoder (Paintera) left out: expected large at 1024 px" in said
    run("--checkpoint", weights, "--output-dir", tmp_path / "repo", "--no-video")
    assert not [p for p in (tmp_path / "repo").iterdir() if "mem" in p.name or "video" in p.name]


@pytest.mark.slow
def test_where_clients_have_the_decoder_there_are_models_for_them(
    run: Run, weights: Path, model: Sam2Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The micro model in the place of large at 1024 px, whose decoder Paintera has.
    monkeypatch.setattr(client_models, "DECODER", client_models.DecoderInClients("", 64))
    target = ("--output-dir", tmp_path / "repo", "--image-size", 64, "--no-video")
    said = run("--checkpoint", weights, *target)
    assert "sam2.1_large_encoder (Paintera): its graphs written" in said
    assert {path.name for path in (tmp_path / "repo").iterdir()} >= {*client_models.CLIENT_MODELS}
    features = tmp_path / "repo/sam2_client_features/1/model.onnx"
    encoder = read_onnx_file(tmp_path / "repo/sam2_encoder/1/model.onnx")
    assert read_onnx_file(features).metadata == {**encoder.metadata, "size": ""}
    added = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(features).graph.initializer}
    expected = model.no_memory_embedding.detach().numpy().reshape(1, -1, 1, 1)
    assert (added["no_memory_embedding"] == expected).all()


def test_a_checkpoint_without_memory_says_what_to_do(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    said = run("--checkpoint", weights, "--output-dir", tmp_path / "repo", exit_code=1)
    assert "it holds no memory" in said
    assert "--no-video" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_files_alone_in_half_precision(run: Run, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    run(
        "--checkpoint",
        weights,
        "--onnx-only",
        folder,
        "--precision",
        "fp16",
        "--model-name",
        "demo",
        "--untrained-memory",
        0,
        "--pixels",
        "uint8",
    )
    assert read_onnx_file(folder / "encoder.onnx").tensors["resized_image"][0] == "UINT8"
    assert {p.name for p in folder.iterdir()} == {"decoder.onnx", "encoder.onnx", *VIDEO_FILES}
    assert read_onnx_file(folder / "video_decoder.onnx").metadata["precision"] == "fp16"
    assert read_onnx_file(folder / "encoder.onnx").metadata["precision"] == "fp16"
    assert read_onnx_file(folder / "encoder.onnx").metadata["model_name"] == "demo"


@pytest.mark.parametrize("when", ["verify", "write_decoder", "verify_video"])
def test_a_failed_export_leaves_nothing(
    run: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from export.errors import VerificationError

    def fails(*_: object) -> None:
        raise VerificationError("the graphs are wrong")

    monkeypatch.setattr(command, when, fails)
    arguments = ("--checkpoint", weights, "--untrained-memory", 0)
    said = run(*arguments, "--output-dir", tmp_path / "repo", exit_code=1)
    assert "error: the graphs are wrong" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --checkpoint or --size"),
        (["--random-weights", 0], "--random-weights: needs --size"),
        (["--random-weights", 0, "--checkpoint", "x.pt", "--size", "tiny"], "choose one"),
        (["--size", "tiny", "--onnx-only", "a", "--output-dir", "b"], "choose one"),
        (["--size", "tiny", "--no-video", "--untrained-memory", 0], "--no-video and --untrained"),
        (
            ["--size", "tiny", "--random-weights", 0, "--untrained-memory", 0],
            "--random-weights makes the memory too",
        ),
        (["--size", "huge"], "--size: expected one of tiny, small, base_plus, large; got 'huge'"),
        (["--size", "tiny", "--model-cfg", "sam2.1_hiera_l.yaml"], "are different sizes"),
        (["--model-cfg", "sam2_hiera_l.yaml"], "--model-cfg: expected one of"),
        (
            ["--size", "tiny", "--precision", "int8"],
            "--precision: expected fp32 or fp16; got 'int8'",
        ),
        (["--size", "tiny", "--pixels", "fp32"], "--pixels: expected fp16 or uint8; got 'fp32'"),
        (["--size", "tiny", "--device", "abacus"], "--device abacus: PyTorch cannot use it"),
        (["--size", "tiny"], "Download it first (python -m export.download tiny)"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: no such file or directory"),
        (["--size", "tiny", "--random-weights", 0, "--image-size", 1000], "got 1000. Nearest: 992"),
    ],
)
def test_contradictions_and_mistakes_are_named(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*arguments, exit_code=1)
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_directory_is_refused_before_the_work(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").touch()
    arguments = ("--checkpoint", weights, "--no-video")
    said = run(*arguments, "--output-dir", tmp_path, exit_code=1)
    assert "not a model repository, so it is left alone" in said
    assert "parameters" not in said


@pytest.mark.slow
def test_a_real_architecture_in_fp16(run: Run, tmp_path: Path) -> None:
    """`verify` inside it is the test; at 128 px, because half precision is slow on a CPU."""
    arguments = ("--size", "tiny", "--random-weights", 0, "--precision", "fp16")
    run(*arguments, "--image-size", 128, "--output-dir", tmp_path / "repo")
    decoder = read_onnx_file(tmp_path / "repo/sam2_decoder/1/model.onnx")
    assert (decoder.image_size, decoder.embed_channels) == (128, 256)
    assert decoder.metadata["model_name"] == "tiny"
    attention = read_onnx_file(tmp_path / "repo/sam2_memory_attention/1/model.onnx")
    assert attention.memory_channels == 64
    assert torch.get_default_dtype() == torch.float32
