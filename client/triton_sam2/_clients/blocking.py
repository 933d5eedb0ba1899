"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from triton_sam2._inputs.images import ImageHandle, ImageSource
from triton_sam2._inputs.prompts import PointsLike
from triton_sam2._results.generated import GeneratedMasks
from triton_sam2._results.segmentation import Segmentation
from triton_sam2._transports.grpc_blocking import GrpcTransport
from triton_sam2._transports.http_blocking import HttpTransport
from triton_sam2._transports.rpc import Transport, run_flow

if TYPE_CHECKING:
    from typing_extensions import Unpack  # part of Python from 3.11 on


class SAM2TritonClient:
    """Segment Anything 2.1 on a Triton server, over gRPC or HTTP.

        client = SAM2TritonClient("localhost:8001")
        client.set_image("photo.jpg")
        masks, iou = client.predict([[512, 512]], [1])
        masks[0, 0] > 0                                  # the mask, at the photo's own size

    Threads may share a client; then let each call name its image, since `set_image` is for all of them:
    `client.predict(..., image=client.prefetch(["photo.jpg"])[0])`.

    Args:
        url: `host:port`, or with `grpc://`, `grpcs://`, `http://` or `https://` before it. Without a scheme,
            port 8000 means HTTP and any other port gRPC. None: the environment's TRITON_URL, else
            `localhost:8001`. Connecting happens with the first call.
        timeout: seconds for a whole call, its retries included, unless the call says otherwise.
        retry: how to try again while the server is overloaded or restarting.
        headers: go with every call, for API keys and the like.
        ca_file: PEM file of the authorities to trust, for `grpcs://` and `https://`; None: the usual ones.
        cert_file, key_file: PEM files of a client certificate, where the server wants one.

    Raises:
        InvalidInputError: an argument is wrong. Every call raises errors of the `TritonSam2Error` tree only.
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
        _transport: Transport | None = None,
    ) -> None:
        settings = Settings.read(url, timeout, retry, headers, (ca_file, cert_file, key_file))
        self._images = ImageState(settings)
        self._transport = _transport or _connect(settings)

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

    def set_image(
        self,
        image: ImageSource | ImageHandle | None = None,
        *,
        image_id: str | None = None,
        timeout: float | None = None,
    ) -> ImageHandle:
        """Send an image, once; predictions then refer to it by its id.

        Args:
            image: a path, an image file's bytes (JPEG, PNG, WebP, BMP, TIFF) or an open file, sent untouched;
                or pixels, uint8 [H, W, 3] RGB, [H, W] or [H, W, 1] grey, or a PIL image (its pixels as they
                are, without EXIF orientation), sent as PNG; or a handle from an earlier call.
            image_id: a name for it (the server bounds its length); default: an id made from the bytes.
                Alone, without an image, it refers to an image that the server already has.
            timeout: seconds; default: the client's.

        Raises:
            InvalidInputError: not an image, or one that the server refuses.
            ImageNotFoundError: an `image_id` alone that the server does not know.
        """
        return run_flow(self._images.set_image(image, image_id, timeout), self._transport)

    def predict(
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
        """Masks of the current image for some prompts, sending the image's id alone.

        Should the server have forgotten the image, it is sent again along with the prompts.

        Args:
            point_coords: x, y in pixels of the upright original image: [N, 2], [B, N, 2], or a list of B
                lists, of unequal lengths if need be.
            point_labels: 1 foreground, 0 background, -1 padding: [N], [B, N] or such a list.
            box: x0, y0, x1, y1 in the same pixels: [4] or [B, 4].
            mask_input: a plane of `low_res_masks` to refine: [s, s], [1, s, s] or [B, 1, s, s].
            multimask_output: three candidates per object instead of one.
            formats: any of `bitmap`, `logits`, `rle`, `png`; what is not named is not transferred.
            low_res_masks: whether to transfer those, too.
            image: another image than the current one.
            timeout: seconds; default: the client's.

        Raises:
            NoImageError: no image was set.
            InvalidInputError: a prompt is wrong; the message names it.
            ImageNotFoundError: the server has forgotten an image that was set by its id alone;
                ImageChangedError, if the id stands for another image now.
        """
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        return run_flow(self._images.predict(image, prompts, timeout), self._transport)

    def segment(
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
        """`set_image` and `predict` in one request; arguments and errors are theirs."""
        prompts = PromptArguments(
            point_coords, point_labels, box, mask_input, multimask_output, formats, low_res_masks
        )
        return run_flow(self._images.segment(image, image_id, prompts, timeout), self._transport)

    def generate(
        self,
        image: ImageSource | ImageHandle | None = None,
        *,
        image_id: str | None = None,
        formats: Formats = ("rle",),
        timeout: float | None = None,
        **parameters: Unpack[GeneratorParameters],
    ) -> GeneratedMasks:
        """Every mask of an image, without prompts: Meta's SAM2AutomaticMaskGenerator, in the server, in one
        call.

            for record in client.generate("photo.jpg", points_per_side=16):
                print(record["area"], record["bbox"], record["predicted_iou"])

        Args:
            image: as in `set_image`; a file becomes the current image. None: the current image.
            image_id: a name for an image that is sent.
            formats: any of `rle`, `bitmap`, `png`; what is not named is made here, from what is.
            timeout: seconds; default: the client's. A thousand points take seconds to a minute without a GPU.
            parameters: Meta's, under their own names and with their defaults: points_per_side,
                points_per_batch, pred_iou_thresh, stability_score_thresh, stability_score_offset,
                mask_threshold, box_nms_thresh, crop_n_layers, crop_nms_thresh, crop_overlap_ratio,
                crop_n_points_downscale_factor, point_grids, min_mask_region_area, use_m2m,
                multimask_output. And, off by default, min_mask_area, max_mask_area, mask_nms_thresh,
                mask_containment_thresh, max_masks. The main README says what they do.

        Raises:
            NoImageError: no image was given or set.
            InvalidInputError: a parameter is wrong or beyond the server's limits; the message names it.
            ImageNotFoundError: the server has forgotten an image, or a crop of one, that it is to know by
                its id.
        """
        wanted = wanted_masks(parameters, formats)
        return run_flow(self._images.generate(image, image_id, wanted, timeout), self._transport)

    def prefetch(
        self, images: Iterable[ImageSource], *, concurrency: int = 4, timeout: float | None = None
    ) -> list[ImageHandle]:
        """Have images encoded before they are needed, several at a time; the current image stays.

        Pass a handle to `predict(image=...)` or `set_image`. The first error ends it.
        """

        def encode(image: ImageSource) -> ImageHandle:
            return run_flow(self._images.encode(image, None, timeout), self._transport)

        with ThreadPoolExecutor(max(1, concurrency)) as pool:
            return list(pool.map(encode, images))

    def forget(
        self, image: ImageHandle | str | None = None, *, timeout: float | None = None
    ) -> None:
        """Have the server drop an image (default: the current one) from its cache, under all its ids.

        Raises:
            ImageNotFoundError: the server does not know the image.
        """
        run_flow(self._images.forget(image, timeout), self._transport)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> SAM2TritonClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _connect(settings: Settings) -> Transport:
    transport = GrpcTransport if settings.endpoint.is_grpc else HttpTransport
    return transport(settings.endpoint, settings.credentials)
