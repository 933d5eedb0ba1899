"""Downloads against a local server that behaves as badly as it can."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export import download as downloads
from export.download import Published, download
from export.errors import DownloadError

# Larger than a read of the socket, so that a connection can end in the middle.
CONTENT = bytes(range(256)) * 4096
HALF = len(CONTENT) // 2
PUBLISHED = Published(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Runs the server's next scripted answer; the last one stays."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pt"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "file.pt"


def fetch(server: Server, target: Path, published: Published = PUBLISHED) -> bool:
    return download(server.url, target, published, pause=lambda _seconds: None)


def whole(handler: Handler, content: bytes = CONTENT, etag: str = '"v1"') -> None:
    """A good server, which continues where it is asked to."""
    asked, same = handler.headers.get("Range"), handler.headers.get("If-Range") == etag
    if asked is None or not same:
        handler.reply(200, content, ETag=etag)
        return
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    where = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.reply(206, content[start:], ETag=etag, Content_Range=where)


def breaks_off(handler: Handler) -> None:
    handler.reply(200, CONTENT[:HALF], length=len(CONTENT), ETag='"v1"')


def ignores_ranges(handler: Handler) -> None:
    handler.reply(200, CONTENT)


def status(code: int) -> Answer:
    return lambda handler: handler.reply(code, b"no")


def partial_files(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if p.name != target.name)


def test_a_whole_file(server: Server, target: Path) -> None:
    server.answers = [whole]
    seen: list[tuple[int, int | None]] = []
    download(server.url, target, PUBLISHED, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert partial_files(target) == []
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_present_and_valid_is_skipped(server: Server, target: Path) -> None:
    server.answers = [whole]
    assert fetch(server, target)
    assert not fetch(server, target)
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"", b"mine", CONTENT[:-1] + b"x"])
def test_another_file_in_its_place_is_left_alone(
    server: Server, target: Path, content: bytes
) -> None:
    target.parent.mkdir()
    target.write_bytes(content)
    with pytest.raises(DownloadError, match="is there already, but .*Delete it"):
        fetch(server, target)
    assert target.read_bytes() == content
    assert server.requests == []


def test_a_broken_connection_goes_on_where_it_ended(server: Server, target: Path) -> None:
    server.answers = [breaks_off, whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    first, second = server.requests
    assert "Range" not in first
    assert second["Range"] == f"bytes={HALF}-"
    assert second["If-Range"] == '"v1"'


def test_a_later_call_goes_on_where_an_earlier_gave_up(server: Server, target: Path) -> None:
    server.answers = [breaks_off, status(503)]
    with pytest.raises(DownloadError, match="503.*given up after .*run the same command again"):
        fetch(server, target)
    assert not target.exists()
    assert partial_files(target) == ["file.pt.part", "file.pt.part.json"]
    server.answers = [whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={HALF}-"


def test_bytes_of_another_url_are_not_continued(server: Server, target: Path) -> None:
    server.answers = [breaks_off, status(404)]
    with pytest.raises(DownloadError):
        fetch(server, target)
    server.answers = [whole]
    download(server.url + "?mirror", target, PUBLISHED)
    assert "Range" not in server.requests[-1]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, target: Path) -> None:
    server.answers = [breaks_off, ignores_ranges]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_without_validators_starts_again(server: Server, target: Path) -> None:
    server.answers = [lambda h: h.reply(200, CONTENT[:HALF], length=len(CONTENT)), whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert "Range" not in server.requests[1]


def test_a_file_that_changes_between_attempts_is_not_mixed(server: Server, target: Path) -> None:
    old = bytes(len(CONTENT))
    server.answers = [
        lambda h: h.reply(200, old[:HALF], length=len(old), ETag='"v0"'),
        whole,
    ]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_if_range_is_found_out(server: Server, target: Path) -> None:
    old = bytes(len(CONTENT))
    where = f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}"
    server.answers = [
        lambda h: h.reply(200, old[:HALF], length=len(old), ETag='"v0"'),
        lambda h: h.reply(206, CONTENT[HALF:], ETag='"v1"', Content_Range=where),
        whole,
    ]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_continuation_starts_again(server: Server, target: Path) -> None:
    where = f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"
    server.answers = [
        breaks_off,
        lambda h: h.reply(206, CONTENT[10:], ETag='"v1"', Content_Range=where),
        whole,
    ]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_spoilt_first_part_is_fetched_again(server: Server, target: Path) -> None:
    server.answers = [breaks_off, status(404)]
    with pytest.raises(DownloadError):
        fetch(server, target)
    part = target.with_name("file.pt.part")
    part.write_bytes(b"x" * HALF)
    server.answers = [whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_complete_part_needs_no_more_bytes(server: Server, target: Path) -> None:
    server.answers = [breaks_off, status(404)]
    with pytest.raises(DownloadError):
        fetch(server, target)
    target.with_name("file.pt.part").write_bytes(CONTENT)
    server.answers = [lambda h: h.reply(416, b"", Content_Range=f"bytes */{len(CONTENT)}")]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_length_that_is_too_small(server: Server, target: Path) -> None:
    server.answers = [lambda h: h.reply(200, CONTENT, length=HALF, ETag='"v1"')]
    with pytest.raises(DownloadError, match=rf"expected {len(CONTENT):,} bytes; .*{HALF:,}"):
        fetch(server, target)
    assert partial_files(target) == []


def test_a_length_that_is_too_large(server: Server, target: Path) -> None:
    server.answers = [lambda h: h.reply(200, CONTENT, length=2 * len(CONTENT), ETag='"v1"')]
    with pytest.raises(DownloadError, match="the server offers"):
        fetch(server, target)
    assert not target.exists()


def test_no_length_at_all_is_verified_all_the_same(server: Server, target: Path) -> None:
    def until_closed(handler: Handler, body: bytes = CONTENT) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    server.answers = [until_closed]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.answers = [lambda h: until_closed(h, CONTENT[:HALF])]
    with pytest.raises(DownloadError, match=f"it has {HALF:,} bytes instead of"):
        fetch(server, target)
    assert partial_files(target) == []


def test_other_content_of_the_right_length_is_refused(server: Server, target: Path) -> None:
    server.answers = [lambda h: whole(h, content=bytes(len(CONTENT)))]
    with pytest.raises(
        DownloadError, match=f"not Meta's file: it has the sha256 .*{PUBLISHED.sha256}"
    ):
        fetch(server, target)
    assert not target.exists()
    assert partial_files(target) == []


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_with_status_200(server: Server, target: Path, content_type: str) -> None:
    page = b"\n<!DOCTYPE html><html><body>Not found</body></html>"
    server.answers = [lambda h: h.reply(200, page, Content_Type=content_type)]
    published = Published(PUBLISHED.sha256, len(page))
    with pytest.raises(DownloadError, match="web page"):
        fetch(server, target, published)
    assert not target.exists()
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_status_that_stays_is_not_tried_again(server: Server, target: Path, code: int) -> None:
    server.answers = [status(code)]
    with pytest.raises(DownloadError, match=f"answered {code}"):
        fetch(server, target)
    assert len(server.requests) == 1


def test_a_busy_server_is_tried_again_with_growing_pauses(server: Server, target: Path) -> None:
    server.answers = [status(500), status(503), status(429), whole]
    pauses: list[float] = []
    download(server.url, target, PUBLISHED, pause=pauses.append)
    assert target.read_bytes() == CONTENT
    assert pauses == [1, 2, 4]


def test_no_server_at_all(target: Path) -> None:
    with pytest.raises(DownloadError, match="ConnectError.*given up after 6 attempts"):
        download("http://127.0.0.1:9/file.pt", target, PUBLISHED, pause=lambda _: None)


def test_many_breaks_with_progress_are_no_reason_to_give_up(server: Server, target: Path) -> None:
    step = len(CONTENT) // 16

    def a_little(handler: Handler) -> None:
        asked = handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": '"v1"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        body = CONTENT[start : start + step]
        handler.reply(206 if start else 200, body, length=len(CONTENT) - start, **headers)

    server.answers = [a_little]
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) >= 16


def test_two_downloads_of_one_file_do_not_mix(server: Server, target: Path) -> None:
    def second_call(handler: Handler) -> None:
        with pytest.raises(DownloadError, match="another download of it is running"):
            fetch(server, target)
        whole(handler)

    server.answers = [second_call, whole]
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_command_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Callable[..., str]
) -> None:
    monkeypatch.setitem(downloads.PUBLISHED, "tiny", PUBLISHED)
    base_url = server.url.rsplit("/", 1)[0] + "/"
    server.answers = [whole]
    monkeypatch.setenv(downloads.BASE_URL_VARIABLE, base_url)
    arguments = ["tiny", "--output-dir", str(tmp_path)]
    assert "downloaded, sha256 verified" in runner(arguments)
    assert (tmp_path / "sam2.1_hiera_tiny.pt").read_bytes() == CONTENT
    assert "is there already" in runner(arguments)
    assert "expected one of tiny, small" in runner(["huge"], exit_code=1)


@pytest.fixture
def runner() -> Callable[..., str]:
    import typer

    app = typer.Typer()
    app.command()(downloads.main)

    def run(arguments: list[str], exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == exit_code, result.output
        return " ".join(result.output.split())

    return run


def test_published_files_are_told_apart() -> None:
    assert len({p.sha256 for p in downloads.PUBLISHED.values()}) == 4
    assert all(len(p.sha256) == 64 for p in downloads.PUBLISHED.values())
