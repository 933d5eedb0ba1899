"""Points, boxes and an earlier mask in pixels of the original image to the decoder's tensors.

Source of the semantics: `SAM2ImagePredictor._prep_prompts` and `_predict` of the SAM 2 repository. Box
corners become two points labelled 2 and 3 before the clicks, and one padding point labelled -1 ends the
list wherever there are points or a box. With a mask alone the reference has no sparse token at all; ONNX
inputs cannot be left out, so a token labelled -2 stands there, which the decoder graph ignores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

BOX_CORNER_LABELS = (2, 3)
PADDING_LABEL = -1
NO_TOKEN_LABEL = -2
CLICK_LABELS = (PADDING_LABEL, 0, 1)


class InvalidPromptError(ValueError):
    """A prompt cannot be used; the message names the tensor, what was expected and what came."""


@dataclass(frozen=True)
class PromptLimits:
    """Most objects, points per object, and tokens of all objects together that one request may carry.

    Tokens are points, two for a box, and one that ends the list: each looks at the whole image in the
    decoder, for each object anew. max_image_pixels bounds original_hw, which direct callers make up.
    """

    max_objects: int
    max_points_per_object: int
    max_tokens: int
    max_image_pixels: int


@dataclass(frozen=True)
class RawPrompt:
    """What a client sent, in pixels of the upright original image; None where it sent nothing.

    Shapes: point_coords [B, N, 2] x, y; point_labels [B, N]; box [B, 4] x0, y0, x1, y1;
    mask_input [B, 1, s, s] logits.
    """

    point_coords: FloatArray | None = None
    point_labels: IntArray | None = None
    box: FloatArray | None = None
    mask_input: FloatArray | None = None


@dataclass(frozen=True)
class DecoderPrompt:
    """The decoder's inputs: float32 [B, T, 2] in the unit square, int32 [B, T], float32 [B, 1, s, s], [B]."""

    unit_point_coords: FloatArray
    token_labels: IntArray
    dense_mask_input: FloatArray
    has_mask_input: FloatArray


def encode_prompt(
    prompt: RawPrompt, original_hw: tuple[int, int], low_res_side: int, limits: PromptLimits
) -> DecoderPrompt:
    """Validates a client's prompt and turns it into the decoder's tensors.

    Point tensors without a point ([B, 0, 2] and [B, 0]) count as none where there is a box or a mask.

    Raises:
        InvalidPromptError: nothing to segment by, or tensors that are incomplete, too many, of unequal B,
            not finite, or with unknown labels.
    """
    _check_size(original_hw, limits.max_image_pixels)
    prompt = _without_empty_points(prompt)
    objects = _count_objects(prompt, limits)
    _check_points(prompt, limits)
    _check_tokens(prompt, objects, limits)
    _check_box(prompt.box)
    _check_finite("mask_input", prompt.mask_input)

    coords: list[FloatArray] = []
    labels: list[IntArray] = []
    if prompt.box is not None:
        coords.append(prompt.box.reshape(objects, 2, 2))
        labels.append(np.tile(np.array(BOX_CORNER_LABELS, np.int32), (objects, 1)))
    if prompt.point_coords is not None and prompt.point_labels is not None:
        coords.append(prompt.point_coords)
        labels.append(prompt.point_labels)
    last_label = PADDING_LABEL if coords else NO_TOKEN_LABEL
    coords.append(np.zeros((objects, 1, 2), np.float32))
    labels.append(np.full((objects, 1), last_label, np.int32))

    height, width = original_hw
    mask_shape = (objects, 1, low_res_side, low_res_side)
    has_mask = prompt.mask_input is not None
    return DecoderPrompt(
        unit_point_coords=np.concatenate(coords, axis=1) / np.array([width, height], np.float32),
        token_labels=np.concatenate(labels, axis=1),
        dense_mask_input=(
            np.zeros(mask_shape, np.float32) if prompt.mask_input is None else prompt.mask_input
        ),
        has_mask_input=np.full(objects, has_mask, np.float32),
    )


def _check_size(original_hw: tuple[int, int], max_image_pixels: int) -> None:
    height, width = original_hw
    if height < 1 or width < 1 or height * width > max_image_pixels:
        raise InvalidPromptError(
            f"original_hw: expected a height and a width of at least 1 and at most {max_image_pixels}"
            f" pixels together (max_image_pixels), got {height} x {width}"
        )


def _without_empty_points(prompt: RawPrompt) -> RawPrompt:
    """Annotation tools always send point arrays, empty while there is only a box."""
    coords, labels = prompt.point_coords, prompt.point_labels
    if coords is None or labels is None or coords.shape[1] or labels.shape[1]:
        return prompt
    if prompt.box is None and prompt.mask_input is None:
        return prompt
    return replace(prompt, point_coords=None, point_labels=None)


def _count_objects(prompt: RawPrompt, limits: PromptLimits) -> int:
    counts = {
        name: tensor.shape[0]
        for name, tensor in (
            ("point_coords", prompt.point_coords),
            ("point_labels", prompt.point_labels),
            ("box", prompt.box),
            ("mask_input", prompt.mask_input),
        )
        if tensor is not None
    }
    if not counts:
        raise InvalidPromptError(
            "expected a prompt: point_coords with point_labels, box or mask_input, got none of them"
        )
    listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
    if len(set(counts.values())) > 1:
        raise InvalidPromptError(
            f"expected the same number of objects (B) in all prompts, got: {listed}"
        )
    objects = next(iter(counts.values()))
    if not 1 <= objects <= limits.max_objects:
        raise InvalidPromptError(
            f"expected 1 to {limits.max_objects} objects (B; max_objects), got: {listed}"
        )
    return objects


def _check_points(prompt: RawPrompt, limits: PromptLimits) -> None:
    coords, labels = prompt.point_coords, prompt.point_labels
    if (coords is None) != (labels is None):
        given, missing = (
            ("point_labels", "point_coords") if coords is None else ("point_coords", "point_labels")
        )
        raise InvalidPromptError(f"{missing}: expected together with {given}, got only {given}")
    if coords is None or labels is None:
        return
    if coords.shape[:2] != labels.shape:
        raise InvalidPromptError(
            f"point_labels: expected shape {list(coords.shape[:2])} as point_coords"
            f" {list(coords.shape)} has, got {list(labels.shape)}"
        )
    if not 1 <= coords.shape[1] <= limits.max_points_per_object:
        raise InvalidPromptError(
            f"point_coords: expected 1 to {limits.max_points_per_object} points per object (N;"
            f" max_points_per_object), got {coords.shape[1]}"
        )
    _check_finite("point_coords", coords)
    unknown = labels[~np.isin(labels, CLICK_LABELS)]
    if unknown.size:
        raise InvalidPromptError(
            "point_labels: expected 1 (foreground), 0 (background) or -1 (padding), got"
            f" {int(unknown.flat[0])}"
        )


def _check_tokens(prompt: RawPrompt, objects: int, limits: PromptLimits) -> None:
    points = 0 if prompt.point_coords is None else prompt.point_coords.shape[1]
    tokens = objects * (points + 2 * (prompt.box is not None) + 1)
    if tokens > limits.max_tokens:
        boxes = "a" if prompt.box is not None else "no"
        raise InvalidPromptError(
            f"point_coords: expected at most {limits.max_tokens} tokens (max_tokens) for all objects"
            f" together, got {objects} objects (B) of {points} points (N), {boxes} box"
            f" and an end = {tokens}; send fewer objects or points at a time"
        )


def _check_box(box: FloatArray | None) -> None:
    _check_finite("box", box)
    if box is None:
        return
    inverted = np.nonzero((box[:, 0] > box[:, 2]) | (box[:, 1] > box[:, 3]))[0]
    if inverted.size:
        raise InvalidPromptError(
            "box: expected x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got"
            f" {box[inverted[0]].tolist()} for object {int(inverted[0])}"
        )


def _check_finite(name: str, values: FloatArray | None) -> None:
    if values is not None and not np.isfinite(values).all():
        broken = float(values[~np.isfinite(values)].flat[0])
        raise InvalidPromptError(f"{name}: expected finite numbers, got {broken}")
