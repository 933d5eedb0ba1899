"""`sam2.build_sam`: nothing is built, a server is named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2.sam2_api.sam2_video_predictor import SAM2VideoPredictor
from triton_sam2.sam2_api.server_model import (
    TIMEOUT_S,
    ServerModel,
    check_arguments,
    log_ignored,
    not_over_server,
)


def build_sam2(  # noqa: PLR0917 - Meta's signature
    config_file: str | None = None,
    ckpt_path: str | None = None,
    device: Any = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **connection: Any,
) -> ServerModel:
    """As `sam2.build_sam.build_sam2`, with a server instead of a checkpoint.

    Which weights are loaded, and where, the server decides: `config_file`, `ckpt_path` and `device` are taken
    so that code need not change, logged, and not opened.

    Args:
        config_file, ckpt_path, device: for the log.
        mode: "eval".
        hydra_overrides_extra: none; the server's network is as it was exported.
        apply_postprocessing: the server always has what True means to the image model (for a single mask, the
            most stable one); False warns.
        connection: those of SAM2TritonClient: url (None: TRITON_URL, else localhost:8001), headers for an API
            key, timeout (120 s here), retry, ca_file, cert_file, key_file.

    Raises:
        NotOverServerError: training, or another network than the server's, is asked for.
    """
    check_arguments(mode, connection)
    if hydra_overrides_extra:
        raise not_over_server(f"hydra_overrides_extra={list(hydra_overrides_extra)}")
    if not apply_postprocessing:
        warnings.warn(
            "apply_postprocessing=False: a single mask (multimask_output=False) is still the most stable "
            "one, as with True; three masks are the same either way",
            stacklevel=2,
        )
    client = SAM2TritonClient(**{"timeout": TIMEOUT_S, **connection})
    log_ignored(config_file, ckpt_path, device, client.url)
    return ServerModel(client)


def build_sam2_hf(model_id: str, **kwargs: Any) -> ServerModel:
    """As `sam2.build_sam.build_sam2_hf`: nothing is downloaded, the server has its weights."""
    return build_sam2(model_id, None, **kwargs)


def build_sam2_video_predictor(  # noqa: PLR0917 - Meta's signature
    config_file: str | None = None,
    ckpt_path: str | None = None,
    device: Any = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,  # noqa: ARG001 - how fast it is, the server decides
    **connection: Any,
) -> SAM2VideoPredictor:
    """As `sam2.build_sam.build_sam2_video_predictor`; arguments as in `build_sam2`.

    Of overrides, those of what the server's sessions can be told are taken: `++model.` and fill_hole_area,
    non_overlap_masks, add_all_frames_to_correct_as_cond or max_cond_frames_in_attn.
    """
    return SAM2VideoPredictor.connected(
        config_file,
        ckpt_path,
        device=device,
        mode=mode,
        hydra_overrides_extra=hydra_overrides_extra,
        apply_postprocessing=apply_postprocessing,
        **connection,
    )


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """As `sam2.build_sam.build_sam2_video_predictor_hf`: nothing is downloaded."""
    return build_sam2_video_predictor(model_id, None, **kwargs)
