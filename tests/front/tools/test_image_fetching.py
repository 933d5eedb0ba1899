"""Fetching: where it leads, how much, how long; played by real hosts on this machine."""

import asyncio
import ssl
import subprocess
from dataclasses import replace

import pytest
from front.refusals import Refusal
from front.tools.image_fetching import ImageFetcher
from front.tools.label_studio_images import LabelStudioImages
from front.tools.settings import ImageHost, ToolLimits, ToolSettings

from tests.front.tools.image_site import Answer, ImageSite
from tests.tools import needs

LIMITS = ToolLimits(max_fetched_bytes=1000, fetch_timeout_s=60.0)


@pytest.fixture
def pictures():
    with ImageSite() as site:
        site.answers["/a.png"] = Answer(b"picture")
        yield site


def fetched(url, hosts, limits=LIMITS, **parts):
    held = []

    async def fetch():
        return await ImageFetcher(hosts, limits, **parts).fetch("image", url, held.append)

    content = asyncio.run(fetch())
    assert sum(held) == len(content)
    return content


def here(site, name="127.0.0.1"):
    return ImageHost(name, site.port, is_private=True)


def test_an_image(pictures):
    assert fetched(f"{pictures.url}/a.png", [here(pictures)]) == b"picture"
    assert pictures.asked == [("/a.png", None)]


def test_the_address_that_was_checked_is_the_one_that_is_asked(pictures):
    """A name that is public when it is checked, and inside when it is asked for again."""
    answers = ["127.0.0.1", "10.0.0.1"]

    async def resolve(_name, _port):
        return [answers.pop(0)]

    url = f"http://rebound.example:{pictures.port}/a.png"
    assert fetched(url, [here(pictures, "rebound.example")], resolve=resolve) == b"picture"
    assert answers == ["10.0.0.1"]
    answers[:] = ["127.0.0.1"]
    with pytest.raises(Refusal, match="not fetched from"):
        fetched(url, [ImageHost("rebound.example", pictures.port)], resolve=resolve)
    assert len(pictures.asked) == 1


def test_redirects_are_asked_anew(pictures):
    pictures.answers["/moved"] = Answer(status=302, headers={"Location": "/a.png"})
    assert fetched(f"{pictures.url}/moved", [here(pictures)]) == b"picture"
    for location in (
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        f"http://localhost:{pictures.port}/a.png",
        "http://127.0.0.1:1/a.png",
        "//other.example/a.png",
    ):
        pictures.answers["/moved"] = Answer(status=302, headers={"Location": location})
        with pytest.raises(Refusal, match="redirected"):
            fetched(f"{pictures.url}/moved", [here(pictures)])
    pictures.answers["/moved"] = Answer(status=307, headers={"Location": "/moved"})
    with pytest.raises(Refusal, match="max_redirects"):
        fetched(f"{pictures.url}/moved", [here(pictures)])


@pytest.mark.parametrize("declared", ["1001", "1000000"])
def test_no_more_than_allowed(pictures, declared):
    pictures.answers["/large"] = Answer(b"x" * 1001, headers={"Content-Length": declared})
    with pytest.raises(Refusal, match="max_fetched_bytes") as refused:
        fetched(f"{pictures.url}/large", [here(pictures)])
    assert refused.value.http_status == 413


def test_compressed_answers_are_not_unpacked(pictures):
    pictures.answers["/zip"] = Answer(b"...", headers={"Content-Encoding": "gzip"})
    with pytest.raises(Refusal, match="encoding"):
        fetched(f"{pictures.url}/zip", [here(pictures)])


@pytest.mark.parametrize(
    "spoken", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"A: b\r\n" * 9999]
)
def test_hosts_that_speak_otherwise_or_not_at_all(spoken):
    async def scene():
        stopped = asyncio.Event()

        async def speak(_reader, writer):
            writer.write(spoken)
            if spoken.startswith(b"HTTP"):
                await stopped.wait()  # forever, as far as the fetch can know
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limits = replace(LIMITS, fetch_timeout_s=0.5)
        fetcher = ImageFetcher([ImageHost("127.0.0.1", port, True)], limits)
        with pytest.raises(Refusal) as refused:
            await fetcher.fetch("image", f"http://127.0.0.1:{port}/a", lambda _: None)
        stopped.set()
        server.close()
        return refused.value

    refusal = asyncio.run(scene())
    if spoken.startswith(b"HTTP"):
        assert refusal.http_status == 504
        assert "fetch_timeout_s" in refusal.message
    else:
        assert refusal.http_status == 502


def test_drops_do_not_keep_it_alive():
    """A byte now and then: one clock runs over the whole."""

    async def scene():
        async def drip(reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.05)

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limits = replace(LIMITS, fetch_timeout_s=0.5)
        fetcher = ImageFetcher([ImageHost("127.0.0.1", port, True)], limits)
        with pytest.raises(Refusal, match="fetch_timeout_s"):
            await fetcher.fetch("image", f"http://127.0.0.1:{port}/a", lambda _: None)
        server.close()

    asyncio.run(scene())


def test_nobody_there():
    with pytest.raises(Refusal, match="cannot be reached") as refused:
        fetched("http://127.0.0.1:1/a", [ImageHost("127.0.0.1", 1, True)])
    assert refused.value.http_status == 502


@needs("openssl")
def test_certificates_are_checked_by_name(tmp_path):
    """The name's certificate, though the address was looked up before; no other name's."""
    pem, key = tmp_path / "a.pem", tmp_path / "a.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=a", "-addext", "subjectAltName=DNS:pictures.example"),
            *("-keyout", key, "-out", pem),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)

    async def resolve(_name, _port):
        return ["127.0.0.1"]

    with ImageSite(context) as site:
        site.answers["/a.png"] = Answer(b"picture")
        trusting = ssl.create_default_context(cafile=pem)
        for name, tls in (("pictures.example", trusting), ("other.example", trusting)):
            hosts = [ImageHost(name, site.port, is_private=True)]
            url = f"https://{name}:{site.port}/a.png"
            if name == "pictures.example":
                assert fetched(url, hosts, resolve=resolve, tls=tls) == b"picture"
                # Whom the system does not trust is not trusted.
                with pytest.raises(Refusal, match="cannot be reached"):
                    fetched(url, hosts, resolve=resolve)
            else:
                with pytest.raises(Refusal, match="cannot be reached"):
                    fetched(url, hosts, resolve=resolve, tls=tls)
        assert len(site.asked) == 1


def test_a_host_that_speaks_no_tls(pictures):
    with pytest.raises(Refusal, match="cannot be reached"):
        fetched(f"https://127.0.0.1:{pictures.port}/a.png", [here(pictures)])


def test_a_personal_token_is_exchanged_once_and_goes_to_label_studio_alone(pictures):
    head = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    token = f"{head}.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"
    pictures.answers["/api/token/refresh"] = Answer(b'{"access": "short-lived"}')
    pictures.answers["/data/upload/1/a.png"] = Answer(b"mine", authorization="Bearer short-lived")
    pictures.answers["/data/local-files/?d=a.png"] = Answer(
        status=302, headers={"Location": f"http://localhost:{pictures.port}/a.png"}
    )
    settings = ToolSettings(
        label_studio_url=pictures.url,
        label_studio_token=token,
        image_hosts=(here(pictures), here(pictures, "localhost")),
    )

    async def scene():
        images = LabelStudioImages(settings, ImageFetcher(settings.image_hosts, LIMITS))
        for path, expected in (
            ("/data/upload/1/a.png", b"mine"),
            ("upload/1/a.png", b"mine"),
            ("/data/local-files/?d=a.png", b"picture"),
        ):
            assert await images.image("image", path, 1, lambda _: None) == expected

    asyncio.run(scene())
    assert pictures.bodies == [{"refresh": token}]
    assert pictures.asked[-1] == ("/a.png", None)
    assert ("/data/local-files/?d=a.png", "Bearer short-lived") in pictures.asked
