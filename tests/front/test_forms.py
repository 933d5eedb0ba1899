"""Forms as curl sends them: known fields, one image, nothing on a disk."""

import asyncio

import pytest
from front.forms import MAX_FIELDS, read_form
from front.refusals import Refusal
from front.settings import Limits
from starlette.requests import Request
from urllib3 import encode_multipart_formdata

from tests.front.test_http_bodies import Held

KNOWN = frozenset({"image", "image_id", "point"})


def read(body, kind, **headers):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    named = {"content-type": kind, **headers}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    return asyncio.run(read_form(request, KNOWN, Limits(), Held()))


def multipart(fields):
    body, kind = encode_multipart_formdata(fields)
    return read(body, kind)


def test_an_image_and_fields():
    content = bytes(range(256)) * 20_000
    form = multipart(
        [("image", ("photo.jpg", content)), ("point", "1,2"), ("point", "3,4"), ("image_id", "é")]
    )
    assert form.image == content
    assert form.all("point") == ["1,2", "3,4"]
    assert form.one("image_id") == "é"
    assert form.one("format", "rle") == "rle"
    assert form.body_bytes > len(content)


def test_a_form_without_an_image():
    form = read(b"image_id=page-1&point=1%2C2", "application/x-www-form-urlencoded")
    assert form.image is None
    assert form.all("point") == ["1,2"]


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("False", False), ("0", False)]
)
def test_flags(text, expected):
    assert multipart([("point", text)]).flag("point") is expected


def refused(call):
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("pint", "1,2")], "'pint': no such field; known are image, image_id, point"),
        ([("image", "text")], "image: expected a file"),
        ([("image", ("a", b"1")), ("image", ("b", b"2"))], "Too many files"),
        ([("point", "x" * 70_000)], "maximum size"),
        ([("point", "1,2")] * (MAX_FIELDS + 1), "Too many fields"),
    ],
)
def test_fields_that_are_wrong(fields, words):
    error = refused(lambda: multipart(fields))
    assert error.http_status == 400
    assert words in error.message


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"\xff\xd8", "image/jpeg", 415),
        (b"", "", 415),
        (b"abc", "multipart/form-data", 400),
        (b"abc", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nno header\r\n\r\n--x--\r\n", "multipart/form-data; boundary=x", 400),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
            "multipart/form-data; boundary=x",
            400,
        ),
        (b"--x\r\n", "multipart/form-data; boundary=" + "y" * 3000, 400),
        (b"a=%ff&" * 5000, "application/x-www-form-urlencoded", 400),
    ],
)
def test_bodies_that_are_no_form(body, kind, status):
    assert refused(lambda: read(body, kind)).http_status == status


def test_a_field_that_came_twice():
    form = multipart([("image_id", "a"), ("image_id", "b")])
    assert "expected once, came 2 times" in refused(lambda: form.one("image_id")).message
    assert (
        "expected true or false"
        in refused(lambda: multipart([("point", "x")]).flag("point")).message
    )
