"""`python -m export.download SIZE`: Meta's checkpoints, whole or not at all. Needs no PyTorch."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from export.errors import DownloadError, ExportError
from export.file_checks import describe_wrong_file, sha256_of_files
from export.partial_download import PartialFile, Report, TryAgainError, fetch

DEFAULT_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
BASE_URL_VARIABLE = "SAM2_CHECKPOINT_BASE_URL"
DEFAULT_OUTPUT_DIR = Path("checkpoints")
ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Published:
    """What a complete file looks like."""

    sha256: str
    total_bytes: int


# Meta publishes no checksums. These are the ones that micro-sam's model registry pins for Meta's
# URLs (micro_sam/v2/util.py), and that several other public projects state for the same files.
PUBLISHED = {
    "tiny": Published(
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156_008_466
    ),
    "small": Published(
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184_416_285
    ),
    "base_plus": Published(
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323_606_802
    ),
    "large": Published(
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898_083_611
    ),
}


def checkpoint_path(size: str, output_dir: Path = DEFAULT_OUTPUT_DIR) -> Path:
    """Where a size's checkpoint is kept, under Meta's own name for it."""
    return output_dir / f"sam2.1_hiera_{size}.pt"


def download(
    url: str,
    destination: Path,
    published: Published,
    report: Report = lambda _done, _total: None,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Bring `url` to `destination`, verified.

    A broken download continues where it ended, also in a later call. `destination` appears only
    complete and with the right checksum.

    Returns:
        False where the file was there already.

    Raises:
        DownloadError: what is there, or what came, is not the published file; or no connection.
    """
    if destination.exists():
        wrong = difference(destination, published)
        if wrong:
            raise DownloadError(
                f"{destination}: is there already, but {wrong}. Delete it to download it again, or "
                "choose another --output-dir"
            )
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = PartialFile(destination)
    with _alone(destination), _client() as client:

        def bring() -> str | None:
            _fetch_with_retries(client, url, part, published=published, report=report, pause=pause)
            return difference(part.path, published)

        began_with = part.size
        wrong = bring()
        if wrong and began_with:
            # The first part may have been the wrong one: once more, from the first byte.
            part.discard()
            wrong = bring()
        if wrong:
            part.discard()
            raise DownloadError(f"{url}: what the server sent is not Meta's file: it {wrong}")
        part.finish(destination)
    return True


def difference(path: Path, published: Published) -> str | None:
    """In what a file differs from the published one, to follow "it"; None where it is the one."""
    with path.open("rb") as file:
        wrong = describe_wrong_file(file.read(512))
    if wrong:
        return wrong
    size = path.stat().st_size
    if size != published.total_bytes:
        return f"has {size:,} bytes instead of {published.total_bytes:,}"
    sha256 = sha256_of_files([path])
    if sha256 != published.sha256:
        return f"has the sha256 {sha256} instead of {published.sha256}"
    return None


def _fetch_with_retries(
    client: httpx.Client,
    url: str,
    part: PartialFile,
    *,
    published: Published,
    report: Report,
    pause: Callable[[float], None],
) -> None:
    attempt, most_bytes = 0, part.size
    while True:
        try:
            fetch(client, url, part, report, published.total_bytes)
        except TryAgainError as error:
            # An attempt that brought new bytes is no failure of the server: count anew.
            attempt = attempt + 1 if part.size <= most_bytes else 1
            most_bytes = max(most_bytes, part.size)
            if attempt >= ATTEMPTS:
                raise DownloadError(
                    f"{url}: {error}; given up after {ATTEMPTS} attempts without progress. What has "
                    "arrived is kept: run the same command again to go on"
                ) from error
            pause(min(2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS))
        else:
            return


def _client() -> httpx.Client:
    return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0, read=60.0))


@contextmanager
def _alone(destination: Path) -> Iterator[None]:
    """Keep a second download of the same file from writing into the same part."""
    lock_path = destination.with_name(f".{destination.name}.lock")
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"{destination}: another download of it is running") from error
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)


def main(
    size: Annotated[str, typer.Argument(help=f"One of {', '.join(PUBLISHED)}.")],
    output_dir: Annotated[Path, typer.Option(help="Where checkpoints are kept.")] = (
        DEFAULT_OUTPUT_DIR
    ),
    base_url: Annotated[
        str, typer.Option(envvar=BASE_URL_VARIABLE, help="A mirror of Meta's files.")
    ] = DEFAULT_BASE_URL,
) -> None:
    """Download Meta's SAM 2.1 checkpoint of a size. A broken download goes on where it ended."""
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    try:
        if size not in PUBLISHED:
            raise DownloadError(f"SIZE: expected one of {', '.join(PUBLISHED)}; got {size!r}")
        destination = checkpoint_path(size, output_dir)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(destination.name, total=PUBLISHED[size].total_bytes)

            def report(done: int, total: int | None) -> None:
                progress.update(task, completed=done, total=total)

            url = f"{base_url.rstrip('/')}/{destination.name}"
            fetched = download(url, destination, PUBLISHED[size], report)
    except (ExportError, OSError, httpx.InvalidURL) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    what = "downloaded" if fetched else "is there already"
    console.print(f"{destination}: {what}, sha256 verified", highlight=False)


if __name__ == "__main__":
    typer.run(main)
