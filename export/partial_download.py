"""One HTTP attempt at a file, continuing where the last one broke off if the file is still the same."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from export.errors import DownloadError
from export.file_checks import describe_wrong_file

_RETRYABLE_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")

# Called with bytes on disk so far and bytes in all, None while unknown.
Report = Callable[[int, int | None], None]


class TryAgainError(Exception):
    """This attempt failed, the next one may not."""


@dataclass(frozen=True)
class Origin:
    """Which version of which file the partial bytes are of."""

    url: str
    validator: str  # a strong ETag or a Last-Modified date, for If-Range
    total_bytes: int | None


class PartialFile:
    """`NAME.part` with the bytes so far, and `NAME.part.json` saying of what."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self._origin_path = destination.with_name(destination.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self, url: str) -> Origin | None:
        """What the bytes on disk are of; None (and nothing on disk any more) if they are no use."""
        try:
            origin = Origin(**json.loads(self._origin_path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            origin = None
        if origin is None or origin.url != url or self.size == 0:
            self.discard()
            return None
        return origin

    def start(self, origin: Origin) -> None:
        """Forget the bytes on disk: what follows is of `origin`, from its first byte."""
        self.discard()
        # Without a validator nobody could tell later whether the file has changed.
        if origin.validator:
            self._origin_path.write_text(json.dumps(asdict(origin)), "utf-8")

    def discard(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)

    def finish(self, destination: Path) -> None:
        """Give the complete file its name."""
        self.path.replace(destination)
        self._origin_path.unlink(missing_ok=True)


def fetch(
    client: httpx.Client, url: str, part: PartialFile, report: Report, expected_bytes: int | None
) -> None:
    """Fetch `url` into `part`, to its end.

    Raises:
        TryAgainError: broken connection, busy server, or a partial file that was of no use.
        DownloadError: nothing another attempt would change.
    """
    origin = part.origin(url)
    headers = {"Accept-Encoding": "identity"}
    if origin is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": origin.validator}
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416 and origin is not None:
                _accept_if_whole(response, part)
                return
            _check_status(response)
            total = _place_to_write(response, url, part, origin)
            if expected_bytes is not None and total not in (None, expected_bytes):
                part.discard()
                raise DownloadError(
                    f"{url}: expected {expected_bytes:,} bytes; the server offers {total:,}. "
                    "Another file under this name?"
                )
            _write_body(response, part, total, report)
    except httpx.TransportError as error:
        raise TryAgainError(f"{type(error).__name__}: {error}") from error


def _check_status(response: httpx.Response) -> None:
    status, url = response.status_code, response.request.url
    if status in _RETRYABLE_STATUSES:
        raise TryAgainError(f"the server answered {status} {response.reason_phrase}")
    if status not in (200, 206):
        raise DownloadError(
            f"{url}: the server answered {status} {response.reason_phrase}. "
            "Check the base URL, or download the file by hand"
        )
    content_type = response.headers.get("Content-Type", "")
    if content_type.startswith(("text/html", "application/xhtml")):
        raise DownloadError(
            f"{url}: expected a checkpoint; the server sent a web page ({content_type}). "
            "A proxy's or mirror's error or login page?"
        )


def _place_to_write(
    response: httpx.Response, url: str, part: PartialFile, origin: Origin | None
) -> int | None:
    """Keep or drop the bytes on disk, as the response demands; returns the file's whole length."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        part.start(Origin(url, validator, total))
        return total
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    same = (
        origin is not None
        and found is not None
        and found[1] is not None
        and int(found[1]) == part.size
        and (not validator or validator == origin.validator)
        and (found[3] == "*" or origin.total_bytes in (None, int(found[3])))
    )
    if not same or origin is None:
        part.discard()
        raise TryAgainError("the server's continuation does not fit the first part")
    return origin.total_bytes


def _accept_if_whole(response: httpx.Response, part: PartialFile) -> None:
    """416 Range Not Satisfiable: nothing follows, which is right if all bytes are here."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or found[3] == "*" or int(found[3]) != part.size:
        part.discard()
        raise TryAgainError("the first part is longer than the file")


def _write_body(
    response: httpx.Response, part: PartialFile, total: int | None, report: Report
) -> None:
    with part.path.open("ab") as file:
        # As they arrive: a larger chunk would be lost with the connection.
        for chunk in response.iter_raw():
            if file.tell() == 0 and (wrong := describe_wrong_file(chunk[:512])):
                file.close()
                part.discard()
                raise DownloadError(f"{response.request.url}: what the server sent {wrong}")
            file.write(chunk)
            report(file.tell(), total)
    if total is not None and part.size < total:
        raise TryAgainError(f"the connection ended after {part.size:,} of {total:,} bytes")
    if total is not None and part.size > total:
        surplus = part.size - total
        part.discard()
        raise TryAgainError(f"the server sent {surplus:,} bytes too many")
