"""Meta's own `SAM2VideoPredictor` as the reference, with weights that make every rule of it count.

It comes from the PyPI package rf-sam-2 (installed without its dependencies), whose module is the one of the
SAM 2 repository. What it lacks on a CPU is put in its place here: the CUDA extension that finds holes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from tests.models.video.answers import Answer

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
# The part of all decodings whose object score shall be negative.
ABSENT_SHARE = 0.2
# Below it, a tensor's numbers are one and the same: a norm's weights, a bias.
CONSTANT_DEVIATION = 1e-7
# What is added to each copy, in deviations of its own.
COPY_NOISE = 0.3
# By how much parts are turned up.
FACTORS = {
    "cross_attn_image.q_proj": 2.0,
    "cross_attn_image.k_proj": 2.0,
    "cross_attn_image.out_proj": 4.0,
    "cross_attn_image.v_proj": 2.0,
    "obj_ptr_tpos_proj": 10.0,
    "maskmem_tpos_enc": 10.0,
    "no_obj_ptr": 10.0,
    "no_obj_embed_spatial": 10.0,
    "obj_ptr_proj": 4.0,
    "pred_obj_score_head": 30.0 ** (1 / 3),  # of three layers
    "iou_prediction_head": 30.0 ** (1 / 3),
}


def build_predictor(image_size: int, seed: int = 0, **options: bool | int) -> Any:
    """An untrained predictor of the tiny architecture; options are those of its constructor."""
    _find_components_without_cuda()
    from sam2.build_sam import build_sam2_video_predictor

    side = image_size // 16
    sizes = [
        f"++model.memory_attention.layer.{kind}.feat_sizes=[{side},{side}]"
        for kind in ("self_attention", "cross_attention")
    ]
    torch.manual_seed(seed)
    predictor = build_sam2_video_predictor(
        CONFIG,
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={image_size}", *sizes],
        **options,
    )
    _make_weights_count(predictor, seed)
    _keep_memories_exact(predictor)
    _encode_each_frame_once(predictor)
    return predictor.eval()


def set_options(predictor: Any, **options: bool | int) -> None:
    """Changes options of the constructor on a built predictor."""
    for name, value in options.items():
        if not hasattr(predictor, name):
            raise AttributeError(f"SAM2VideoPredictor has no option {name}")
        setattr(predictor, name, value)


def _make_weights_count(predictor: Any, seed: int) -> None:
    """Meta's own initial weights, copies and constants among them made different, and the parts that tell
    its rules apart turned up: otherwise mistakes drown in what is the same."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in predictor.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith(".gamma"):  # 1e-6 to begin with: the fuser would do nothing
                tensor.fill_(0.1).add_(0.03 * noise)
            elif tensor.numel() == 1 or float(tensor.std()) < CONSTANT_DEVIATION:
                tensor.add_(0.1 * noise)
            elif "memory_attention.layers" in name or "fuser.layers" in name:
                tensor.add_(COPY_NOISE * float(tensor.std()) * noise)
            for part, factor in FACTORS.items():
                if part in name:
                    tensor.mul_(factor)


def calibrate_scores(predictor: Any, prompted: list[float], tracked: list[float]) -> None:
    """Turns the object score so that prompts find their object, and moves it so that ABSENT_SHARE of what was
    tracked would have been absent: an object that is absent from the start hides every other mistake."""
    last = predictor.sam_mask_decoder.pred_obj_score_head.layers[-1]
    sign = 1.0 if np.median(prompted) >= np.median(tracked) else -1.0
    # Amid the widest gap near that part, so that no score comes to lie on the border.
    ordered = np.sort(sign * np.array(tracked))
    first, stop = (int((ABSENT_SHARE + off) * len(ordered)) for off in (-0.1, 0.1))
    lower = first + int(np.diff(ordered[first : stop + 1]).argmax())
    with torch.no_grad():
        last.weight.mul_(sign)
        last.bias.mul_(sign).sub_(float(ordered[lower] + ordered[lower + 1]) / 2)


def _keep_memories_exact(predictor: Any) -> None:
    """Meta keeps memories in BF16, which on a CPU fails where there is no pointer (mixed types). Rounded to
    it and handed back in FP32 they are the same numbers, and nothing fails."""
    encode = predictor._encode_new_memory

    def rounded(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        features, positions = encode(*args, **kwargs)
        return _RoundedTensor(features.to(torch.bfloat16).float()), positions

    predictor._encode_new_memory = rounded


def _encode_each_frame_once(predictor: Any) -> None:
    """Meta keeps one frame's features; the same frames in every scenario would be most of the time."""
    encode, encoded = predictor.forward_image, {}

    def once(image: Tensor) -> Any:
        key = image.numpy().tobytes()
        if key not in encoded:
            encoded[key] = encode(image)
        return encoded[key]

    predictor.forward_image = once


class _RoundedTensor(Tensor):
    """A tensor that is rounded already: a further conversion to BF16 keeps it as it is."""

    @staticmethod
    def __new__(cls, values: Tensor) -> _RoundedTensor:
        return values.as_subclass(cls)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        if torch.bfloat16 in args:
            return self.as_subclass(Tensor)
        return super().to(*args, **kwargs)


def _find_components_without_cuda() -> None:
    def get_connected_componnets(masks: Tensor) -> tuple[Tensor, Tensor]:
        """8-connected components' labels and areas, 0 in the background; [N, 1, H, W]."""
        labels, areas = np.zeros(masks.shape, np.int32), np.zeros(masks.shape, np.int32)
        for index, mask in enumerate(masks[:, 0].numpy()):
            labels[index, 0] = label(mask, connectivity=2)
            counts = np.bincount(labels[index, 0].ravel())
            areas[index, 0] = np.where(mask > 0, counts[labels[index, 0]], 0)
        return torch.from_numpy(labels), torch.from_numpy(areas)

    extension = ModuleType("sam2._C")
    extension.get_connected_componnets = get_connected_componnets  # type: ignore[attr-defined]
    sys.modules["sam2._C"] = extension


class MetaSession:
    """One video in Meta's predictor, with the calls of scenarios.py."""

    def __init__(self, predictor: Any, folder: Path) -> None:
        self._predictor = predictor
        self._state = predictor.init_state(str(folder))

    def points(
        self, frame: int, object_id: int, points=None, labels=None, *, box=None, clear: bool = True
    ) -> Answer:
        return self._answer(
            *self._predictor.add_new_points_or_box(
                self._state, frame, object_id, points, labels, clear, box=box
            )
        )

    def mask(self, frame: int, object_id: int, mask: np.ndarray) -> Answer:
        return self._answer(*self._predictor.add_new_mask(self._state, frame, object_id, mask))

    def track(
        self, start: int | None = None, most: int | None = None, reverse: bool = False
    ) -> list[Answer]:
        frames = self._predictor.propagate_in_video(self._state, start, most, reverse)
        return [self._answer(*frame) for frame in frames]

    def clear(self, frame: int, object_id: int) -> Answer:
        return self._answer(
            *self._predictor.clear_all_prompts_in_frame(self._state, frame, object_id)
        )

    def remove(self, object_id: int) -> None:
        self._predictor.remove_object(self._state, object_id, strict=True)

    def reset(self) -> None:
        self._predictor.reset_state(self._state)

    def _answer(self, frame: int, object_ids: list[int], logits: Tensor) -> Answer:
        return Answer(frame, list(object_ids), logits[:, 0].numpy(), self._scores(frame))

    def _scores(self, frame: int) -> list[float | None]:
        """Object scores of what was answered, by the order in which Meta looks for it."""
        scores = []
        news, olds = (self._state[f"{kind}output_dict_per_obj"] for kind in ("temp_", ""))
        for index in range(len(self._state["obj_ids"])):
            places = [
                stores[index][f"{kind}_frame_outputs"]
                for stores in (news, olds)
                for kind in ("cond", "non_cond")
            ]
            output = next((place[frame] for place in places if frame in place), None)
            scores.append(None if output is None else float(output["object_score_logits"]))
        return scores


def calibrate(predictor: Any, clip_folder: Path) -> None:
    """Calibrates the object score on a click and a box that are tracked both ways."""
    set_options(predictor, add_all_frames_to_correct_as_cond=True)
    session = MetaSession(predictor, clip_folder)
    prompts = [
        session.points(3, 1, [[150, 110]], [1]),
        session.points(4, 2, box=[90, 60, 220, 180]),
    ]
    tracked = [*session.track(), *session.track(start=3, reverse=True)]
    calibrate_scores(
        predictor,
        [score for answer in prompts for score in answer.scores if score is not None],
        [s for a in tracked for s in a.scores if s is not None and a.frame not in (3, 4)],
    )
