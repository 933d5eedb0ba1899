"""Images as people hold them: arrays, PIL images, open files, and what is none."""

import io

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import InvalidInputError, RetryPolicy, SAM2TritonClient

from tests.client.fakes import FakeSam, png_of

CLICK = ([[30, 20]], [1])


def closed_file():
    file = io.BytesIO(png_of())
    file.close()
    return file


@pytest.fixture
def server():
    return FakeSam()


@pytest.fixture
def client(server):
    retry = RetryPolicy(retries=3, first_pause_s=0.001, longest_pause_s=0.002)
    with SAM2TritonClient("localhost:8001", retry=retry, _transport=server) as client:
        yield client


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60), (40, 60, 1)])
def test_arrays_are_sent_without_loss(client, server, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    client.set_image(pixels[:, ::-1])
    with Image.open(io.BytesIO(server.requests[0].inputs["image"][0])) as sent:
        assert sent.format == "PNG"
        np.testing.assert_array_equal(np.asarray(sent).reshape(shape), pixels[:, ::-1])
    drawn = client.segment(pixels, *CLICK).overlay(pixels)
    assert drawn.shape == (40, 60, 3)
    np.testing.assert_array_equal(drawn[0, 0], np.broadcast_to(pixels[0, 0], 3))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (b"", "0 bytes"),
        ("nowhere/photo.jpg", "cannot read nowhere/photo.jpg: No such file"),
        (12, "got int"),
        (io.BytesIO(), "the open file is empty"),
        (io.StringIO("x"), "opened in binary mode"),
        (closed_file, "cannot read the open file: I/O operation on closed file"),
        (Image.new("F", (4, 4)), "got mode 'F'"),
        (Image.new("RGB", (0, 4)), r"size \(0, 4\)"),
        (lambda: Image.open(io.BytesIO(png_of()[:60])), "the PIL image cannot be read"),
        ("a\0b", "cannot read"),
        ("~nobody-of-this-name/a.png", "cannot read"),
        ("x" * 5000, "cannot read x{200}…: File name too long"),
        ("data:image/png;base64,iVBORw0KGgo=", "got a URL .*decode its base64"),
        ("https://example.org/photo.jpg", "got a URL"),
        (None, "image: missing"),
    ],
)
def test_bad_images_are_named(client, server, image, message):
    image = image() if callable(image) else image
    with pytest.raises(InvalidInputError, match=message):
        client.set_image(image)
    assert not server.requests


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", exif=exif, quality=100)
    return Image.open(io.BytesIO(buffer.getvalue()))


NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        *(Image.fromarray(NOISE).convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "1", "P")),
        *(Image.fromarray(NOISE).convert(mode) for mode in ("CMYK", "YCbCr", "HSV")),
        Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257),
        with_orientation(6),
    ],
    ids=lambda image: image.mode,
)
def test_pil_images_are_their_pixels(client, server, image):
    assert client.set_image(image).original_hw == (image.height, image.width)
    with Image.open(io.BytesIO(server.requests[0].inputs["image"][0])) as sent:
        assert sent.format == "PNG"
        assert not sent.getexif()
        expected = image.convert("RGB") if image.mode in ("CMYK", "YCbCr", "HSV") else image
        np.testing.assert_array_equal(np.asarray(sent), np.asarray(expected))
    result = client.segment(image, *CLICK)
    assert result.overlay(image).shape == (image.height, image.width, 3)


def test_open_files_are_sent_from_their_beginning(client, server, tmp_path):
    content = png_of()
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    buffer = io.BytesIO()
    buffer.write(content)  # and stands at its end
    with path.open("rb") as file, path.open("rb") as raw:
        Image.open(file)
        for image in (file, buffer, raw, Unseekable(content)):
            result = client.segment(image, *CLICK)
            assert server.requests[-1].inputs["image"][0] == content
            if not isinstance(image, Unseekable):
                assert result.overlay(image).shape == (40, 60, 3)
    assert client.prefetch([buffer, path])[0].original_hw == (40, 60)


class Unseekable(io.BytesIO):
    """As a pipe, or a web framework's upload."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")
