"""Parameters with which something of the small model in the box survives Meta's filters."""

from typing import Any

# The small model's edges are soft: at Meta's own thresholds nothing of it survives.
SOFT: dict[str, Any] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.8,
    "stability_score_offset": 0.3,
}
CASES: dict[str, dict[str, Any]] = {
    "default": SOFT,
    "crops": SOFT | {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "m2m": SOFT | {"use_m2m": True},
    "one mask a point": SOFT | {"multimask_output": False},
}
