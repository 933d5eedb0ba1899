"""Where frames come from: video files, folders, sequences, iterators."""

import io

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import InvalidInputError
from triton_sam2._inputs.frames import open_source
from triton_sam2._inputs.video_file import KEPT_FRAMES, VideoFile

from tests.client.video.movies import encoded, number_of, painted, turned


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "mpeg4"), ("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4")],
)
def test_frames_are_numbered_forward_backward_and_anywhere(container, codec):
    frames = 100
    file = VideoFile(encoded(frames, container, codec))
    assert file.num_frames == frames
    anywhere = [50, 3, 99, 98, 97, 0, 61, 60, 20, 99]
    for number in [*range(frames), *reversed(range(frames)), *anywhere]:
        assert number_of(np.asarray(file.read(number))) == number
    assert file.read(frames) is None
    file.close()


def test_going_backward_decodes_each_stretch_once(monkeypatch):
    file = VideoFile(encoded(90, gop=200))
    decoded = []
    real = file._decode
    monkeypatch.setattr(file, "_decode", lambda: decoded.append(1) or real())
    for number in reversed(range(90)):
        assert number_of(np.asarray(file.read(number))) == number
    # One keyframe: each stretch of the frames kept begins with it.
    stretches = -(-90 // KEPT_FRAMES)
    assert len(decoded) <= sum(90 - KEPT_FRAMES * each for each in range(stretches)) + stretches


def test_uneven_times_do_not_matter():
    times = np.cumsum([0, *np.random.default_rng(0).integers(500, 9000, 29)]).tolist()
    file = VideoFile(encoded(30, codec="libx264", times=times))
    assert file.num_frames == 30
    assert [number_of(np.asarray(file.read(n))) for n in (0, 29, 5)] == [0, 29, 5]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_upright(degrees):
    picture = np.asarray(VideoFile(turned(encoded(3), degrees)).read(0))
    assert picture.shape[:2] == ((64, 96) if degrees == 180 else (96, 64))
    height, width = picture.shape[:2]
    corner = {90: (0, width - 16), 180: (height - 16, width - 16), 270: (height - 16, 0)}[degrees]
    bright = picture[corner[0] : corner[0] + 16, corner[1] : corner[1] + 16]
    assert bright.mean() > 240


def test_a_file_cut_short_says_where_it_ends(tmp_path):
    content = encoded(40, "matroska", "libx264")
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: len(content) * 2 // 3])
    file = VideoFile(path)
    assert 1 <= file.num_frames < 40
    assert number_of(np.asarray(file.read(file.num_frames - 1))) == file.num_frames - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "video: "), (b"no video" * 100, "video: cannot read")],
)
def test_what_is_no_video_is_refused(content, message):
    with pytest.raises(InvalidInputError, match=message):
        VideoFile(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="video: cannot read .*nothing.mp4"):
        open_source(tmp_path / "nothing.mp4", "png", None)


def test_png_is_exact_and_jpeg_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    png = open_source(noise, "png", None).read(0)
    jpeg = open_source(noise, "jpeg", None).read(0)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), noise[0])
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"
    assert len(jpeg) < len(png)
    with pytest.raises(InvalidInputError, match="frame_format: expected one of png, jpeg"):
        open_source(noise, "gif", None)


def test_a_folders_pictures_go_untouched_in_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(painted(number)).save(tmp_path / f"frame-{number}.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    source = open_source(tmp_path, "png", None)
    assert (source.num_frames, source.is_repeatable) == (3, True)
    for index, number in enumerate((1, 2, 10)):
        assert source.read(index) == (tmp_path / f"frame-{number}.jpg").read_bytes()
    assert source.read(3) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="has no pictures"):
        open_source(tmp_path / "empty", "png", None)


def test_an_iterator_gives_each_frame_once():
    taken = []

    def camera():
        for number in range(50):
            taken.append(number)
            yield painted(number)

    source = open_source(camera(), "png", None)
    assert (source.num_frames, source.is_repeatable, taken) == (None, False, [])
    first = source.read(0)
    assert taken == [0]
    assert source.read(40) is not None
    assert source.read(39) is not None
    with pytest.raises(InvalidInputError, match="frame 0 of an iterator is gone"):
        source.read(0)
    assert source.read(50) is None
    assert open_source(iter([first]), "png", 1).num_frames == 1


@pytest.mark.parametrize(
    ("video", "message"),
    [(5, "video: expected a path"), ([], "expected frames, got none"),
     (np.zeros((4, 4), np.uint8), r"expected pixels \[T")],
)  # fmt: skip
def test_what_is_no_source_is_refused(video, message):
    with pytest.raises(InvalidInputError, match=message):
        open_source(video, "png", None)


def test_the_length_of_what_is_at_hand_is_not_for_saying():
    with pytest.raises(InvalidInputError, match="num_frames: this video has 2"):
        open_source([painted(0), painted(1)], "png", 3)
