"""Assembling needs no PyTorch: these files are made with onnx alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.client_graphs import write_client_features, write_client_pixels
from export.client_models import CLIENT_MODELS
from export.errors import RepositoryError
from export.pixels import TRITON_TYPES
from export.repository import (
    MODELS_DIR,
    VIDEO_GRAPHS,
    assemble_repository,
    check_against_config,
    is_of_video,
    refuse_other_directories,
    replaced_directory,
    resized_config,
)

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
}


IDENTITY = {"fingerprint": "7", "image_size": "1024", "embed_channels": "256"}

# Name, data type, dims.
Value = tuple[str, str, list[Any]]


def tensors(
    image_size: int, channels: int, pixels: str = "FP16"
) -> dict[str, tuple[list[Value], list[Value]]]:
    s, c = image_size, channels
    features = [(c, s // 16), (c // 8, s // 4), (c // 4, s // 8)]
    names = ("image_embed", "high_res_feats_0", "high_res_feats_1")

    def feature_values(batch: object) -> list[Value]:
        return [
            (name, "FP16", [batch, width, side, side])
            for name, (width, side) in zip(names, features, strict=True)
        ]

    return {
        "encoder": (
            [("resized_image", pixels, ["batch", 3, s, s])],
            [*feature_values("batch"), ("encoder_fingerprint", "INT64", ["batch", 1])],
        ),
        "decoder": (
            [
                *feature_values(1),
                ("encoder_fingerprint", "INT64", [1, 1]),
                ("unit_point_coords", "FP32", ["B", "N", 2]),
                ("token_labels", "INT32", ["B", "N"]),
                ("dense_mask_input", "FP32", ["B", 1, s // 4, s // 4]),
                ("has_mask_input", "FP32", ["B"]),
            ],
            [
                ("plane_logits", "FP32", ["B", 4, s // 4, s // 4]),
                ("plane_ious", "FP32", ["B", 4]),
                ("fingerprint_matches", "BOOL", [1]),
            ],
        ),
    }


def tensors_of_video(
    image_size: int, channels: int, depth: int
) -> dict[str, tuple[list[Value], list[Value]]]:
    """Dims as the exporter writes them, types as the configurations say."""
    from export.video_export import video_tensors

    def values(config: str, dims: dict[str, tuple[int | str, ...]]) -> list[Value]:
        types = dict(re.findall(r'name: "(\w+)" +data_type: TYPE_(\w+)', config))
        return [(name, types[name], list(shape)) for name, shape in dims.items()]

    found = {}
    for name, (inputs, outputs) in video_tensors(image_size, channels, depth).items():
        config = (MODELS_DIR / f"sam2_{name}/config.pbtxt").read_text()
        found[name] = (values(config, inputs), values(config, outputs))
    return found


def write_hollow(  # noqa: PLR0917
    folder: Path,
    image_size: int = 1024,
    channels: int = 256,
    fingerprints: tuple[int, int] = (7, 7),
    metadata: bool = True,
    memory_channels: int | None = None,
    memory_fingerprints: tuple[int, ...] = (5, 5, 5, 5),
    pixels: str = "FP16",
    size: str | None = None,
) -> Path:
    """An export's ONNX files with the right tensors and nothing behind them but constants.

    Two of them; six where a width of the memories is given; and the graphs for decoders in clients, which are
    real, where a size is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if size is not None:
        write_client_files(folder, image_size, channels, fingerprints[0], size)
    files = tensors(image_size, channels, pixels)
    of_file: dict[str, dict[str, int]] = {
        name: {"fingerprint": fingerprint}
        for name, fingerprint in zip(files, fingerprints, strict=True)
    }
    if memory_channels is not None:
        of_video = tensors_of_video(image_size, channels, memory_channels)
        files |= of_video
        of_file |= {
            name: {
                "fingerprint": fingerprints[0],
                "memory_fingerprint": fingerprint,
                "memory_channels": memory_channels,
            }
            for name, fingerprint in zip(of_video, memory_fingerprints, strict=True)
        }
    for name, (inputs, outputs) in files.items():
        # The dynamic dimension must come from an input, or ONNX Runtime infers a number for it.
        dynamic = next(n for n, _, dims in inputs if dims[0] in ("B", "batch"))
        nodes = [helper.make_node("Shape", [dynamic], ["count"], start=0, end=1)]
        for output, kind, dims in outputs:
            numbers = [dim for dim in dims if isinstance(dim, int)]
            value = helper.make_tensor(f"{output}_value", TYPES[kind], [1], [0])
            shape = ["count"] if len(numbers) < len(dims) else []
            nodes += [
                helper.make_node("Constant", [], [f"{output}_numbers"], value_ints=numbers),
                helper.make_node(
                    "Concat", [*shape, f"{output}_numbers"], [f"{output}_dims"], axis=0
                ),
                helper.make_node("ConstantOfShape", [f"{output}_dims"], [output], value=value),
            ]
        values = [
            [helper.make_tensor_value_info(n, TYPES[kind], dims) for n, kind, dims in side]
            for side in (inputs, outputs)
        ]
        model = helper.make_model(
            helper.make_graph(nodes, name, *values),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        if metadata:
            helper.set_model_props(
                model,
                {
                    "image_size": str(image_size),
                    "embed_channels": str(channels),
                    **{key: str(value) for key, value in of_file[name].items()},
                },
            )
        onnx.save(model, folder / f"{name}.onnx")
    return folder


def write_client_files(
    folder: Path, image_size: int, channels: int, fingerprint: int, size: str
) -> None:
    metadata = {
        "image_size": str(image_size),
        "embed_channels": str(channels),
        "fingerprint": str(fingerprint),
        "size": size,
    }
    embedding = np.zeros(channels, np.float32)
    write_client_pixels(folder / "client_pixels.onnx", image_size, metadata)
    write_client_features(folder / "client_features.onnx", image_size, embedding, metadata)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hollow(tmp_path_factory.mktemp("hollow"))


@pytest.fixture(scope="module")
def hollow_with_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hollow(tmp_path_factory.mktemp("hollow-video"), memory_channels=64)


@pytest.fixture(scope="module")
def hollow_with_everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hollow(tmp_path_factory.mktemp("everything"), memory_channels=64, size="large")


def test_at_1024_px_the_repository_is_models_byte_for_byte(
    hollow_with_everything: Path, tmp_path: Path
) -> None:
    assemble_repository(hollow_with_everything, tmp_path / "repository")
    written = contents(tmp_path / "repository")
    for file in hollow_with_everything.iterdir():
        assert written.pop(f"sam2_{file.stem}/1/model.onnx") == file.read_bytes()
    expected = {k: v for k, v in contents(MODELS_DIR).items() if not k.endswith((".onnx", ".pyc"))}
    shared = {k: expected.pop(k) for k in list(expected) if k.startswith("shared/")}
    for name in written.keys() - expected.keys():
        assert written.pop(name) == shared["shared/" + Path(name).name], name
    assert written == expected
    for config in (tmp_path / "repository").glob("*/config.pbtxt"):
        assert (config.parent / "1").is_dir(), "Triton wants a version folder even for ensembles"


@pytest.mark.parametrize("why", ["no such files", "not wanted"])
def test_an_image_only_repository_has_no_model_of_video(
    hollow: Path, hollow_with_video: Path, tmp_path: Path, why: str
) -> None:
    source, wanted = (hollow, True) if why == "no such files" else (hollow_with_video, False)
    assemble_repository(source, tmp_path / "repository", video=wanted)
    models = {path.name for path in (tmp_path / "repository").iterdir()}
    everything = {config.parent.name for config in MODELS_DIR.glob("*/config.pbtxt")}
    everything -= set(CLIENT_MODELS)
    assert models == {name for name in everything if not is_of_video(name)}
    assert {"sam2", "sam2_encoder", "sam2_decoder"} <= models
    assert not {name for name in models if "video" in name or "mem" in name or "mask_" in name}
    assert {*VIDEO_GRAPHS, "sam2_video"} >= {name for name in everything if is_of_video(name)}


def test_models_for_decoders_in_clients_come_with_large_at_1024_px(
    hollow: Path, hollow_with_everything: Path, tmp_path: Path
) -> None:
    assemble_repository(hollow_with_everything, tmp_path / "large", video=False)
    assert {path.name for path in (tmp_path / "large").iterdir()} >= set(CLIENT_MODELS)
    config = (tmp_path / "large/sam2.1_large_encoder/config.pbtxt").read_text()
    assert "dims: [ 1, 3, 1024, 1024 ]" in config
    assert "max_batch_size: 0" in config
    assemble_repository(hollow, tmp_path / "other")
    assert not {path.name for path in (tmp_path / "other").iterdir()} & set(CLIENT_MODELS)


@pytest.mark.parametrize(
    ("size", "image_size", "words"),
    [
        ("tiny", 1024, "expected large at 1024 px, .*this is tiny at 1024 px"),
        ("large", 512, "this is large at 512 px"),
        ("", 1024, "this is another architecture at 1024 px"),
    ],
)
def test_for_other_decoders_they_are_refused_wherever_the_files_come_from(
    tmp_path: Path, size: str, image_size: int, words: str
) -> None:
    folder = write_hollow(tmp_path / "onnx", image_size, size=size)
    with pytest.raises(RepositoryError, match=words):
        assemble_repository(folder, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_they_are_of_the_encoders_export_and_whole(tmp_path: Path) -> None:
    folder = write_hollow(tmp_path / "onnx", size="large")
    write_client_files(folder, 1024, 256, 8, "large")
    with pytest.raises(RepositoryError, match="different exports: fingerprint is 7"):
        assemble_repository(folder, tmp_path / "repository")
    (folder / "client_features.onnx").unlink()
    write_hollow(folder, size=None)
    write_client_pixels(folder / "client_pixels.onnx", 1024, {"size": "large", **IDENTITY})
    with pytest.raises(RepositoryError, match=r"client_features\.onnx: no such file"):
        assemble_repository(folder, tmp_path / "repository")


def test_half_of_a_video_export_is_refused(tmp_path: Path) -> None:
    onnx_dir = write_hollow(tmp_path / "onnx", memory_channels=64)
    (onnx_dir / "mask_prompt.onnx").unlink()
    with pytest.raises(RepositoryError, match=r"mask_prompt\.onnx: no such file"):
        assemble_repository(onnx_dir, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_video_graphs_of_different_exports_are_refused(tmp_path: Path) -> None:
    mixed = write_hollow(tmp_path / "a", memory_channels=64, memory_fingerprints=(5, 5, 6, 5))
    message = r"memory_fingerprint is 5 in memory_attention\.onnx and 6 in memory_encoder\.onnx"
    with pytest.raises(RepositoryError, match=message):
        assemble_repository(mixed, tmp_path / "repository")
    foreign = write_hollow(tmp_path / "b", memory_channels=64, fingerprints=(8, 8))
    (foreign / "encoder.onnx").unlink()
    shutil.copyfile(mixed / "encoder.onnx", foreign / "encoder.onnx")
    shutil.copyfile(mixed / "decoder.onnx", foreign / "decoder.onnx")
    with pytest.raises(RepositoryError, match=r"fingerprint is 7 in encoder\.onnx and 8 in memory"):
        assemble_repository(foreign, tmp_path / "repository")


def test_another_size_rewrites_every_dim_with_a_formula(tmp_path: Path) -> None:
    onnx_dir = write_hollow(tmp_path / "onnx", 256, 96, memory_channels=32)
    assemble_repository(onnx_dir, tmp_path / "repository")
    for config in sorted((tmp_path / "repository").glob("*/config.pbtxt")):
        changed = config.read_text().splitlines()
        original = (MODELS_DIR / config.parent.name / "config.pbtxt").read_text().splitlines()
        assert len(changed) == len(original)
        for line, before in zip(changed, original, strict=True):
            # No number of the other size is left in any tensor.
            if "dims:" in line:
                assert not {"1024", "256", "128"} & set(
                    line.split("#")[0].replace(",", " ").split()
                ) or (line.count("256, 256") and "S, S]" in line), line
            else:
                assert line == before
    decoder = (tmp_path / "repository/sam2_decoder/config.pbtxt").read_text()
    assert "dims: [ 1, 12, 64, 64 ] }" in decoder
    assert "dims: [ -1, 4, 64, 64 ] }" in decoder
    attention = (tmp_path / "repository/sam2_memory_attention/config.pbtxt").read_text()
    assert "dims: [ -1, -1, 32, 16, 16 ] }" in attention
    assert "dims: [ -1, -1, 96 ] }" in attention


@pytest.mark.parametrize("pixels", TRITON_TYPES.values())
def test_preprocessing_makes_what_the_encoder_takes(tmp_path: Path, pixels: str) -> None:
    onnx_dir = write_hollow(tmp_path / "onnx", pixels=pixels)
    assemble_repository(onnx_dir, tmp_path / "repository")
    for model in ("sam2_preprocess", "sam2_encoder"):
        config = (tmp_path / "repository" / model / "config.pbtxt").read_text()
        assert f'name: "resized_image" data_type: TYPE_{pixels} ' in config


def test_an_encoder_of_other_pixels_is_refused(tmp_path: Path) -> None:
    onnx_dir = write_hollow(tmp_path / "onnx", pixels="FP32")
    with pytest.raises(RepositoryError, match="resized_image: expected FP16 or UINT8, got FP32"):
        assemble_repository(onnx_dir, tmp_path / "repository")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dims: [ 9, 9 ] # [C/8, S/16]", "dims: [ 12, 16 ] # [C/8, S/16]"),
        ("{ dims: [ 9 ] optional: true }, # [S]", "{ dims: [ 256 ] optional: true }, # [S]"),
        ("dims: [ 5, 5, 5, 5 ]   # [B, M, 3, N]", "dims: [ -1, -1, 3, -1 ]   # [B, M, 3, N]"),
        ("dims: [ 5, 5, 64 ]   # [B, P, D]", "dims: [ -1, -1, 32 ]   # [B, P, D]"),
        ("dims: [ 4, 4 ] }", "dims: [ 4, 4 ] }"),
        ("# dims: [ 4 ]  # [S]", "# dims: [ 4 ]  # [S]"),
        ("# B objects of [S] points", "# B objects of [S] points"),
    ],
)
def test_formulas(line: str, expected: str) -> None:
    assert resized_config(line, {"S": 256, "C": 96, "D": 32}) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dims: [ 1, 2 ] # [S]", "line 1: dims and formula differ in length"),
        ("dims: [ 1 ] # [Q]", "expected a number, S, C, D.*got 'Q'"),
        ("dims: [ 1 ] # [C/7]", "C/7 is no whole number for C = 96"),
        ("dims: [ 1 ] # [D/5]", "D/5 is no whole number for D = 32"),
    ],
)
def test_wrong_formulas(line: str, message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        resized_config(line, {"S": 256, "C": 96, "D": 32})


def test_a_formula_of_the_memory_needs_one() -> None:
    with pytest.raises(
        RepositoryError, match="D is of the video graphs, which this repository has"
    ):
        resized_config("dims: [ 1 ] # [D]", {"S": 256, "C": 96})


def test_files_of_different_exports_are_refused(tmp_path: Path) -> None:
    onnx_dir = write_hollow(tmp_path / "onnx", fingerprints=(7, -8))
    with pytest.raises(RepositoryError, match="different exports: fingerprint is 7 .* and -8"):
        assemble_repository(onnx_dir, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_files_that_do_not_fit_the_configuration_are_refused(hollow: Path, tmp_path: Path) -> None:
    from export.onnx_files import read_onnx_file

    with pytest.raises(RepositoryError, match=r"does not fit sam2_decoder: .*has_mask_input"):
        check_against_config(
            MODELS_DIR / "sam2_decoder/config.pbtxt", read_onnx_file(hollow / "encoder.onnx")
        )


@pytest.mark.parametrize("what", ["missing", "no ONNX", "foreign"])
def test_other_files_are_named(tmp_path: Path, what: str) -> None:
    onnx_dir = tmp_path / "onnx"
    if what == "foreign":
        write_hollow(onnx_dir, metadata=False)
    elif what == "no ONNX":
        onnx_dir.mkdir()
        (onnx_dir / "encoder.onnx").write_text("<html>")
    message = {
        "missing": r"encoder\.onnx: no such file",
        "no ONNX": r"encoder\.onnx: not a readable ONNX file",
        "foreign": "expected a file of this exporter.*missing: fingerprint",
    }
    with pytest.raises(RepositoryError, match=message[what]):
        assemble_repository(onnx_dir, tmp_path / "repository")


def test_assembling_again_leaves_nothing_stale(hollow: Path, tmp_path: Path) -> None:
    target = tmp_path / "repository"
    assemble_repository(hollow, target)
    stale_model = target / "old_model" / "1"
    stale_model.mkdir(parents=True)
    (stale_model.parent / "config.pbtxt").write_text("")
    (target / "sam2_prompt/1/stale.py").write_text("")
    assemble_repository(hollow, target)
    assert not (target / "old_model").exists()
    assert not (target / "sam2_prompt/1/stale.py").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize("stranger", ["notes.txt", "src/main.py", "sam2/readme.md"])
def test_other_directories_are_left_alone(hollow: Path, tmp_path: Path, stranger: str) -> None:
    path = tmp_path / "work" / stranger
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(RepositoryError, match="not a model repository, so it is left alone"):
        assemble_repository(hollow, tmp_path / "work")
    assert path.read_text() == "mine"


def test_a_file_is_no_output_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="expected a directory; it is a file"):
        refuse_other_directories(tmp_path / "file")


def test_an_interrupted_run_leaves_the_old_repository(tmp_path: Path) -> None:
    target = tmp_path / "repository"
    target.mkdir()
    (target / "old").touch()

    def interrupted() -> None:
        with replaced_directory(target) as building:
            (building / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["repository"]


def test_a_linked_directory_stays_a_link(hollow: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assemble_repository(hollow, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk/sam2/config.pbtxt").is_file()


def test_command_line_works_without_pytorch(hollow: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; "
    script = blocked + "import runpy; runpy.run_module('export.repository', run_name='__main__')"
    command = [sys.executable, "-c", script, "--onnx-dir", str(hollow), "--output-dir"]

    def run(target: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, str(target)],
            cwd=MODELS_DIR.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    good = run(tmp_path / "repo")
    assert good.returncode == 0, good.stderr
    assert (tmp_path / "repo/sam2_encoder/1/model.onnx").is_file()
    shutil.copytree(MODELS_DIR.parent / "tests", tmp_path / "other")
    bad = run(tmp_path / "other")
    assert bad.returncode == 1
    assert "left alone" in bad.stderr
    assert "Traceback" not in bad.stderr
