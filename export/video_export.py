"""The video graphs as ONNX files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from export.graphs import VideoGraphs
from export.onnx_export import Dims, write_graph
from export.onnx_files import VIDEO_FILES


class VideoFiles(NamedTuple):
    """The four ONNX files that tracking needs besides the encoder's."""

    memory_attention: Path
    video_decoder: Path
    memory_encoder: Path
    mask_prompt: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "VideoFiles":
        """Where they lie in a folder of ONNX files."""
        return cls(*(folder / name for name in VIDEO_FILES))


class Tensors(NamedTuple):
    """A graph's inputs and outputs with their dimensions, in order."""

    inputs: dict[str, Dims]
    outputs: dict[str, Dims]


def video_tensors(image_size: int, embed_channels: int, memory_channels: int) -> dict[str, Tensors]:
    """Tensors of each graph, by the graph's name; B objects, N tokens, M memories, P pointers each."""
    s, c, d = image_size, embed_channels, memory_channels
    side, low = s // 16, s // 4
    one: Dims = (1, 1)
    frame: Dims = (1, c, side, side)
    masks: Dims = ("B", 1, low, low)
    made: dict[str, Dims] = {"memory_fingerprint": one}
    checked: dict[str, Dims] = {"fingerprint_matches": (1,)}
    return {
        "memory_attention": Tensors(
            {
                "image_embed": frame,
                "encoder_fingerprint": one,
                "maskmem_features": ("B", "M", d, side, side),
                "maskmem_tpos": ("B", "M"),
                "obj_ptrs": ("B", "P", c),
                "obj_ptr_offsets": ("B", "P"),
                "memory_fingerprint": one,
            },
            {"conditioned_embed": ("B", c, side, side), **checked},
        ),
        "video_decoder": Tensors(
            {
                "image_embed": ("B or 1", c, side, side),
                "high_res_feats_0": (1, c // 8, low, low),
                "high_res_feats_1": (1, c // 4, s // 8, s // 8),
                "encoder_fingerprint": one,
                "add_no_memory": ("B",),
                "unit_point_coords": ("B", "N", 2),
                "token_labels": ("B", "N"),
                "dense_mask_input": masks,
                "has_mask_input": ("B",),
                "best_of_three": ("B",),
                "object_present": ("B",),
            },
            {
                "low_res_masks": masks,
                "iou_predictions": ("B", 1),
                "object_score_logits": ("B", 1),
                "obj_ptr": ("B", c),
                **made,
                **checked,
            },
        ),
        "memory_encoder": Tensors(
            {
                "image_embed": frame,
                "encoder_fingerprint": one,
                "low_res_masks": masks,
                "object_score_logits": ("B", 1),
                "binarize": ("B",),
            },
            {"maskmem_features": ("B", d, side, side), **made, **checked},
        ),
        "mask_prompt": Tensors(
            {"mask_prompt": ("B", 1, s, s), "encoder_fingerprint": one},
            {"dense_mask_input": masks, "low_res_masks": masks, **made, **checked},
        ),
    }


def write_video_graphs(
    graphs: VideoGraphs,
    files: VideoFiles,
    metadata: Mapping[str, str],
    device: str = "cpu",
    progress: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write the four files; `progress` hears of each one before it is written."""
    attention = graphs.memory_attention
    declared = video_tensors(
        graphs.video_decoder.image_size, attention.width, attention.memory_channels
    )
    for name, graph, path in zip(VideoGraphs._fields, graphs, files, strict=True):
        progress(path)
        tensors = declared[name]
        write_graph(
            graph,
            path,
            dims=tensors.inputs | tensors.outputs,
            inputs=tuple(tensors.inputs),
            metadata=metadata,
            device=device,
        )


def video_metadata(
    image_metadata: Mapping[str, str], graphs: VideoGraphs, memory_source: str
) -> dict[str, str]:
    """What a video graph's file says about itself, on top of what the image graphs say.

    Args:
        image_metadata: of the encoder that they belong to.
        graphs: the graphs.
        memory_source: where the memory's weights come from, if not from the checkpoint.
    """
    return {
        **image_metadata,
        "memory_channels": str(graphs.memory_attention.memory_channels),
        "memory_fingerprint": str(int(graphs.memory_attention.memory_fingerprint.item())),
        "source_memory": memory_source or image_metadata["source_checkpoint"],
    }
