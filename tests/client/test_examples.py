"""The examples in other languages, against the real server; one without its toolchain here is not run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import SAM2TritonClient, SAM2VideoClient
from tritonclient.grpc import service_pb2

from tests.client.video.movies import encoded
from tests.tools import skip_without

EXAMPLES = Path(__file__).parents[2] / "client" / "examples"
PHOTO = EXAMPLES / "images" / "coins.png"
CLICK = ("60", "50")


def execute(*arguments, folder=None, timeout=300, environment=None):
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def build_nodejs(folder):
    skip_without("node")
    return ["node", EXAMPLES / "nodejs/segment.mjs"]


def build_nodejs_grpc(folder):
    skip_without("node", "npm")
    shutil.copy(EXAMPLES / "nodejs/segment_grpc.mjs", folder)
    done = execute(
        "npm",
        "install",
        "--no-save",
        "@grpc/grpc-js",
        "@grpc/proto-loader",
        folder=folder,
        timeout=120,
    )
    if done.returncode != 0:
        pytest.skip("not run: npm cannot install the packages here")
    return ["node", folder / "segment_grpc.mjs"]


def build_go(folder):
    skip_without("go")
    done = execute(
        *("go", "build", "-o", folder / "segment", EXAMPLES / "go/segment.go"),
        environment={"GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod"},
    )
    assert done.returncode == 0, done.stderr
    return [folder / "segment"]


def build_java(folder):
    skip_without("java", "javac")
    done = execute("javac", "-Xlint:all", "-Werror", "-d", folder, EXAMPLES / "java/Segment.java")
    assert done.returncode == 0, done.stderr
    return ["java", "-cp", folder, "Segment"]


def build_cpp(folder):
    skip_without("g++", "curl/curl.h")
    done = execute(
        *("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", EXAMPLES / "cpp/segment.cpp"),
        *("-o", folder / "segment", "-lcurl"),
    )
    assert done.returncode == 0, done.stderr
    return [folder / "segment"]


def build_curl(folder):
    skip_without("curl", "awk")
    return ["sh", EXAMPLES / "curl/segment.sh"]


BUILDERS = {
    "nodejs": build_nodejs,
    "nodejs_grpc": build_nodejs_grpc,
    "go": build_go,
    "java": build_java,
    "cpp": build_cpp,
    "curl": build_curl,
}


@pytest.mark.server
@pytest.mark.parametrize("language", BUILDERS)
def test_an_example_gives_the_same_mask_as_the_client(language, server, tmp_path):
    command = BUILDERS[language](tmp_path)
    address = server.grpc_url if language == "nodejs_grpc" else f"http://{server.http_url}"
    environment = {"OPEN_INFERENCE_PROTO": str(EXAMPLES / "proto/open_inference.proto")}
    output = tmp_path / "mask.png"
    done = execute(*command, address, PHOTO, *CLICK, output, environment=environment)
    assert done.returncode == 0, done.stderr
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.segment(PHOTO, [[float(side) for side in CLICK]], [1])
    np.testing.assert_array_equal(np.asarray(Image.open(output)) > 0, expected.masks[0, 0] > 0)
    if "predicted IoU" in done.stdout:
        assert f"predicted IoU {expected.iou_predictions[0, 0]:.3f}" in done.stdout
        assert expected.image_id in done.stdout

    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    done = execute(*command, address, text, *CLICK, tmp_path / "none.png", environment=environment)
    assert done.returncode == 1
    assert "image" in done.stderr
    assert not (tmp_path / "none.png").exists()

    done = execute(*command, environment=environment)
    assert done.returncode == 2
    assert "usage" in done.stderr


def build_track_nodejs(folder):
    skip_without("node")
    return ["node", EXAMPLES / "nodejs/track.mjs"]


def build_track_go(folder):
    skip_without("go")
    done = execute(
        *("go", "build", "-o", folder / "track", EXAMPLES / "go/track.go"),
        environment={"GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod"},
    )
    assert done.returncode == 0, done.stderr
    return [folder / "track"]


@pytest.mark.server
@pytest.mark.parametrize("build", [build_track_nodejs, build_track_go])
def test_a_tracked_video_has_the_same_masks_as_the_clients(build, server, tmp_path):
    command = build(tmp_path)
    video, folder = tmp_path / "clip.mp4", tmp_path / "masks"
    video.write_bytes(encoded(4))
    done = execute(*command, f"http://{server.http_url}", video, 20, 40, folder)
    assert done.returncode == 0, done.stderr
    with SAM2VideoClient(server.grpc_url) as client:
        state = client.init_state(video)
        client.add_new_points_or_box(state, 0, 1, [[20, 40]], [1])
        expected = list(client.propagate_in_video(state))
        client.close_state(state)
    assert sorted(path.name for path in folder.iterdir()) == [f"0000{n}.png" for n in range(4)]
    for frame in expected:
        got = np.asarray(Image.open(folder / f"{frame.frame_idx:05}.png")) > 0
        np.testing.assert_array_equal(got, frame.mask(1) > 0)

    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    done = execute(*command, f"http://{server.http_url}", text, 20, 40, tmp_path / "none")
    assert done.returncode == 1
    assert "400: video: " in done.stderr
    assert not (tmp_path / "none").exists()

    done = execute(*command)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_the_proto_is_the_protocols_own():
    """Every message and field of our excerpt has the name, number and label that Triton's own has."""
    text = (EXAMPLES / "proto/open_inference.proto").read_text()
    messages = dict(proto_messages(text))
    assert {
        "ModelInferRequest",
        "ModelInferResponse.InferOutputTensor",
        "InferTensorContents",
    } <= set(messages)
    checked = 0
    for path, body in messages.items():
        descriptor = service_pb2.DESCRIPTOR.message_types_by_name[path.split(".")[0]]
        for part in path.split(".")[1:]:
            descriptor = descriptor.nested_types_by_name[part]
        fields = re.findall(
            r"^\s*(repeated |map<[^>]*> |)(?:[\w.]+ )?(\w+) = (\d+);", body, re.MULTILINE
        )
        assert fields or body.strip() == ""
        checked += len(fields)
        for label, name, number in fields:
            field = descriptor.fields_by_name[name]
            assert field.number == int(number), f"{path}.{name}"
            assert field.is_repeated == bool(label), f"{path}.{name}"
    assert checked == len(re.findall(r"= \d+;", text))


def proto_messages(text, prefix=""):
    """Messages by their path, without what is nested in them."""
    for match in re.finditer(r"^( *)message (\w+) \{\n(.*?)^\1\}", text, re.MULTILINE | re.DOTALL):
        _, name, body = match.groups()
        nested = re.compile(r"^( +)message (\w+) \{\n.*?^\1\}", re.MULTILINE | re.DOTALL)
        yield f"{prefix}{name}", nested.sub("", body)
        yield from proto_messages(body, f"{prefix}{name}.")
    for match in re.finditer(r"message (\w+) \{\}", text):
        yield f"{prefix}{match[1]}", ""


@pytest.mark.server
def test_the_gallery(server, tmp_path):
    done = execute(
        *(sys.executable, EXAMPLES / "gallery.py", "--url", server.grpc_url, "--output", tmp_path),
        environment={"PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == [
        f"{index}.png" for index in range(1, 10)
    ]
    seen = np.asarray(Image.open(tmp_path / "4.png"))
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    assert seen.shape[1] == photo.shape[1]
    assert (seen[: photo.shape[0]] != photo).any(), "the overlay shows no mask"


def test_the_readme_of_the_examples_lists_them_all():
    text = (EXAMPLES / "README.md").read_text()
    listed = set(re.findall(r"\]\(([\w/]+\.\w+)\)", text))
    for path in listed:
        assert (EXAMPLES / path).is_file(), path
    programs = {
        path.relative_to(EXAMPLES).as_posix()
        for path in EXAMPLES.glob("*/*")
        if path.suffix in {".mjs", ".go", ".java", ".cpp", ".sh", ".proto"}
    }
    assert programs | {"gallery.py"} == listed
