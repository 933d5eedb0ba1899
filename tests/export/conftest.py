"""A micro SAM 2.1 with random weights, without and with a memory, and its exported files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
)

from export.checkpoint import LoadedCheckpoint
from export.graphs import Graphs, VideoGraphs, build_graphs, build_video_graphs, fingerprint_of
from export.onnx_export import (
    GraphFiles,
    metadata_of,
    write_decoder,
    write_encoder,
)
from export.onnx_files import DECODER_FILE, ENCODER_FILE
from export.precision import Precision, with_precision
from export.random_weights import randomize
from export.sizes import with_image_size
from export.video_export import VideoFiles, video_metadata, write_video_graphs
from export.video_model import video_config, video_model

# 96 px: the two last stages' windows (8) are larger than their maps (6, 3), so padding is tested.
IMAGE_SIZE = 96
CHANNELS = 32
MEMORY_CHANNELS = 8
# Neither Meta's widths nor its number of layers: nothing may depend on those.
MEMORY = {
    "memory_attention_hidden_size": CHANNELS,
    "memory_attention_num_layers": 2,
    "memory_attention_feed_forward_hidden_size": 48,
    "memory_encoder_hidden_size": CHANNELS,
    "memory_encoder_output_channels": MEMORY_CHANNELS,
    "mask_downsampler_embed_dim": CHANNELS,
    "memory_fuser_embed_dim": CHANNELS,
    "memory_fuser_intermediate_dim": 40,
}


def micro_config(image_size: int = IMAGE_SIZE) -> Sam2Config:
    dims = [8, 16, 32, 64]
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(
                hidden_size=dims[0],
                num_attention_heads=1,
                blocks_per_stage=[1, 2, 3, 1],
                embed_dim_per_stage=dims,
                num_attention_heads_per_stage=[1, 2, 2, 4],
                window_size_per_stage=[8, 4, 8, 8],
                global_attention_blocks=[4],
                window_positional_embedding_background_size=[7, 7],
            ),
            backbone_channel_list=dims[::-1],
            fpn_hidden_size=CHANNELS,
            fpn_top_down_levels=[2, 3],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=CHANNELS),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=CHANNELS, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=CHANNELS
        ),
    )
    return with_image_size(config, image_size)


def micro_model(seed: int = 0, image_size: int = IMAGE_SIZE) -> Sam2Model:
    model = Sam2Model(micro_config(image_size))
    randomize(model, seed)
    return model.eval()


def micro_video_model(seed: int = 0, image_size: int = IMAGE_SIZE) -> Sam2VideoModel:
    """The micro model with a memory; its image weights are those of `micro_model`."""
    model = video_model(video_config(micro_config(image_size), MEMORY, "micro"))
    randomize(model, seed)
    model.load_state_dict(micro_model(seed, image_size).state_dict(), strict=False)
    return model


def write_video_files(
    model: Sam2VideoModel, image_model: Sam2Model, folder: Path, precision: Precision = "fp32"
) -> VideoFiles:
    image_graphs = build_graphs(image_model)
    checkpoint = LoadedCheckpoint(image_model, "micro", "micro.pt", "0" * 64, ())
    metadata = metadata_of(checkpoint, image_graphs, precision)
    graphs = with_precision(build_video_graphs(model, int(metadata["fingerprint"])), precision)
    files = VideoFiles.in_folder(folder)
    write_video_graphs(graphs, files, video_metadata(metadata, graphs, ""))
    return files


def write_files(model: Sam2Model, folder: Path, precision: Precision = "fp32") -> GraphFiles:
    graphs = with_precision(build_graphs(model), precision)
    checkpoint = LoadedCheckpoint(model, "micro", "micro.pt", "0" * 64, ())
    metadata = metadata_of(checkpoint, graphs, precision)
    files = GraphFiles(folder / ENCODER_FILE, folder / DECODER_FILE)
    write_encoder(graphs, files.encoder, metadata)
    write_decoder(graphs, files.decoder, metadata)
    return files


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For so small a model more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model() -> Sam2Model:
    return micro_model()


@pytest.fixture(scope="session")
def graphs(model: Sam2Model) -> Graphs:
    return build_graphs(model)


@pytest.fixture(scope="session")
def files(model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return write_files(model, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def tracker() -> Sam2VideoModel:
    return micro_video_model()


@pytest.fixture(scope="session")
def video_graphs(tracker: Sam2VideoModel, model: Sam2Model) -> VideoGraphs:
    return build_video_graphs(tracker, fingerprint_of(model))


@pytest.fixture(scope="session")
def video_files(
    tracker: Sam2VideoModel, model: Sam2Model, tmp_path_factory: pytest.TempPathFactory
) -> VideoFiles:
    return write_video_files(tracker, model, tmp_path_factory.mktemp("video-onnx"))
