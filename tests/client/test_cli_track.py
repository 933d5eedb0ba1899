"""`triton-sam2 track`: options, outputs, interrupted runs; against a fake server."""

import json

import av
import numpy as np
import pytest
from PIL import Image
from triton_sam2._errors import ServerError

from tests.client.video.movies import encoded, number_of, painted

FRAMES = 5


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(FRAMES))
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(FRAMES):
        Image.fromarray(painted(number, 97, 63)).save(folder / f"{number}.png")
    return folder


def test_masks_json_and_a_movie_come_from_one_run(run, sam, clip, tmp_path):
    masks, document, movie = tmp_path / "masks", tmp_path / "out.json", tmp_path / "seen.mp4"
    outputs = [part for path in (masks, document, movie) for part in ("-o", path)]
    prompts = ("--point", "0:1:10,20", "--point", "0:1:40,20,0", "--box", "2:7:1,2,30,40")
    code, out, err = run("track", clip, *prompts, *outputs)
    assert code == 0, err
    assert "object 1: in 5 of 5 frames, predicted IoU 0.900" in out
    assert "object 7" in out
    first, second = (r for r in sam.requests if r.inputs["command"][0] == b"prompt")
    assert first.inputs["point_coords"].tolist() == [[10, 20], [40, 20]]
    assert first.inputs["point_labels"].tolist() == [1, 0]
    assert second.inputs["box"].tolist() == [1, 2, 30, 40]
    assert sorted(path.relative_to(masks).as_posix() for path in masks.rglob("*.png")) == [
        f"{number}/{frame:05}.png" for number in (1, 7) for frame in range(FRAMES)
    ]
    mask = np.asarray(Image.open(masks / "1/00003.png"))
    assert (mask[:, :48] == 255).all()
    assert not mask[:, 48:].any()
    one, two = json.loads(document.read_text())
    assert (one["video_id"], one["object_id"], two["object_id"]) == ("clip.mp4", 1, 7)
    assert [rle["size"] for rle in one["segmentations"]] == [[64, 96]] * FRAMES
    assert one["bboxes"][0] == [0, 0, 48, 64]
    assert one["areas"][0] == 48 * 64
    with av.open(str(movie)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(pictures) == FRAMES
    # The left half has the objects' colours over it, the right one is as it was.
    assert number_of(pictures[0]) != 0
    assert abs(float(pictures[0][32:, 60:].mean()) - 20) < 4
    assert sam.video.sessions == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.mp4",
        "masks",
        "out.json",
        "seen.mp4",
    ]


def test_a_folder_both_ways_and_odd_sides(run, sam, folder, tmp_path):
    code, out, err = run(
        *("track", folder, "--point", "3:1:5,5", "--direction", "both", "--frames", "3"),
        *("-o", tmp_path / "seen.mkv", "-o", tmp_path / "out.json", "--json"),
    )
    assert code == 0, err
    assert sam.video.tracked == [3, 4, 2, 1]
    assert json.loads(out)["frames"] == 4
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert [rle is not None for rle in entry["segmentations"]] == [False, True, True, True, True]


def test_backward_alone_begins_with_the_last_prompt(run, sam, folder, tmp_path):
    code, _, err = run(
        *("track", folder, "--point", "1:1:5,5", "--point", "3:1:5,5", "--direction", "backward"),
        *("-o", tmp_path / "out.json"),
    )
    assert code == 0, err
    assert sam.video.tracked == [3, 2, 1, 0]


def test_an_interrupted_run_goes_on_where_it_was(run, sam, folder, tmp_path):
    arguments = ("track", folder, "--point", "0:1:5,5", "-o", tmp_path / "out.json")

    def fail_at_frame_3(request, answer=sam.video.answer):
        if request.inputs["command"][0] == b"track" and request.inputs["frame_index"][0] == 3:
            raise ServerError("a fire in the server room")
        return answer(request)

    sam.video.answer = fail_at_frame_3
    code, _, err = run(*arguments)
    assert code == 1
    assert "a fire in the server room" in err
    assert "3 frames are kept; to go on, add: --session " in err
    session = err.partition("--session ")[2].split()[0]
    del sam.video.answer
    sam.video.tracked.clear()
    prompts = sum(request.inputs["command"][0] == b"prompt" for request in sam.requests)
    code, _, err = run(*arguments, "--session", session)
    assert code == 0, err
    assert "taken up" in err
    assert sam.video.tracked == [3, 4]
    assert prompts == sum(request.inputs["command"][0] == b"prompt" for request in sam.requests)
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert all(rle is not None for rle in entry["segmentations"])
    assert not list(tmp_path.glob("*.tracking"))


def test_a_correction_in_a_session_that_was_kept_tracks_anew(run, sam, folder, tmp_path):
    arguments = ("track", folder, "--point", "0:1:5,5", "-o", tmp_path / "out.json")
    assert run(*arguments, "--session", "mine", "--keep")[0] == 0
    assert list(sam.video.sessions) == ["mine"]
    sam.video.tracked.clear()
    code, _, err = run(*arguments, "--point", "2:1:9,9,0", "--session", "mine")
    assert code == 0, err
    assert sam.video.tracked == [0, 1, 2, 3, 4]
    assert sam.video.sessions == {}


def test_a_session_lost_on_the_way_is_replayed(run, sam, folder, tmp_path):
    lost = []

    def lose_once(request, answer=sam.video.answer):
        if request.inputs["command"][0] == b"track" and request.inputs["frame_index"][0] == 2:
            if not lost:
                sam.video.sessions.clear()
            lost.append(1)
        return answer(request)

    sam.video.answer = lose_once
    code, _, err = run("track", folder, "--point", "0:1:5,5", "-o", tmp_path / "out.json")
    assert code == 0, err
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert all(rle is not None for rle in entry["segmentations"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give at least one --point, --box or --mask"),
        (("--point", "0:1"), "--point: expected FRAME:OBJECT:X,Y[,LABEL], got '0:1'"),
        (("--point", "-1:1:2,3"), "--point: expected FRAME:OBJECT:X,Y"),
        (("--point", "0:1:2,3,7"), "--point: expected LABEL 1 or 0"),
        (("--point", "0:1:nan,3"), "--point: expected FRAME:OBJECT:X,Y"),
        (("--box", "0:1:2,3,4"), "--box: expected FRAME:OBJECT:X0,Y0,X1,Y1"),
        (("--box", "0:1:2,3,4,5", "--box", "0:1:2,3,4,5"), "--box: object 1 has a box on frame 0"),
        (("--mask", "0:1:nothing.png"), "--mask: cannot read nothing.png"),
        (("--point", "0:1:2,3", "--direction", "up"), "--direction: expected one of forward"),
        (("--point", "0:1:2,3", "--frame-format", "gif"), "--frame-format: expected png or jpeg"),
        (("--point", "0:1:2,3", "-o", "out.gif"), "--output: expected a folder, .json or .mp4"),
        (("--point", "0:1:2,3", "-o", "no/where/out.json"), "--output: cannot write"),
        (("--point", "0:1:2,3", "-o", "frames"), "--output: frames is the folder of the frames"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(  # noqa: PLR0917 - fixtures
    run, sam, folder, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("track", "frames", "-o", "out.json", *options)
    assert code == 2
    assert message in " ".join(err.split())
    assert sam.requests == []


def test_a_video_that_is_none_is_named(run, sam, tmp_path):
    code, _, err = run("track", tmp_path / "no.mp4", "--point", "0:1:2,3", "-o", tmp_path / "masks")
    assert code == 2
    assert "video: no file or folder" in err
    (tmp_path / "text.mp4").write_text("no video")
    code, _, err = run(
        "track", tmp_path / "text.mp4", "--point", "0:1:2,3", "-o", tmp_path / "masks"
    )
    assert code == 2
    assert "video: cannot read" in err
    assert sam.requests == []


def test_a_prompt_behind_the_end_leaves_nothing_behind(run, sam, folder, tmp_path):
    code, _, err = run("track", folder, "--point", "9:1:2,3", "-o", tmp_path / "out.json")
    assert code == 2
    assert "the video ends before frame 9" in err
    assert sam.video.sessions == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]


def test_a_session_that_nobody_knows_is_begun(run, sam, folder, tmp_path):
    code, _, err = run(
        *("track", folder, "--point", "0:1:2,3", "-o", tmp_path / "out.json", "--session", "new")
    )
    assert code == 0, err
    assert "session new: begun" in err
