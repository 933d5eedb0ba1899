"""Masks of a changed graph against those of the FP32 one: what decides whether it may be used.

By masks and not by tensors: a logit may move far where it is large, and must not where it is nearly 0.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from export.demo_model.scoring import mask_iou
from export.errors import VerificationError
from export.onnx_export import GraphFiles
from export.pictures import Picture, compared_pictures
from export.pixels import FP16_ZERO
from export.verify import open_session

# Mean IoU with the FP32 graphs' masks, over all objects of all pictures. The small model's own masks reach
# 0.92 with hand-drawn outlines: 0.98 keeps what is lost well below what is wrong anyway.
LEAST_MEAN_IOU = 0.98
FEATURES = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
NOT_A_POINT, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = -1, 1, 2, 3

Array = NDArray[np.generic]


class Session(Protocol):
    """ONNX Runtime's InferenceSession, or what looks like it."""

    def get_inputs(self) -> Any: ...

    def run(self, output_names: list[str] | None, feeds: dict[str, Array], /) -> list[Array]: ...


class Agreement(NamedTuple):
    """How well the masks of one kind of prompt agree."""

    prompt: str
    objects: int
    mean_iou: float
    worst_iou: float


class Sessions(NamedTuple):
    """An encoder and a decoder that can be run."""

    encoder: Session
    decoder: Session

    @classmethod
    def of(cls, files: GraphFiles) -> "Sessions":
        return cls(open_session(files.encoder), open_session(files.decoder))


def compare_masks(
    reference: Sessions,
    changed: Sessions,
    image_size: int,
    pictures: Iterable[Picture] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Agreement]:
    """The masks that a user gets for a click and for a box on each object, by both."""
    ious: dict[str, list[float]] = {"click": [], "box": []}
    for picture in compared_pictures() if pictures is None else pictures:
        progress(f"masks: {picture.name}")
        expected = _masks(reference, picture, image_size)
        found = _masks(changed, picture, image_size)
        for prompt, masks in expected.items():
            ious[prompt] += map(mask_iou, found[prompt], masks)
    return [
        Agreement(prompt, len(values), float(np.mean(values)), min(values))
        for prompt, values in ious.items()
    ]


def refuse_disagreement(agreements: Iterable[Agreement], what: str) -> None:
    """Raise a VerificationError where masks agree less than LEAST_MEAN_IOU."""
    # Written so that NaN fails.
    failed = [a for a in agreements if not a.mean_iou >= LEAST_MEAN_IOU]
    if failed:
        found = "; ".join(f"{a.prompt}: {a.mean_iou:.4f} over {a.objects} objects" for a in failed)
        raise VerificationError(
            f"the {what} graphs give other masks than FP32: expected a mean IoU of at least"
            f" {LEAST_MEAN_IOU}, got {found}. Export this checkpoint in FP32"
        )


def agreement_table(agreements: Iterable[Agreement], title: str) -> Table:
    """For people."""
    table = Table("prompt", title=title, caption=f"mean over objects at least {LEAST_MEAN_IOU}")
    for column in ("objects", "mean IoU", "worst"):
        table.add_column(column, justify="right")
    for a in agreements:
        table.add_row(a.prompt, str(a.objects), f"{a.mean_iou:.4f}", f"{a.worst_iou:.4f}")
    return table


def _masks(sessions: Sessions, picture: Picture, image_size: int) -> dict[str, list[Array]]:
    """The best of three candidates for each object's click, and the single mask for its box."""
    squashed = Image.fromarray(picture.image).resize(
        (image_size, image_size), Image.Resampling.BILINEAR
    )
    levels = np.asarray(squashed).transpose(2, 0, 1)[None].copy()
    takes_levels = sessions.encoder.get_inputs()[0].type == "tensor(uint8)"
    pixels = levels if takes_levels else (levels.astype(np.float16) - FP16_ZERO)
    features = sessions.encoder.run(None, {"resized_image": pixels})
    padding = np.zeros_like(picture.clicks_xy)[:, None]
    clicks = np.concatenate([picture.clicks_xy[:, None], padding], 1)
    corners = np.concatenate([picture.boxes_xyxy.reshape(-1, 2, 2), padding], 1)
    hw = picture.image.shape[:2]
    found = {}
    for prompt, points, labels in (
        ("click", clicks, [FOREGROUND, NOT_A_POINT]),
        ("box", corners, [TOP_LEFT, BOTTOM_RIGHT, NOT_A_POINT]),
    ):
        planes, ious = _decode(sessions.decoder, features, points / hw[::-1], labels)
        best = 1 + ious[:, 1:].argmax(1) if prompt == "click" else np.zeros(len(planes), int)
        chosen = planes[np.arange(len(planes)), best]
        found[prompt] = [
            cv2.resize(plane, hw[::-1], interpolation=cv2.INTER_LINEAR) > 0 for plane in chosen
        ]
    return found


def _decode(
    decoder: Session, features: list[Array], unit_points: Array, labels: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count, side = len(unit_points), features[1].shape[-1]
    feed = dict(zip(FEATURES, features, strict=True)) | {
        "unit_point_coords": unit_points.astype(np.float32),
        "token_labels": np.tile(np.array([labels], np.int32), (count, 1)),
        "dense_mask_input": np.zeros((count, 1, side, side), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }
    planes, ious = decoder.run(["plane_logits", "plane_ious"], feed)
    return planes.astype(np.float32), ious.astype(np.float32)
