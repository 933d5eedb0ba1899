"""Prompt encoder and mask decoder for a video's frame: one mask, score and pointer for each object."""

import torch
from torch import Tensor
from torch.nn import functional as F

from export.decoder_graph import DecoderSteps, channels_last
from export.layers import Module, feed_forward, fp32

# The logits of an object that is not there.
ABSENT_LOGIT = -1024.0


class VideoDecoderGraph(DecoderSteps):
    """The B objects of one frame, chosen among planes as Meta's video predictor does."""

    absent_pointer: Tensor
    memory_fingerprint: Tensor

    def __init__(self, model: Module, encoder_fingerprint: int, memory_fingerprint: int) -> None:
        super().__init__(model, encoder_fingerprint)
        self.pointer_head = model.object_pointer_proj
        config = model.mask_decoder.config
        self.stability_delta = float(config.dynamic_multimask_stability_delta)
        self.stability_threshold = float(config.dynamic_multimask_stability_thresh)
        absent = model.no_object_pointer.detach().clone()
        self.register_buffer("absent_pointer", absent.reshape(1, -1))
        self.register_buffer("memory_fingerprint", torch.tensor([[memory_fingerprint]]))

    def forward(  # noqa: PLR0917 - the tracer passes tensors by position
        self,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        encoder_fingerprint: Tensor,
        add_no_memory: Tensor,
        unit_point_coords: Tensor,
        token_labels: Tensor,
        dense_mask_input: Tensor,
        has_mask_input: Tensor,
        best_of_three: Tensor,
        object_present: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Decode B objects of one frame.

        Args:
            image_embed: FP16 [B, C, S/16, S/16], or [1, …] for all: as encoded, or conditioned.
            high_res_feats_0: FP16 [1, C/8, S/4, S/4].
            high_res_feats_1: FP16 [1, C/4, S/8, S/8].
            encoder_fingerprint: INT64 [1, 1], of the frame's features.
            add_no_memory: FP32 [B], 1 where the features are not conditioned and nothing is remembered.
            unit_point_coords: FP32 [B, N, 2], as the image decoder takes them.
            token_labels: INT32 [B, N], as the image decoder takes them.
            dense_mask_input: FP32 [B, 1, S/4, S/4], logits.
            has_mask_input: FP32 [B], 1 where the object's mask counts, else 0.
            best_of_three: FP32 [B], 1: the best candidate by predicted IoU; 0: the single mask, with the
                stability fallback.
            object_present: FP32 [B], 0 where the mask prompt is empty.

        Returns:
            `low_res_masks` FP32 [B, 1, S/4, S/4], `iou_predictions` FP32 [B, 1], `object_score_logits`
            FP32 [B, 1], `obj_ptr` FP32 [B, C], `memory_fingerprint` INT64 [1, 1],
            `fingerprint_matches` BOOL [1].
        """
        sparse, key_bias = self._sparse(unit_point_coords, token_labels)
        pixels = channels_last(image_embed).float() + add_no_memory.view(-1, 1, 1) * self.no_memory
        pixels = pixels + self._dense(dense_mask_input, has_mask_input)
        tokens, pixels = self._two_way(sparse, key_bias, pixels)
        planes = self._planes(tokens, pixels, high_res_feats_0, high_res_feats_1)
        ious = self._ious(tokens)
        scores = fp32(feed_forward(self.decoder.pred_obj_score_head, tokens[:, 0]))
        present = scores > 0

        best = ious[:, 1:].argmax(dim=1, keepdim=True) + 1
        single = torch.zeros_like(best)
        of_three = best_of_three.view(-1, 1) > 0.5
        plane = torch.where(of_three, best, torch.where(self._stable(planes), single, best))
        # The stability fallback changes the mask, not the token that the pointer comes from.
        token = torch.where(of_three, best, single)

        masks = (planes * _one_of_four(plane)[:, :, None, None]).sum(dim=1, keepdim=True)
        masks = torch.where(present[:, :, None, None], masks, torch.full_like(masks, ABSENT_LOGIT))
        chosen = (tokens[:, 2:6] * _one_of_four(token)[:, :, None]).sum(dim=1)
        pointers = fp32(feed_forward(self.pointer_head, chosen))
        there = present & (object_present.view(-1, 1) > 0.5)
        pointers = torch.where(there, pointers, self.absent_pointer)
        iou = (ious * _one_of_four(plane)).sum(dim=1, keepdim=True)
        matches = encoder_fingerprint[0] == self.fingerprint
        return masks, iou, scores, pointers, self.memory_fingerprint.clone(), matches

    def _stable(self, planes: Tensor) -> Tensor:
        """BOOL [B, 1]: whether the single mask hardly changes with the threshold."""
        logits = planes[:, 0].flatten(1)
        delta = self.stability_delta
        inner = (logits > delta).float().sum(dim=1, keepdim=True)
        outer = (logits > -delta).float().sum(dim=1, keepdim=True)
        # An empty mask is a stable one.
        share = torch.where(outer > 0, inner / outer.clamp(min=1), torch.ones_like(outer))
        return share >= self.stability_threshold


def _one_of_four(index: Tensor) -> Tensor:
    """[B, 1] ► FP32 [B, 4], 1 at the index: products with 0 and 1 choose exactly."""
    return F.one_hot(index[:, 0], 4).float()
