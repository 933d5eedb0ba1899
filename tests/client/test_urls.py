import pytest
from triton_sam2._errors import InvalidInputError
from triton_sam2._transports.statuses import unreachable
from triton_sam2._transports.urls import choose_url, parse_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost:8001", "grpc://localhost:8001"),
        ("localhost", "grpc://localhost:8001"),
        ("10.0.0.7:9123", "grpc://10.0.0.7:9123"),
        (" example.org:8000/ ", "http://example.org:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("grpc://gpu", "grpc://gpu:8001"),
        ("grpcs://gpu:443", "grpcs://gpu:443"),
        ("http://gpu", "http://gpu:8000"),
        ("http://gpu:8001", "http://gpu:8001"),
        ("https://gpu", "https://gpu:443"),
        ("HTTPS://gpu/sam2/", "https://gpu:443/sam2"),
    ],
)
def test_urls(url, expected):
    assert str(parse_url(url)) == expected


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "host:port"),
        ("ftp://gpu", "grpc://"),
        ("gpu:eight", "port"),
        ("gpu:70000", "port"),
        ("http://", "host:port"),
        ("http://user:pass@gpu", "headers"),
        ("http://gpu?x=1", "queries"),
        ("grpc://gpu/prefix", "path"),
        ("::1:8001", r"\[::1\]:8001"),
        ("grpc://::1", r"\[::1\]:8001"),
        ("fe80::1", r"\[.*\]:"),
        ("http://2001:db8::7:8000", r"\[2001:db8::7\]:8000"),
    ],
)
def test_bad_urls_say_what_is_expected(url, word):
    with pytest.raises(InvalidInputError, match=word):
        parse_url(url)


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(InvalidInputError) as caught:
        parse_url("https://user:secret@gpu")
    assert "secret" not in str(caught.value)


def test_tls_and_protocol():
    assert parse_url("grpcs://gpu").has_tls
    assert parse_url("grpcs://gpu").is_grpc
    assert not parse_url("localhost:8000").has_tls


def test_the_url_argument_comes_before_the_environment():
    environment = {"TRITON_URL": "gpu:8000"}
    assert choose_url("other:8001", environment) == "other:8001"
    assert choose_url(None, environment) == "gpu:8000"
    assert choose_url(None, {}) == "localhost:8001"


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("localhost:8001", True),
        ("LOCALHOST.", True),
        ("sam.localhost", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9", True),
        ("[::1]:8001", True),
        ("http://0.0.0.0:8000", True),
        ("gpu", False),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_what_is_on_this_machine(url, is_loopback):
    assert parse_url(url).is_loopback == is_loopback


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("localhost:18100", "http://localhost:18100"),
        ("http://[::1]:18101", "grpc://[::1]:18101"),
        ("grpcs://gpu:443", "https://gpu:443"),
    ],
)
def test_the_hint_names_the_port_that_was_asked(url, other):
    endpoint = parse_url(url)
    assert endpoint.in_other_protocol == other
    assert str(unreachable(endpoint, "x")).endswith(f"say so in the URL: {other}.")
