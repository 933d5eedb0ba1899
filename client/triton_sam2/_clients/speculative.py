"""Predictions that are started before it is known whether anyone will want them."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from numpy.typing import ArrayLike

from triton_sam2._calls.arguments import Formats, ImageState, PromptArguments, Settings
from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._clients.loop_thread import LoopThread
from triton_sam2._clients.sessions import Prediction, Session, Sessions
from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.images import ImageHandle, ImageSource, image_file_bytes
from triton_sam2._inputs.prompts import PointsLike
from triton_sam2._results.segmentation import Segmentation
from triton_sam2._transports.grpc_asyncio import GrpcAioTransport
from triton_sam2._transports.rpc import AsyncTransport, Flow, run_flow_async

DEFAULT_SESSION = "default"
# Enough to keep a server busy. What has reached the server's decoder can no longer be stopped, so that more
# would only be work that cancelling cannot save.
QUEUE_IN_FLIGHT = 4
PredictionTask: TypeAlias = "tuple[str, asyncio.Future[Segmentation]]"
"""A request's id, and the future of its result."""


class SpeculativeSAM2Client:
    """Predictions by session, for a moving mouse: many are started, most are cancelled, the last one counts.

        client = SpeculativeSAM2Client("localhost:8001", latest_only=True)
        client.set_image("image.jpg")
        tasks = await queue_multiple_requests(client, coords_list, labels_list, "session")
        masks, iou = await wait_for_latest_result(tasks, client, "session")

    Cancelling is real: the RPC is cancelled, so that the server does not begin what it has not begun yet.
    Any thread and any event loop may use the client; calls run in a loop of its own.

    Args:
        url, timeout, retry, headers, ca_file, cert_file, key_file: as for `AsyncSAM2TritonClient`.
        latest_only: a new prediction of a session replaces those of it that still wait (they are cancelled),
            while the one on its way is completed: one decode at a time, and the last position always wins.
        max_in_flight: predictions of one session on their way at once; others wait for their turn.
            Default: 1 with `latest_only`, else 4.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        latest_only: bool = False,
        max_in_flight: int | None = None,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        _transport: AsyncTransport | None = None,
    ) -> None:
        settings = Settings.read(url, timeout, retry, headers, (ca_file, cert_file, key_file))
        settings.require_grpc("the speculative client")
        most = (1 if latest_only else QUEUE_IN_FLIGHT) if max_in_flight is None else max_in_flight
        if most < 1:
            raise InvalidInputError(f"max_in_flight: expected at least 1, got {most}")
        self.latest_only = latest_only
        self._sessions = Sessions(most)
        self._images = ImageState(settings)
        self._transport = _transport or GrpcAioTransport(settings.endpoint, settings.credentials)
        self._loop = LoopThread("triton-sam2-speculative")

    def set_image(
        self,
        image: ImageSource | ImageHandle | None = None,
        *,
        image_id: str | None = None,
        timeout: float | None = None,
    ) -> ImageHandle:
        """Send an image, once, and wait until the server has it; as `SAM2TritonClient.set_image`."""
        if image is not None and not isinstance(image, ImageHandle):
            image = image_file_bytes(
                image
            )  # here, so that the loop's other calls do not wait for it
        flow = self._images.set_image(image, image_id, timeout)
        return self._loop.submit(run_flow_async(flow, self._transport)).result()

    async def predict_async(
        self,
        point_coords: PointsLike | None = None,
        point_labels: PointsLike | None = None,
        session_id: str | None = None,
        request_id: str | None = None,
        *,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = False,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        image: ImageHandle | None = None,
        timeout: float | None = None,
    ) -> PredictionTask:
        """Start a prediction and return its request id and a future of its result, without waiting for it.

        Cancelling the future cancels the RPC. Prompts are as for `SAM2TritonClient.predict`; wrong ones raise
        here, at once. `request_id` (default: a new one) is also the id that the server logs.
        """
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        request_id = request_id or uuid.uuid4().hex
        flow = self._images.predict(image, prompts, timeout, request_id)
        future = asyncio.wrap_future(self._start(session_id or DEFAULT_SESSION, request_id, flow))
        # A failure nobody waits for is counted in the session's status, not logged as never retrieved.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return request_id, future

    def predict_sync(
        self,
        point_coords: PointsLike | None = None,
        point_labels: PointsLike | None = None,
        *,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = False,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        image: ImageHandle | None = None,
        timeout: float | None = None,
    ) -> Segmentation:
        """Predict and wait for the result, outside any session; as `SAM2TritonClient.predict`."""
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        flow = self._images.predict(image, prompts, timeout)
        return self._loop.submit(run_flow_async(flow, self._transport)).result()

    def cancel_session_requests(self, session_id: str) -> int:
        """Cancel all pending predictions of a session, their RPCs included; return how many that were."""
        return self._sessions.cancel(session_id)

    def get_session_status(self, session_id: str) -> dict[str, int]:
        """How many predictions of a session are `pending`, `completed`, `cancelled` and `failed`."""
        return self._sessions.status(session_id)

    def cleanup_session(self, session_id: str) -> None:
        """Cancel what is pending in a session and forget its counts."""
        self._sessions.remove(session_id)

    def close(self) -> None:
        """Cancel everything that is pending and close the connection."""
        if not self._loop.is_closed:
            self._loop.cancel_all()
            self._loop.submit(self._transport.close()).result()
            self._loop.close()

    def __enter__(self) -> "SpeculativeSAM2Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(
        self, session_id: str, request_id: str, flow: Flow[Segmentation]
    ) -> "Future[Segmentation]":
        prediction = Prediction(request_id)
        with self._sessions.lock:
            session = self._sessions.open(session_id)
            if request_id in session.live:
                raise InvalidInputError(f"request_id: {request_id!r} is pending already")
            if self.latest_only:
                for older in [
                    waiting for waiting in session.live.values() if not waiting.is_in_flight
                ]:
                    older.cancel()
            prediction.future = self._loop.submit(self._run(session, prediction, flow))
            session.live[request_id] = prediction
        prediction.future.add_done_callback(partial(self._finish, session, prediction))
        return prediction.future

    async def _run(
        self, session: Session, prediction: Prediction, flow: Flow[Segmentation]
    ) -> Segmentation:
        async with session.slots:
            with self._sessions.lock:
                if prediction.future is not None and prediction.future.cancelled():
                    raise asyncio.CancelledError  # its cancellation is on its way to this task
                prediction.is_in_flight = (
                    True  # from here on, a newer prediction does not replace it
                )
            return await run_flow_async(flow, self._transport)

    def _finish(self, session: Session, prediction: Prediction, _: "Future[Segmentation]") -> None:
        with self._sessions.lock:
            session.finish(prediction)


async def queue_multiple_requests(
    client: SpeculativeSAM2Client,
    point_coords_list: Sequence[PointsLike],
    point_labels_list: Sequence[PointsLike],
    session_id: str,
) -> list[PredictionTask]:
    """Start one prediction per entry of the two lists, in order; return their request ids and futures."""
    if len(point_coords_list) != len(point_labels_list):
        raise InvalidInputError(
            f"point_labels_list: expected {len(point_coords_list)} entries like point_coords_list, "
            f"got {len(point_labels_list)}"
        )
    return [
        await client.predict_async(coords, labels, session_id)
        for coords, labels in zip(point_coords_list, point_labels_list, strict=True)
    ]


async def wait_for_latest_result(
    tasks: Sequence[PredictionTask],
    client: SpeculativeSAM2Client,  # noqa: ARG001 - the futures know all; callers pass these
    session_id: str,  # noqa: ARG001
) -> Segmentation | None:
    """The result of the newest prediction that was not cancelled; None if all were.

    Unpacks as `masks, iou`. Older predictions that are still pending then are cancelled: nobody waits for
    them. Raises what that newest prediction raised.
    """
    for index in reversed(range(len(tasks))):
        _, newest = tasks[index]
        await asyncio.wait([newest])
        if newest.cancelled():
            continue
        for _, older in tasks[:index]:
            older.cancel()
        return newest.result()
    return None
