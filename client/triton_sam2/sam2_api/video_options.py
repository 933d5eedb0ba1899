"""Overrides of Meta's configuration, as `build_sam2_video_predictor` takes them ► a session's options."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from triton_sam2.sam2_api.server_model import not_over_server

FILL_HOLE_AREA = 8  # what Meta's postprocessing sets
_OVERRIDE = re.compile(r"\+*model\.(?P<name>[\w.]+)=(?P<value>[^=]*)")
_SWITCHES = ("non_overlap_masks", "add_all_frames_to_correct_as_cond")
_NUMBERS = ("fill_hole_area", "max_cond_frames_in_attn")
# What the server's network has anyway.
_ALWAYS = (
    "binarize_mask_from_pts_for_mem_enc=true",
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
)


def video_options(overrides: Sequence[str], apply_postprocessing: bool) -> dict[str, int | bool]:
    """Options by name; raises NotOverServerError for an override of the network itself."""
    options: dict[str, int | bool] = {}
    for text in overrides:
        found = _OVERRIDE.fullmatch(text)
        name, value = (found["name"], found["value"].lower()) if found else ("", "")
        if name in _SWITCHES and value in ("true", "false"):
            options[name] = value == "true"
        elif name in _NUMBERS and re.fullmatch(r"-?\d+", value):
            options[name] = int(value)
        elif f"{name}={value}" not in _ALWAYS:
            raise not_over_server(f"hydra_overrides_extra: {text!r}")
    if apply_postprocessing:
        # As in the original, it comes after the overrides.
        return {**options, "fill_hole_area": FILL_HOLE_AREA}
    warnings.warn(
        "apply_postprocessing=False: holes are not filled; single masks are still the most stable ones, and "
        "memories of clicked masks still of what was shown, as with True",
        stacklevel=4,
    )
    return options
