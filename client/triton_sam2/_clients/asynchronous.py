"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from triton_sam2._calls.arguments import (
    Formats,
    ImageState,
    PromptArguments,
    Settings,
    wanted_masks,
)
from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._inputs.generator import GeneratorParameters
from triton_sam2._inputs.images import ImageHandle, ImageSource, image_file_bytes
from triton_sam2._inputs.prompts import PointsLike
from triton_sam2._results.generated import GeneratedMasks
from triton_sam2._results.segmentation import Segmentation
from triton_sam2._transports.grpc_asyncio import GrpcAioTransport
from triton_sam2._transports.rpc import AsyncTransport, run_flow_async

if TYPE_CHECKING:
    from typing_extensions import Unpack  # part of Python from 3.11 on


class AsyncSAM2TritonClient:
    """`SAM2TritonClient` for asyncio, over gRPC: the same constructor, methods, results and errors.

        async with AsyncSAM2TritonClient("localhost:8001") as client:
            await client.set_image("photo.jpg")
            masks, iou = await client.predict([[512, 512]], [1])

    Cancelling a task that awaits a call cancels the RPC, and with it what the server has not begun yet.
    Event loops and threads may share a client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        _transport: AsyncTransport | None = None,
    ) -> None:
        settings = Settings.read(url, timeout, retry, headers, (ca_file, cert_file, key_file))
        settings.require_grpc("the asyncio client")
        self._images = ImageState(settings)
        self._transport = _transport or GrpcAioTransport(settings.endpoint, settings.credentials)

    @property
    def url(self) -> str:
        """Where this client calls, with the scheme written out."""
        return str(self._images.settings.endpoint)

    @property
    def image(self) -> ImageHandle | None:
        """The current image: its id and original size."""
        return self._images.current

    @property
    def image_id(self) -> str | None:
        """The current image's id."""
        return None if self.image is None else self.image.image_id

    @property
    def original_hw(self) -> tuple[int, int] | None:
        """The current image's height and width in pixels, upright."""
        return None if self.image is None else self.image.original_hw

    async def set_image(
        self,
        image: ImageSource | ImageHandle | None = None,
        *,
        image_id: str | None = None,
        timeout: float | None = None,
    ) -> ImageHandle:
        """As `SAM2TritonClient.set_image`."""
        if image is not None and not isinstance(image, ImageHandle):
            image = await asyncio.to_thread(image_file_bytes, image)
        flow = self._images.set_image(image, image_id, timeout)
        return await run_flow_async(flow, self._transport)

    async def predict(
        self,
        point_coords: PointsLike | None = None,
        point_labels: PointsLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = False,
        *,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        image: ImageHandle | None = None,
        timeout: float | None = None,
    ) -> Segmentation:
        """As `SAM2TritonClient.predict`."""
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        flow = self._images.predict(image, prompts, timeout)
        return await run_flow_async(flow, self._transport)

    async def segment(
        self,
        image: ImageSource,
        point_coords: PointsLike | None = None,
        point_labels: PointsLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        multimask_output: bool = False,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        image_id: str | None = None,
        timeout: float | None = None,
    ) -> Segmentation:
        """As `SAM2TritonClient.segment`."""
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        content = await asyncio.to_thread(image_file_bytes, image)
        flow = self._images.segment(content, image_id, prompts, timeout)
        return await run_flow_async(flow, self._transport)

    async def generate(
        self,
        image: ImageSource | ImageHandle | None = None,
        *,
        image_id: str | None = None,
        formats: Formats = ("rle",),
        timeout: float | None = None,
        **parameters: Unpack[GeneratorParameters],
    ) -> GeneratedMasks:
        """As `SAM2TritonClient.generate`. Cancelled, the server stops within one batch of points."""
        if image is not None and not isinstance(image, ImageHandle):
            image = await asyncio.to_thread(image_file_bytes, image)
        flow = self._images.generate(image, image_id, wanted_masks(parameters, formats), timeout)
        return await run_flow_async(flow, self._transport)

    async def prefetch(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, timeout: float | None = None
    ) -> list[ImageHandle]:
        """As `SAM2TritonClient.prefetch`."""
        slots = asyncio.Semaphore(concurrency)

        async def encode(image: ImageSource) -> ImageHandle:
            async with slots:
                content = await asyncio.to_thread(image_file_bytes, image)
                flow = self._images.encode(content, None, timeout)
                return await run_flow_async(flow, self._transport)

        return list(await asyncio.gather(*(encode(image) for image in images)))

    async def forget(
        self, image: ImageHandle | str | None = None, *, timeout: float | None = None
    ) -> None:
        """As `SAM2TritonClient.forget`."""
        await run_flow_async(self._images.forget(image, timeout), self._transport)

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncSAM2TritonClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
