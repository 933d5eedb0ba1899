"""Full load for a while: no wrong mask, no lost request, the budget held, memory flat.

    python tests/soak/soak.py --seconds 600

16 threads ask a real server for masks of twice as many images as its cache may keep, by id where they can
and by bytes where they must; 5 % of the requests are bad and 5 % are cancelled. Every answer is compared with
the one that the same request got alone.
"""

from __future__ import annotations

import argparse
import queue
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from export.repository import assemble_repository
from tests.photographs import picture_of_discs
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import ROOT, RunningServer
from tests.server_figures import cache_metrics, resident_bytes, shared_memory_bytes

CONCURRENCY = 16
KEPT_IMAGES = 20
WORKING_SET = 2 * KEPT_IMAGES
CLICKS = [(30, 30), (80, 60), (120, 90), (60, 100)]
BAD_SHARE = CANCELLED_SHARE = 0.05
ANSWER_SECONDS = 60
FLAT_BYTES = 48 << 20  # what 15 processes' allocators may keep between two samples of the same load


@dataclass
class Sample:
    """The server at one moment."""

    second: float
    entries: float
    cache_bytes: float
    resident: int
    shared: int


@dataclass
class Report:
    """What a soak saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    budget_bytes: int = 0
    seconds: float = 0

    def growth(self, quantity: str) -> int:
        """Median of the last third less that of the third before it."""
        values = [getattr(sample, quantity) for sample in self.samples]
        third = len(values) // 3
        return int(np.median(values[-third:]) - np.median(values[third : 2 * third]))

    def problems(self) -> list[str]:
        """What must not be, in words; empty after a good run."""
        over = max((sample.cache_bytes for sample in self.samples), default=0)
        found = self.failures[:20]
        if over > self.budget_bytes:
            found.append(f"the cache held {over:.0f} bytes of {self.budget_bytes}")
        for quantity in ("resident", "shared"):
            if self.growth(quantity) > FLAT_BYTES:
                found.append(f"{quantity} memory grew by {self.growth(quantity) >> 20} MiB")
        found += [f"no request was {kind}" for kind in KINDS if not self.outcomes[kind]]
        return found

    def text(self) -> str:
        """The figures, one a line."""
        total = sum(self.outcomes.values())
        last = self.samples[-1]
        return "\n".join(
            [
                f"{total} requests in {self.seconds:.0f} s ({total / self.seconds:.0f} a second):"
                f" {dict(sorted(self.outcomes.items()))}",
                f"failures: {len(self.failures)}",
                f"cache: {max(s.cache_bytes for s in self.samples):.0f} bytes at most, budget"
                f" {self.budget_bytes}; {last.entries:.0f} images at the end; {len(self.samples)} samples",
                f"memory: resident {last.resident >> 20} MiB, shared {last.shared >> 20} MiB",
                *(
                    f"{quantity} memory in the last third: {self.growth(quantity) / 2**20:+.1f} MiB"
                    for quantity in ("resident", "shared")
                ),
            ]
        )


KINDS = ("by bytes", "by id", "by id, sent again", "refused", "cancelled", "too late to cancel")


def soak_repository(directory: Path) -> int:
    """A repository of the small model whose cache keeps KEPT_IMAGES images; returns its budget in bytes."""
    assemble_repository(ROOT / "export/demo_model/onnx", directory, video=False)
    config = directory / "sam2_embedding" / "config.pbtxt"
    per_image = 2 * (96 * 16 * 16 + 12 * 64 * 64 + 24 * 32 * 32) + 16
    budget = KEPT_IMAGES * per_image
    text, count = re.subn(
        r'(cache_budget_bytes".*?string_value: ")\d+', rf"\g<1>{budget}", config.read_text()
    )
    assert count == 1
    config.write_text(text)
    return budget


class Load:
    """The requests of a soak, each checked against the answer it got alone."""

    def __init__(self, server: RunningServer, report: Report) -> None:
        self._server = server
        self._report = report
        self._lock = threading.Lock()
        self._images = [picture_of_discs(seed) for seed in range(WORKING_SET)]
        alone = RawClient(server, "grpc")
        started = time.monotonic()
        self._expected = {
            (i, c): alone.infer(image=bytes_tensor(self._images[i]), **click(*CLICKS[c]))["masks"]
            for i in range(WORKING_SET)
            for c in range(len(CLICKS))
        }
        # For one client; beside the others it takes longer, now this way, now that.
        self._answer_seconds = (time.monotonic() - started) / len(self._expected)

    def work(self, seed: int, until: float) -> None:
        """One client's requests, until the time is over."""
        rng = random.Random(seed)
        client = RawClient(self._server, rng.choice(["grpc", "http"]))
        cancelling = tritonclient.grpc.InferenceServerClient(self._server.grpc_url)
        while time.monotonic() < until:
            i, c = rng.randrange(WORKING_SET), rng.randrange(len(CLICKS))
            share = rng.random()
            try:
                if share < BAD_SHARE:
                    outcome = self._bad(client, rng)
                elif share < BAD_SHARE + CANCELLED_SHARE:
                    # From at once to long after the answer, on any machine.
                    after_seconds = self._answer_seconds * 10 ** rng.uniform(-1, 2)
                    outcome = self._cancelled(cancelling, i, c, after_seconds)
                elif share < 0.6:
                    outcome = self._by_id(client, i, c)
                else:
                    outcome = self._by_bytes(client, i, c)
            except Exception as error:  # noqa: BLE001 - whatever it is, the report shows it
                with self._lock:
                    self._report.failures.append(f"image {i}, click {c}: {error!r}")
            else:
                with self._lock:
                    self._report.outcomes[outcome] += 1

    def _check(self, masks: np.ndarray, i: int, c: int) -> None:
        assert np.array_equal(masks, self._expected[i, c]), f"wrong mask for image {i}, click {c}"

    def _by_bytes(self, client: RawClient, i: int, c: int) -> str:
        named = {"image": bytes_tensor(self._images[i]), "image_id": bytes_tensor(b"image %d" % i)}
        self._check(client.infer(**named, **click(*CLICKS[c]))["masks"], i, c)
        return "by bytes"

    def _by_id(self, client: RawClient, i: int, c: int) -> str:
        try:
            answer = client.infer(image_id=bytes_tensor(b"image %d" % i), **click(*CLICKS[c]))
        except RefusedError as error:
            assert error.status == "NOT_FOUND", error
            self._by_bytes(client, i, c)
            return "by id, sent again"
        self._check(answer["masks"], i, c)
        return "by id"

    def _bad(self, client: RawClient, rng: random.Random) -> str:
        good = {"image": bytes_tensor(self._images[0]), **click(*CLICKS[0])}
        wrong = rng.choice(
            [
                {"image": bytes_tensor(rng.randbytes(500))},
                {"image": bytes_tensor(self._images[0][:400])},
                {"point_labels": np.full((1, 1), 9, np.int32)},
                {"point_coords": np.full((1, 1, 2), np.nan, np.float32)},
                {"mask_format": bytes_tensor(b"gif")},
                {"image_id": bytes_tensor(b"x" * 1000)},
            ]
        )
        try:
            client.infer(**(good | wrong))
        except RefusedError as error:
            assert error.status == "INVALID_ARGUMENT", error
            return "refused"
        raise AssertionError(f"accepted: {list(wrong)}")

    def _cancelled(self, client, i: int, c: int, after_seconds: float) -> str:
        inputs = []
        for name, values in ({"image": bytes_tensor(self._images[i])} | click(*CLICKS[c])).items():
            tensor = tritonclient.grpc.InferInput(
                name, values.shape, np_to_triton_dtype(values.dtype)
            )
            inputs.append(tensor.set_data_from_numpy(values))
        answers: queue.SimpleQueue = queue.SimpleQueue()
        call = client.async_infer(
            "sam2", inputs, lambda result, error: answers.put((result, error))
        )
        time.sleep(after_seconds)
        call.cancel()
        result, error = answers.get(timeout=ANSWER_SECONDS)
        if error is None:
            self._check(result.as_numpy("masks"), i, c)
            return "too late to cancel"
        assert isinstance(error, InferenceServerException), error
        assert "cancel" in str(error).lower(), error
        return "cancelled"


def soak(server: RunningServer, budget_bytes: int, seconds: float, progress=None) -> Report:
    """Runs the load against a server made with `soak_repository`."""
    report = Report(budget_bytes=budget_bytes)
    load = Load(server, report)
    started = time.monotonic()
    until = started + seconds
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        working = [threads.submit(load.work, seed, until) for seed in range(CONCURRENCY)]
        while time.monotonic() < until:
            time.sleep(1)
            metrics = cache_metrics(server)
            report.samples.append(
                Sample(
                    time.monotonic() - started,
                    metrics["entries"],
                    metrics["bytes"],
                    resident_bytes(server),
                    shared_memory_bytes(server),
                )
            )
            if progress is not None:
                progress(report)
        for client in working:
            client.result(ANSWER_SECONDS)
    report.seconds = time.monotonic() - started
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    seconds = parser.parse_args().seconds

    def progress(report: Report) -> None:
        done = report.samples[-1].second
        total = sum(report.outcomes.values())
        print(
            f"\r{done:5.0f} of {seconds:.0f} s, {total} requests, {len(report.failures)} failures",
            end="",
        )

    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        budget = soak_repository(directory / "repository")
        with RunningServer(directory / "repository", directory / "state", "--no-probe") as server:
            report = soak(server, budget, seconds, progress)
            restarts = server.state["restarts"]
    finally:
        shutil.rmtree(directory)
    print(f"\n{report.text()}\nserver restarts: {restarts}")
    problems = report.problems() + (["the server was restarted"] if restarts else [])
    print("\n".join(f"PROBLEM: {problem}" for problem in problems) or "No problem.")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
