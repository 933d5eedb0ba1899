"""Which URLs may be fetched, and which addresses a name may lead to."""

import asyncio
import ipaddress

import pytest
from front.refusals import Refusal
from front.tools.image_hosts import allowed_address, is_allowed, read_target
from front.tools.settings import (
    ImageHost,
    ToolSettingsError,
    read_image_host,
    read_tool_settings,
)

HOSTS = (
    ImageHost("cdn.example"),
    ImageHost("minio", 9000, is_private=True),
    ImageHost("::1", 8080, is_private=True),
)


@pytest.mark.parametrize(
    ("url", "origin", "host_header"),
    [
        ("https://cdn.example/a.png?b=c", ("https", "cdn.example", 443), "cdn.example"),
        ("http://cdn.example", ("http", "cdn.example", 80), "cdn.example"),
        ("HTTPS://CDN.Example./a", ("https", "cdn.example", 443), "cdn.example"),
        ("http://minio:9000/b", ("http", "minio", 9000), "minio:9000"),
        ("http://[::1]:8080/b", ("http", "::1", 8080), "[::1]:8080"),
        ("https://cdn.example/\u00fc b.png", ("https", "cdn.example", 443), "cdn.example"),
    ],
)
def test_urls_of_configured_hosts(url, origin, host_header):
    target = read_target("image", url, HOSTS)
    assert target.origin == origin
    assert target.host_header == host_header


def test_letters_are_sent_as_browsers_send_them():
    target = read_target("image", "https://cdn.example/fo to/\u00fc%20.png?d=\u0444", HOSTS)
    assert target.path_and_query == "/fo%20to/%C3%BC%20.png?d=%D1%84"


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/a.png",
        "https://cdn.example.other.example/a.png",
        "https://cdn.example@other.example/a.png",
        "https://me:secret@cdn.example/a.png",
        "https://cdn.example:8443/a.png",
        "http://minio/b",
        "http://minio:9001/b",
        "file:///etc/passwd",
        "gopher://cdn.example/",
        "ftp://cdn.example/a.png",
        "//cdn.example/a.png",
        "/a.png",
        "https:///a.png",
        "https://cdn.example:99999/",
        "https://cdn.example\\@other.example/",
        "https://cdn.example/a\r\nHost: other",
        "https://cdn.exämple/",
        "https://cdn.example\u3002other.example/",
        "https://cdn.example /a",
        "https://[::1/",
        "http://127.0.0.1/",
        "",
        "https://cdn.example/" + "a" * 5000,
    ],
)
def test_all_other_urls(url):
    with pytest.raises(Refusal, match="--image-host") as refused:
        read_target("image", url, HOSTS)
    assert refused.value.http_status == 400


PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e")
PRIVATE = (
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "::1",
    "fd00::1",
    "::ffff:10.0.0.1",
)
NEVER = (
    "169.254.169.254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "100.64.0.1",
    "ff02::1",
)


@pytest.mark.parametrize("text", [*PUBLIC, *PRIVATE, *NEVER])
def test_addresses(text):
    address = ipaddress.ip_address(text)
    assert is_allowed(address, ImageHost("a")) == (text in PUBLIC)
    assert is_allowed(address, ImageHost("a", is_private=True)) == (text not in NEVER)


def resolved(*addresses):
    async def resolve(_name, _port):
        return list(addresses)

    return resolve


def test_a_name_that_leads_inside_is_not_followed():
    target = read_target("image", "https://cdn.example/a.png", HOSTS)
    for addresses in (("127.0.0.1",), ("10.0.0.1", "169.254.169.254"), ("::1",)):
        with pytest.raises(Refusal, match="--private-image-host"):
            asyncio.run(allowed_address(target, resolved(*addresses)))
    # Of several, one that may be connected to.
    address = asyncio.run(allowed_address(target, resolved("10.0.0.1", "93.184.215.14")))
    assert address == "93.184.215.14"
    with pytest.raises(Refusal, match="cannot be found"):
        asyncio.run(allowed_address(target, resolved()))


def test_options():
    assert read_image_host("--image-host", "CDN.example", False) == ImageHost("cdn.example")
    assert read_image_host("--image-host", "[::1]:8080", True) == ImageHost("::1", 8080, True)
    for text in ("", "a:b", "a:0", "a:70000", "http://a", "a/b", "a b", "me@a", "::1"):
        with pytest.raises(ToolSettingsError, match="--image-host: expected HOST"):
            read_image_host("--image-host", text, False)
    settings = read_tool_settings(
        " label_studio,label_studio ", "https://ls.example/sub/", "secret", ["a"], ["b:1"]
    )
    assert settings.names == ("label_studio",)
    assert settings.label_studio_url == "https://ls.example/sub"
    assert settings.image_hosts == (
        ImageHost("a"),
        ImageHost("b", 1, is_private=True),
        ImageHost("ls.example", 443, is_private=True),
    )
    assert "secret" not in repr(settings)
    with pytest.raises(ToolSettingsError, match="--tools: expected any of .* got 'paint'"):
        read_tool_settings("label_studio,paint", None, None, (), ())
    for url in ("ls.example", "ftp://a", "http://a:b@c", "http://a?b", "http://", "http://a:b"):
        with pytest.raises(ToolSettingsError, match="--label-studio-url: expected"):
            read_tool_settings("", url, None, (), ())
