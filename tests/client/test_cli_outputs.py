"""What `triton-sam2 segment` writes is tried before the work, and hurts nothing that was there."""

import pytest

from tests.client.fakes import png_of

CLICK = ("-p", "30,20")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png_of(40, 60, shade=100))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "{root}/mask.gif"], "--output: expected an ending of .png, .npy, .npz, .json"),
        (["-o", "{root}/mask"], "--output: expected an ending"),
        (["-o", "{root}/none/m.png"], "--output: cannot write {root}/none/m.png: No such file"),
        (["-o", "{root}/photo.png/m.png"], "--output: cannot write {root}/photo.png/m.png: Not a"),
        (["-o", "{root}/folder.png"], "--output: cannot write {root}/folder.png: it is a folder"),
        (["-o", "/proc/mask.png"], "--output: cannot write /proc/mask.png"),
        (["-o", "{root}/photo.png"], "--output: {root}/photo.png is the image already"),
        (["-o", "{root}/link.png"], "--output: {root}/link.png is the image already"),
        (["-o", "{root}/a.json", "--polygons", "{root}/a.json"], "is what --output writes already"),
        (["-o", "{root}/a.png", "-o", "{root}/./a.png"], "is what --output writes already"),
        (["--polygons", "{root}/none/p.json"], "--polygons: cannot write"),
        (["--overlay", "{root}/seen.xyz"], "--overlay: expected an ending such as .png"),
        (["--overlay", "{root}/seen"], "--overlay: expected an ending such as .png"),
        (["--overlay", "{root}/seen.xbm"], "--overlay: expected an ending such as .png"),
        (["--overlay", "{root}/photo.png"], "--overlay: {root}/photo.png is the image already"),
        (["--overlay", "{root}/none/seen.png"], "--overlay: cannot write"),
    ],
)
def test_outputs_are_tried_before_the_work(run, photo, sam, options, message):
    tmp_path = photo.parent
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(photo)
    content = photo.read_bytes()
    options = [option.format(root=tmp_path) for option in options]
    code, _, err = run("segment", photo, *CLICK, *options)
    assert code == 2
    assert message.format(root=tmp_path) in err
    assert not sam.requests
    assert photo.read_bytes() == content


def test_each_objects_own_file_is_tried(run, photo, tmp_path, sam):
    (tmp_path / "mask-2.png").mkdir()
    code, _, err = run("segment", photo, *CLICK, "-p", "1,2,1,2", "-o", tmp_path / "mask.png")
    assert code == 2
    assert "mask-2.png: it is a folder" in err
    assert not sam.requests


def test_results_of_an_earlier_run_are_replaced(run, photo, tmp_path):
    outputs = [tmp_path / name for name in ("m.png", "m.json", "seen.jpg")]
    for path in outputs:
        path.write_text("old")
    options = ("-o", outputs[0], "-o", outputs[1], "--overlay", outputs[2])
    assert run("segment", photo, *CLICK, *options)[0] == 0
    assert all(path.read_bytes() != b"old" for path in outputs)
    assert run("segment", photo, *CLICK, "--polygons", "/dev/null")[0] == 0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["80,72,1,300000000"], "--point: no point for object 1, yet one for 300000000"),
        (["80,72,1,1e300"], "--point: no point for object 1"),
        (["80,72", "1,2,1,9"], "--point: no point for object 2"),
        (["80,72,1,inf"], "--point: expected LABEL"),
    ],
)
def test_any_number_of_an_object_is_answered_at_once(run, photo, points, message):
    code, _, err = run("segment", photo, *(part for point in points for part in ("-p", point)))
    assert code == 2
    assert message in err
    code, _, err = run("segment", photo, "-b", "1,2,3,4", "-p", "80,72,1,300000000")
    assert code == 2
    assert "1 boxes for 300000000 objects" in err


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("X Y: z", "--header: expected a name of letters"),
        ("X-Key: zä", "--header: X-Key: expected a value of printable ASCII"),
        ("X-Key: a\tb", "--header: X-Key: expected a value of printable ASCII"),
        ("Schlüssel: z", "--header: expected a name of letters"),
        (":authority: z", "--header: expected NAME:VALUE"),
        ("Content-Type: z", "--header: Content-Type: the connection makes this one itself"),
        ("key-bin: z", "--header: key-bin: the connection"),
    ],
)
def test_headers_that_no_protocol_takes(run, photo, sam, header, message):
    for command in (("segment", photo, *CLICK), ("status",), ("warm", photo)):
        code, _, err = run(*command, "--header", header)
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1
        assert "zä" not in err
    assert not sam.requests


def test_a_header_given_twice(run, photo):
    code, _, err = run("warm", photo, "--header", "X-Key: 1", "--header", "x-key: 2")
    assert (code, err) == (2, "error: --header: x-key is given twice\n")


def test_forget_takes_any_text_for_an_id(run):
    for text in ("x" * 5000, "a/" * 200):
        code, _, err = run("forget", text)
        assert code == 4
        assert "unknown" in err


def test_one_unforeseen_error_does_not_hide_the_others(run, photo, monkeypatch):
    from triton_sam2.cli import _cache

    forget = _cache._forget

    def odd(client, text):
        if text == "odd":
            raise KeyError("x")
        return forget(client, text)

    monkeypatch.setattr(_cache, "_forget", odd)
    run("warm", photo)
    code, out, err = run("forget", "odd", photo)
    assert code == 1
    assert "error: odd: unexpected KeyError" in err
    assert f"{photo}: forgotten" in out
