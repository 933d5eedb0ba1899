"""The shapes that TensorRT's engines are built for, and that models are warmed up with."""

from dataclasses import dataclass
from typing import Any

ENCODER, DECODER = "sam2_encoder", "sam2_decoder"
ATTENTION = "sam2_memory_attention"
VIDEO_GRAPHS = (ATTENTION, "sam2_video_decoder", "sam2_memory_encoder", "sam2_mask_prompt")
Axes = dict[str, tuple[str | None, ...]]
# Dynamic axes by model: objects (B), points of each with a box's corners (N), memories (M), pointers (P).
# Tensors that are not listed have none.
AXES: dict[str, Axes] = {
    DECODER: {
        "unit_point_coords": ("objects", "points", None),
        "token_labels": ("objects", "points"),
        "dense_mask_input": ("objects", None, None, None),
        "has_mask_input": ("objects",),
    },
    ATTENTION: {
        "maskmem_features": ("objects", "memories", None, None, None),
        "maskmem_tpos": ("objects", "memories"),
        "obj_ptrs": ("objects", "pointers", None),
        "obj_ptr_offsets": ("objects", "pointers"),
    },
    "sam2_video_decoder": {
        "image_embed": ("objects", None, None, None),
        "add_no_memory": ("objects",),
        "unit_point_coords": ("objects", "points", None),
        "token_labels": ("objects", "points"),
        "dense_mask_input": ("objects", None, None, None),
        "has_mask_input": ("objects",),
        "best_of_three": ("objects",),
        "object_present": ("objects",),
    },
    "sam2_memory_encoder": {
        "low_res_masks": ("objects", None, None, None),
        "object_score_logits": ("objects", None),
        "binarize": ("objects",),
    },
    "sam2_mask_prompt": {"mask_prompt": ("objects", None, None, None)},
}


@dataclass(frozen=True)
class Shapes:
    """One end of a range of shapes."""

    images: int = 1
    objects: int = 1
    points: int = 1
    memories: int = 1
    pointers: int = 1


@dataclass(frozen=True)
class ShapeRange:
    """TensorRT's provider neither widens it nor turns to CUDA's: a request beyond the largest fails."""

    smallest: Shapes
    usual: Shapes
    largest: Shapes


# A lone click has a point and a padding point; a few objects with a few clicks are what people send.
IMAGES = ShapeRange(Shapes(), Shapes(points=2), Shapes(images=8, objects=64, points=32))
# One object with one prompted frame has 7 memories and 16 pointers from its sixteenth frame on. As many
# objects at most as sam2_video sends at once (max_objects_per_call).
VIDEO = ShapeRange(
    Shapes(),
    Shapes(points=2, memories=7, pointers=16),
    Shapes(objects=8, points=32, memories=16, pointers=31),
)


def range_of(model: str) -> ShapeRange:
    return VIDEO if model in VIDEO_GRAPHS else IMAGES


def input_shapes(config: Any, shapes: Shapes) -> dict[str, list[int]]:
    """Full shape, batch included, of every input of a ModelConfig that has a dynamic axis."""
    if config.name == ENCODER:
        images = min(shapes.images, config.max_batch_size)
        return {tensor.name: [images, *tensor.dims] for tensor in config.input}
    found = {}
    for tensor in config.input:
        if -1 not in tensor.dims:
            continue
        axes = AXES[config.name][tensor.name]
        found[tensor.name] = [
            getattr(shapes, axis) if size == -1 and axis is not None else int(size)
            for axis, size in zip(axes, tensor.dims, strict=True)
        ]
    return found
