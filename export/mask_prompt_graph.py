"""A mask as a prompt: as the decoder's dense input, and as the frame's own logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.layers import Module, dense, fp32

# The logits of a mask that was given, not predicted: -10 outside, 10 inside.
LOGIT_SCALE, LOGIT_SHIFT = 20.0, -10.0
# A quarter of the size, antialiased: a triangle of 8 taps in each direction.
TAPS, STRIDE = 8, 4


class MaskPromptGraph(nn.Module):
    """The reference's learned and its antialiased quarter size, side by side."""

    taps: Tensor
    coverage: Tensor
    encoder_fingerprint: Tensor
    memory_fingerprint: Tensor

    def __init__(self, model: Module, encoder_fingerprint: int, memory_fingerprint: int) -> None:
        super().__init__()
        self.learned = model.mask_downsample
        distance = (torch.arange(TAPS).float() + 0.5 - TAPS / 2).abs()
        triangle = 1 - distance / (TAPS / 2)
        taps = torch.outer(triangle, triangle)[None, None]
        size = int(model.image_size)
        # At the edges some taps lie outside: the weights that are left count as a whole.
        coverage = quarter_size(torch.ones(1, 1, size, size), taps)
        self.register_buffer("taps", taps)
        self.register_buffer("coverage", coverage)
        self.register_buffer("encoder_fingerprint", torch.tensor([encoder_fingerprint]))
        self.register_buffer("memory_fingerprint", torch.tensor([[memory_fingerprint]]))

    def forward(
        self, mask_prompt: Tensor, encoder_fingerprint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Turn B objects' masks into what the decoder and the memory encoder take.

        Args:
            mask_prompt: UINT8 [B, 1, S, S], 0 or 1.
            encoder_fingerprint: INT64 [1, 1], of the frame's features.

        Returns:
            `dense_mask_input` FP32 [B, 1, S/4, S/4], `low_res_masks` FP32 [B, 1, S/4, S/4],
            `memory_fingerprint` INT64 [1, 1], `fingerprint_matches` BOOL [1].
        """
        mask = mask_prompt.float()
        dense_mask_input = fp32(dense(self.learned, mask))
        inside = quarter_size(mask, self.taps) / self.coverage
        matches = encoder_fingerprint[0] == self.encoder_fingerprint
        return (
            dense_mask_input,
            inside * LOGIT_SCALE + LOGIT_SHIFT,
            self.memory_fingerprint.clone(),
            matches,
        )


def quarter_size(mask: Tensor, taps: Tensor) -> Tensor:
    """Sums of the taps' weights over [B, 1, S, S] ► [B, 1, S/4, S/4]; outside counts as nothing."""
    return F.conv2d(mask, taps, stride=STRIDE, padding=(TAPS - STRIDE) // 2)
