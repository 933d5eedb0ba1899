"""Many images at a time: progress, a journal of what is done, and whose trouble an error is."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._errors import (
    AccessDeniedError,
    MissingExtraError,
    ModelNotFoundError,
    ServerUnavailableError,
    TritonSam2Error,
)
from triton_sam2.cli._batch_journal import Journal
from triton_sam2.cli._connection import Connection, print_json
from triton_sam2.cli._exit_codes import EXIT_ERROR
from triton_sam2.cli._outcome import unexpected

# Not one image's trouble but everybody's: the next image would meet it as well.
_ENDS_THE_BATCH = (
    ServerUnavailableError,
    AccessDeniedError,
    ModelNotFoundError,
    MissingExtraError,
)


@dataclass(frozen=True)
class JobResult:
    """An image's entries of the results file, and the file as it was when it was read."""

    identity: list[int]
    entries: list[dict[str, Any]] = field(default_factory=list)


class _Job(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...


AnyJob = TypeVar("AnyJob", bound=_Job)


@dataclass(frozen=True)
class Batch(Generic[AnyJob]):
    """Images to be done, where their results go, and what makes those results what they are.

    `description`: an earlier run is gone on with only where it is the same.
    """

    jobs: Sequence[AnyJob]
    output: Path
    description: str
    # What the entries of the results file are, for the summary: objects, masks.
    what: str

    def run(
        self,
        connection: Connection,
        run: Callable[[SAM2TritonClient, AnyJob], JobResult],
        concurrency: int,
        as_json: bool,
    ) -> None:
        """Does what an earlier run left open, writes the results file and says what became of it all.

        Raises:
            typer.Exit: some images failed.
        """
        journal = Journal(self.output, self.description)
        done = {
            job.name: entries
            for job in self.jobs
            if (entries := journal.entries(job.name, job.path)) is not None
        }
        resumed = len(done)
        try:
            with connection.client() as client:
                open_jobs = [job for job in self.jobs if job.name not in done]
                errors = run_all(open_jobs, journal, done, partial(run, client), concurrency)
            entries = [entry for job in self.jobs for entry in done.get(job.name, [])]
            journal.finish(self.output, entries)
        except BaseException:
            journal.close()
            typer.echo(f"interrupted; start it again to go on from {journal.path}", err=True)
            raise
        self._tell(errors, resumed, len(entries), as_json)

    def _tell(
        self, errors: dict[str, TritonSam2Error], resumed: int, entries: int, as_json: bool
    ) -> None:
        images = len(self.jobs) - len(errors)
        if as_json:
            print_json(
                {
                    "results": str(self.output),
                    "images": images,
                    "resumed": resumed,
                    self.what: entries,
                    "errors": {name: str(error) for name, error in sorted(errors.items())},
                }
            )
        else:
            before = f", {resumed} of them before" if resumed else ""
            typer.echo(f"{images} images{before}, {entries} {self.what}: {self.output}")
        if errors:
            typer.echo(f"{len(errors)} images failed", err=True)
            raise typer.Exit(EXIT_ERROR)


def run_all(
    jobs: Sequence[AnyJob],
    journal: Journal,
    done: dict[str, list[dict[str, Any]]],
    run: Callable[[AnyJob], JobResult],
    concurrency: int,
) -> dict[str, TritonSam2Error]:
    """Run jobs, noting entries in the journal and in `done`; returns the images' errors."""
    errors: dict[str, TritonSam2Error] = {}
    done_before = len(done)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        bar = progress.add_task("images", total=done_before + len(jobs), completed=done_before)
        running = {pool.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(running):
                job = running[future]
                outcome = _outcome(future)
                if isinstance(outcome, JobResult):
                    journal.add(job.name, outcome.identity, outcome.entries)
                    done[job.name] = outcome.entries
                else:
                    errors[job.name] = outcome
                    console.print(
                        f"error: {job.name}: {outcome}",
                        highlight=False,
                        markup=False,
                        soft_wrap=True,
                    )
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return errors


def _outcome(future: Future[JobResult]) -> JobResult | TritonSam2Error:
    """An image's result or its error; raises what concerns them all."""
    try:
        return future.result()
    except _ENDS_THE_BATCH:
        raise
    except TritonSam2Error as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's trouble, not the others'
        return unexpected(error)
