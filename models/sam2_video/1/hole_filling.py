"""Small holes in low-resolution masks become foreground, as on Meta's GPU path.

Source: `fill_holes_in_mask_scores` of the SAM 2 repository. It needs a CUDA extension there and is skipped
without a word where that is missing; here it always happens.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

HOLE_LOGIT = 0.1
CONNECTIVITY = 8


def fill_holes(logits: npt.NDArray[np.float32], max_area: int) -> npt.NDArray[np.float32]:
    """Sets background components (<= 0) of at most max_area pixels in logits [s, s] to HOLE_LOGIT."""
    background = logits <= 0
    if max_area == 0 or not background.any() or background.all():
        # A map that is background throughout is no hole unless it is as small as one, which none is.
        return logits
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        background.astype(np.uint8), connectivity=CONNECTIVITY
    )
    is_hole = stats[:, cv2.CC_STAT_AREA] <= max_area
    is_hole[0] = False  # the foreground
    return np.where(is_hole[labels], np.float32(HOLE_LOGIT), logits)
