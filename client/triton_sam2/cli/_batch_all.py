"""Many images at a time: progress, a journal of what is done, and whose trouble an error is."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triton_sam2._errors import (
    AccessDeniedError,
    MissingExtraError,
    ModelNotFoundError,
    ServerUnavailableError,
    TritonSam2Error,
)
from triton_sam2.cli._batch_journal import Journal
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


class _Named(Protocol):
    @property
    def name(self) -> str: ...


AnyJob = TypeVar("AnyJob", bound=_Named)


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
