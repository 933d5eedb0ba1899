"""The four video graphs as calls with names, over whatever runs them.

Each graph says whether its weights are those that made what it is given; where they are not, the masks would
be nonsense, so the call fails instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from memory_bank import PointPrompt

FloatArray = npt.NDArray[np.float32]
HalfArray = npt.NDArray[np.float16]
Tensors = dict[str, npt.NDArray[Any]]
RunGraph = Callable[[str, Tensors, Sequence[str]], Awaitable[Tensors]]

MEMORY_ATTENTION, VIDEO_DECODER = "sam2_memory_attention", "sam2_video_decoder"
MEMORY_ENCODER, MASK_PROMPT = "sam2_memory_encoder", "sam2_mask_prompt"
# The same graph without bounds, where an engine of MEMORY_ATTENTION has some.
WIDE_ATTENTION = "sam2_memory_attention_wide"
OUTPUTS = {
    MEMORY_ATTENTION: ("conditioned_embed",),
    WIDE_ATTENTION: ("conditioned_embed",),
    VIDEO_DECODER: (
        "low_res_masks",
        "iou_predictions",
        "object_score_logits",
        "obj_ptr",
        "memory_fingerprint",
    ),
    MEMORY_ENCODER: ("maskmem_features", "memory_fingerprint"),
    MASK_PROMPT: ("dense_mask_input", "low_res_masks"),
}
MATCHES = "fingerprint_matches"
PADDING_LABEL = -1


@dataclass(frozen=True)
class AttentionRange:
    """See config.pbtxt, which declares it. 0: no bounds."""

    attention_memories: int = 0
    attention_pointers: int = 0

    def graph_for(self, memories: int, pointers: int) -> str:
        """Who takes so many memories and pointers of each object; an engine takes no empty tensor."""
        if not self.attention_memories or not self.attention_pointers:
            return MEMORY_ATTENTION
        is_within = memories <= self.attention_memories and 1 <= pointers <= self.attention_pointers
        return MEMORY_ATTENTION if is_within else WIDE_ATTENTION


class RetiredWeightsError(RuntimeError):
    """Features, memories or pointers come from other weights than the graphs have now."""


@dataclass(frozen=True)
class FrameFeatures:
    """One frame's features from the encoder.

    image_embed float16 [1, C, S/16, S/16]; high_res_feats_0 float16 [1, C/8, S/4, S/4]; high_res_feats_1
    float16 [1, C/4, S/8, S/8]; encoder_fingerprint int64 [1, 1].
    """

    image_embed: HalfArray
    high_res_feats_0: HalfArray
    high_res_feats_1: HalfArray
    encoder_fingerprint: npt.NDArray[np.int64]

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())

    @property
    def low_res_side(self) -> int:
        return self.high_res_feats_0.shape[-1]

    @property
    def channels(self) -> int:
        return self.image_embed.shape[1]


@dataclass(frozen=True)
class DecoderPrompt:
    """How B objects are decoded: points float32 [B, N, 2] in the unit square, labels int32 [B, N], flags."""

    unit_coords: FloatArray
    labels: npt.NDArray[np.int32]
    add_no_memory: bool = False
    best_of_three: bool = True
    object_present: bool = True


def point_prompt(prompt: PointPrompt, add_no_memory: bool) -> DecoderPrompt:
    """One object's clicks and box corners, and the padding point behind them. One point leaves it open what
    is meant, so the best of three candidates is taken; a box counts as two."""
    return DecoderPrompt(
        np.concatenate([prompt.unit_coords, np.zeros((1, 2), np.float32)])[None],
        np.concatenate([prompt.labels, np.array([PADDING_LABEL], np.int32)])[None],
        add_no_memory,
        best_of_three=len(prompt.labels) <= 1,
    )


def no_prompt(objects: int) -> DecoderPrompt:
    """Of B objects that are tracked: Meta pads a prompt that is none with one point, then with another."""
    labels = np.full((objects, 2), PADDING_LABEL, np.int32)
    return DecoderPrompt(np.zeros((objects, 2, 2), np.float32), labels)


@dataclass(frozen=True)
class DecodedObjects:
    """low_res_masks float32 [B, 1, s, s], iou_predictions and object_score_logits [B, 1], obj_ptr [B, C]."""

    low_res_masks: FloatArray
    iou_predictions: FloatArray
    object_score_logits: FloatArray
    obj_ptr: FloatArray
    memory_fingerprint: int


class VideoGraphs:
    """Calls of the four graphs; `run` takes a graph's name, its inputs and the outputs that are wanted."""

    def __init__(self, run: RunGraph, attention: AttentionRange | None = None) -> None:
        self._run = run
        self._attention = attention or AttentionRange()

    async def decode(
        self,
        features: FrameFeatures,
        image_embed: HalfArray,
        prompt: DecoderPrompt,
        earlier_logits: FloatArray | None,
    ) -> DecodedObjects:
        """Masks, scores and pointers of B objects; image_embed is [B, C, h, w] or one for all."""
        objects, side = len(prompt.labels), features.low_res_side
        dense = np.zeros((objects, 1, side, side), np.float32)

        def for_each(value: bool) -> FloatArray:
            return np.full(objects, value, np.float32)

        decoded = await self._call(
            VIDEO_DECODER,
            image_embed=image_embed,
            high_res_feats_0=features.high_res_feats_0,
            high_res_feats_1=features.high_res_feats_1,
            encoder_fingerprint=features.encoder_fingerprint,
            add_no_memory=for_each(prompt.add_no_memory),
            unit_point_coords=prompt.unit_coords,
            token_labels=prompt.labels,
            dense_mask_input=dense if earlier_logits is None else earlier_logits,
            has_mask_input=for_each(earlier_logits is not None),
            best_of_three=for_each(prompt.best_of_three),
            object_present=for_each(prompt.object_present),
        )
        fingerprint = int(decoded.pop("memory_fingerprint").flat[0])
        return DecodedObjects(**decoded, memory_fingerprint=fingerprint)

    async def encode_memory(
        self,
        features: FrameFeatures,
        low_res_masks: FloatArray,
        object_score_logits: FloatArray,
        binarize: bool,
    ) -> HalfArray:
        """Memories float16 [B, D, h, w] of B objects' masks [B, 1, s, s] and scores [B, 1] on one frame."""
        encoded = await self._call(
            MEMORY_ENCODER,
            image_embed=features.image_embed,
            encoder_fingerprint=features.encoder_fingerprint,
            low_res_masks=low_res_masks,
            object_score_logits=object_score_logits,
            binarize=np.full(len(low_res_masks), binarize, np.float32),
        )
        return encoded["maskmem_features"]

    async def prepare_mask_prompt(
        self, mask: npt.NDArray[np.uint8], features: FrameFeatures
    ) -> tuple[FloatArray, FloatArray]:
        """The decoder's dense input, and the logits, both [B, 1, s, s], of masks uint8 [B, 1, S, S]."""
        prepared = await self._call(
            MASK_PROMPT, mask_prompt=mask, encoder_fingerprint=features.encoder_fingerprint
        )
        return prepared["dense_mask_input"], prepared["low_res_masks"]

    async def attend(
        self, features: FrameFeatures, remembered: Mapping[str, Any], fingerprints: set[int]
    ) -> HalfArray:
        """The features in the light of what B objects remember: float16 [B, C, h, w]."""
        if len(fingerprints) != 1:
            raise RetiredWeightsError("the session's memories come from different weights")
        _, memories = remembered["maskmem_tpos"].shape
        _, pointers = remembered["obj_ptr_offsets"].shape
        attended = await self._call(
            self._attention.graph_for(memories, pointers),
            image_embed=features.image_embed,
            encoder_fingerprint=features.encoder_fingerprint,
            memory_fingerprint=np.array([[fingerprints.pop()]], np.int64),
            **remembered,
        )
        return attended["conditioned_embed"]

    async def _call(self, graph: str, **inputs: npt.NDArray[Any]) -> Tensors:
        outputs = await self._run(graph, inputs, (*OUTPUTS[graph], MATCHES))
        if not outputs.pop(MATCHES).all():
            raise RetiredWeightsError(
                f"{graph} has other weights than those the session began with"
            )
        return outputs
