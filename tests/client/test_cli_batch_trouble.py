"""`triton-sam2 batch`: one image's trouble is its own, and the journal survives everybody's."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from triton_sam2._errors import AccessDeniedError, ServerUnavailableError, TritonSam2Error
from triton_sam2.cli import _batch_journal, _batch_run
from triton_sam2.cli._batch_journal import Journal

from tests.client.fakes import png_of

CLICK = [{"points": [[30, 20]]}]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.png").write_bytes(png_of(40, 60 + index, shade=index))
    return folder


@pytest.fixture
def batch(run, folder, tmp_path):
    """Runs a batch over the folder, one image after the other: exit code, results or None, standard error."""

    def batch(prompts, *options):
        path, output = tmp_path / "prompts.json", tmp_path / "results.json"
        path.write_text(json.dumps(prompts))
        code, _, err = run(
            *("batch", folder, "--prompts", path, "-o", output, "--concurrency", 1), *options
        )
        return code, json.loads(output.read_text()) if output.exists() else None, err

    return batch


def test_an_image_without_objects_has_no_masks(batch, sam, tmp_path):
    prompts = {"0.png": CLICK, "1.png": []}
    for options in ((), ("--overlays", tmp_path / "seen")):
        sam.requests.clear()
        code, results, err = batch(prompts, *options)
        assert (code, err) == (0, "")
        assert [entry["image_id"] for entry in results] == ["0.png"]
        assert len(sam.requests) == 1
    assert (np.asarray(Image.open(tmp_path / "seen/1.png.png")) == 1).all()


@pytest.mark.parametrize(
    "error", [ValueError("odd"), MemoryError(), KeyError("x"), OSError(5, "io")]
)
def test_whatever_befalls_an_image_is_its_own_error(batch, monkeypatch, error):
    read = _batch_run.image_file_bytes

    def sometimes(path):
        if path.name == "1.png":
            raise error
        return read(path)

    monkeypatch.setattr(_batch_run, "image_file_bytes", sometimes)
    code, results, err = batch({"*": CLICK})
    assert code == 1
    assert [entry["image_id"] for entry in results] == ["0.png", "2.png", "3.png"]
    assert f"error: 1.png: unexpected {type(error).__name__}" in err


@pytest.mark.parametrize(("error", "code"), [(AccessDeniedError, 1), (ServerUnavailableError, 3)])
def test_what_concerns_all_images_ends_the_batch_and_keeps_the_journal(
    batch, sam, monkeypatch, error, code
):
    monkeypatch.setattr("triton_sam2._calls.flows.RetryPolicy.pauses_s", lambda self: iter(()))
    answer = sam.infer
    sam.infer = lambda request: answer(request) if len(sam.requests) < 2 else fail(error)
    got, results, err = batch({"*": CLICK})
    assert (got, results) == (code, None)
    assert "start it again" in err
    sam.infer = answer
    got, results, err = batch({"*": CLICK})
    assert (got, len(results)) == (0, 4), err
    assert len(sam.requests) == 4


def fail(error):
    raise error("no")


def test_an_image_that_changed_since_is_done_again(batch, sam, folder, monkeypatch):
    monkeypatch.setattr("triton_sam2._calls.flows.RetryPolicy.pauses_s", lambda self: iter(()))
    answer = sam.infer
    sam.infer = lambda request: (
        answer(request) if len(sam.requests) < 3 else fail(ServerUnavailableError)
    )
    assert batch({"*": CLICK})[0] == 3
    sam.infer = answer
    (folder / "1.png").write_bytes(png_of(40, 99))
    code, results, err = batch({"*": CLICK})
    assert code == 0, err
    assert [entry["segmentation"]["size"][1] for entry in results] == [60, 99, 62, 63]
    assert len(sam.requests) == 3 + 2


@pytest.fixture
def journal(tmp_path):
    """Opens a journal with two images in it."""
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for file in files:
        file.write_bytes(png_of())

    def opened():
        return Journal(tmp_path / "r.json", "key"), files

    journal, _ = opened()
    for file in files[:2]:
        journal.add(file.name, _batch_journal.file_identity(file), [{"of": file.name}])
    journal.close()
    return opened


def test_a_full_disk_leaves_whole_lines_only(journal, monkeypatch):
    opened, files = journal()
    content = opened.path.read_bytes()
    write = opened._file.write

    class Full:
        """The disk takes ten bytes more."""

        def __init__(self, file):
            self.file, self.calls = file, 0

        def write(self, data):
            self.calls += 1
            if self.calls > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(data[:10])

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened._file = Full(opened._file)
    with pytest.raises(TritonSam2Error, match=r"cannot write .*r.json.partial: No space left"):
        opened.add("c.png", [1, 2], [])
    opened.close()
    assert opened.path.read_bytes() == content
    again, _ = journal()
    assert again.entries("b.png", files[1]) == [{"of": "b.png"}]
    assert again.entries("c.png", files[2]) is None


def test_results_that_cannot_be_written_keep_the_journal(journal, tmp_path, monkeypatch):
    opened, files = journal()

    def full(self, *_):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(TritonSam2Error, match=r"cannot write .*r.json: No space left"):
            opened.finish(tmp_path / "r.json", [{}])
    assert sorted(path.name for path in tmp_path.glob("r.json*")) == ["r.json.partial"]
    assert opened.entries("a.png", files[0]) == [{"of": "a.png"}]
    opened.finish(tmp_path / "r.json", [{}])
    assert [path.name for path in tmp_path.glob("r.json*")] == ["r.json"]


@pytest.mark.parametrize(
    "tail",
    [b'{"image": "c.png", "ent', b"\xff\xfe\0\n", b"[]\n", b'{"image": "c.png"}\n', b"{}\n{}"],
)
def test_what_is_broken_in_a_journal_is_done_again(journal, tail):
    opened, files = journal()
    opened.close()
    content = opened.path.read_bytes()
    opened.path.write_bytes(content + tail)
    again, _ = journal()
    assert opened.path.read_bytes() == content
    assert again.entries("b.png", files[1]) == [{"of": "b.png"}]
    assert again.entries("c.png", files[2]) is None
    again.add("c.png", _batch_journal.file_identity(files[2]), [])
    again.close()
    assert journal()[0].entries("c.png", files[2]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "{root}/none/r.json"), "--output: cannot write {root}/none/r.json: No such file"),
        (("-o", "{root}/photos"), "--output: expected an ending of .json, got 'photos'"),
        (("-o", "{root}/photos/0.png"), "--output: expected an ending of .json"),
        (("-o", "{root}/folder.json"), "--output: cannot write {root}/folder.json: it is a folder"),
        (("-o", "{root}/prompts.json"), "--output: {root}/prompts.json is the prompts file"),
        (("--overlays", "{root}/prompts.json"), "--overlays: cannot write into"),
        (("--overlays", "{root}/prompts.json/seen"), "--overlays: cannot write into"),
        (("--overlays", "/proc/seen"), "--overlays: cannot write into /proc/seen"),
    ],
)
def test_outputs_are_tried_before_the_work(run, folder, sam, options, message):
    tmp_path = folder.parent
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"*": CLICK}))
    (tmp_path / "folder.json").mkdir()
    options = [option.format(root=tmp_path) for option in options]
    default = [] if "-o" in options else ["-o", tmp_path / "r.json"]
    code, _, err = run("batch", folder, "--prompts", prompts, *default, *options)
    assert code == 2
    assert message.format(root=tmp_path) in err
    assert not sam.requests
    assert json.loads(prompts.read_text()) == {"*": CLICK}


def test_overlays_do_not_replace_images(batch, folder, sam):
    (folder / "0.png.png").write_bytes(png_of(40, 70))
    content = (folder / "0.png.png").read_bytes()
    code, _, err = batch({"0.png": CLICK, "0.png.png": CLICK}, "--overlays", folder)
    assert code == 2
    assert "is an image already" in err
    assert (folder / "0.png.png").read_bytes() == content
    assert not sam.requests


def test_an_overlay_that_cannot_be_written_is_that_images_error(batch, tmp_path):
    (tmp_path / "seen/1.png.png").mkdir(parents=True)
    code, results, err = batch({"*": CLICK}, "--overlays", tmp_path / "seen")
    assert (code, len(results)) == (1, 3)
    assert "error: 1.png: cannot write" in err
