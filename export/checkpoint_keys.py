"""Meta's names for SAM 2.1's weights, and transformers' names for the same.

Every key of a checkpoint is matched whole: what no rule knows is reported, never dropped.
"""

import re
from collections.abc import Iterable

_DECODER_BLOCK = r"sam_mask_decoder\.transformer\.layers\.(\d+)"
_ATTENTION = r"(self_attn|cross_attn_token_to_image|cross_attn_image_to_token)"
_HEAD = (
    r"sam_mask_decoder\.(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+)"
)
_WB = r"(weight|bias)"

# Meta's key, as a pattern, ► transformers' key.
_IMAGE_KEYS: tuple[tuple[str, str], ...] = (
    # Image encoder
    (r"image_encoder\.trunk\.(pos_embed|pos_embed_window)", r"vision_encoder.backbone.\1"),
    (
        rf"image_encoder\.trunk\.patch_embed\.proj\.{_WB}",
        r"vision_encoder.backbone.patch_embed.projection.\1",
    ),
    (
        rf"image_encoder\.trunk\.blocks\.(\d+)\.norm([12])\.{_WB}",
        r"vision_encoder.backbone.blocks.\1.layer_norm\2.\3",
    ),
    (
        rf"image_encoder\.trunk\.blocks\.(\d+)\.(attn\.qkv|attn\.proj|proj)\.{_WB}",
        r"vision_encoder.backbone.blocks.\1.\2.\3",
    ),
    (
        rf"image_encoder\.trunk\.blocks\.(\d+)\.mlp\.layers\.0\.{_WB}",
        r"vision_encoder.backbone.blocks.\1.mlp.proj_in.\2",
    ),
    (
        rf"image_encoder\.trunk\.blocks\.(\d+)\.mlp\.layers\.1\.{_WB}",
        r"vision_encoder.backbone.blocks.\1.mlp.proj_out.\2",
    ),
    (rf"image_encoder\.neck\.convs\.(\d+)\.conv\.{_WB}", r"vision_encoder.neck.convs.\1.\2"),
    # Prompt encoder
    (r"sam_prompt_encoder\.(not_a_point_embed|no_mask_embed)\.weight", r"prompt_encoder.\1.weight"),
    (rf"sam_prompt_encoder\.mask_downscaling\.0\.{_WB}", r"prompt_encoder.mask_embed.conv1.\1"),
    (
        rf"sam_prompt_encoder\.mask_downscaling\.1\.{_WB}",
        r"prompt_encoder.mask_embed.layer_norm1.\1",
    ),
    (rf"sam_prompt_encoder\.mask_downscaling\.3\.{_WB}", r"prompt_encoder.mask_embed.conv2.\1"),
    (
        rf"sam_prompt_encoder\.mask_downscaling\.4\.{_WB}",
        r"prompt_encoder.mask_embed.layer_norm2.\1",
    ),
    (rf"sam_prompt_encoder\.mask_downscaling\.6\.{_WB}", r"prompt_encoder.mask_embed.conv3.\1"),
    # Mask decoder
    (
        r"sam_mask_decoder\.(iou_token|mask_tokens|obj_score_token)\.weight",
        r"mask_decoder.\1.weight",
    ),
    (
        rf"{_DECODER_BLOCK}\.{_ATTENTION}\.([qkv])_proj\.{_WB}",
        r"mask_decoder.transformer.layers.\1.\2.\3_proj.\4",
    ),
    (
        rf"{_DECODER_BLOCK}\.{_ATTENTION}\.out_proj\.{_WB}",
        r"mask_decoder.transformer.layers.\1.\2.o_proj.\3",
    ),
    (
        rf"{_DECODER_BLOCK}\.norm([1-4])\.{_WB}",
        r"mask_decoder.transformer.layers.\1.layer_norm\2.\3",
    ),
    (
        rf"{_DECODER_BLOCK}\.mlp\.layers\.0\.{_WB}",
        r"mask_decoder.transformer.layers.\1.mlp.proj_in.\2",
    ),
    (
        rf"{_DECODER_BLOCK}\.mlp\.layers\.1\.{_WB}",
        r"mask_decoder.transformer.layers.\1.mlp.proj_out.\2",
    ),
    (
        rf"sam_mask_decoder\.transformer\.final_attn_token_to_image\.([qkv])_proj\.{_WB}",
        r"mask_decoder.transformer.final_attn_token_to_image.\1_proj.\2",
    ),
    (
        rf"sam_mask_decoder\.transformer\.final_attn_token_to_image\.out_proj\.{_WB}",
        r"mask_decoder.transformer.final_attn_token_to_image.o_proj.\1",
    ),
    (
        rf"sam_mask_decoder\.transformer\.norm_final_attn\.{_WB}",
        r"mask_decoder.transformer.layer_norm_final_attn.\1",
    ),
    (rf"sam_mask_decoder\.output_upscaling\.0\.{_WB}", r"mask_decoder.upscale_conv1.\1"),
    (rf"sam_mask_decoder\.output_upscaling\.1\.{_WB}", r"mask_decoder.upscale_layer_norm.\1"),
    (rf"sam_mask_decoder\.output_upscaling\.3\.{_WB}", r"mask_decoder.upscale_conv2.\1"),
    (rf"sam_mask_decoder\.(conv_s[01])\.{_WB}", r"mask_decoder.\1.\2"),
    (rf"{_HEAD}\.layers\.0\.{_WB}", r"mask_decoder.\1.proj_in.\2"),
    (rf"{_HEAD}\.layers\.1\.{_WB}", r"mask_decoder.\1.layers.0.\2"),
    (rf"{_HEAD}\.layers\.2\.{_WB}", r"mask_decoder.\1.proj_out.\2"),
    # Meta's image predictor adds this one too: directly_add_no_mem_embed
    (r"no_mem_embed", r"no_memory_embedding"),
)

# One tensor in Meta's file, four rows of one, or two copies of one, in transformers' model.
POINT_EMBEDDING = re.compile(r"sam_prompt_encoder\.point_embeddings\.([0-3])\.weight")
GAUSSIAN = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
GAUSSIAN_COPIES = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)

# Tracking through video: memory and pointers. Meta's key ► transformers' key, like the image's.
_MEMORY_LAYER = r"memory_attention\.layers\.(\d+)"
_FUSER_LAYER = r"memory_encoder\.fuser\.layers\.(\d+)"
_DOWNSAMPLER = r"memory_encoder\.mask_downsampler\.encoder"
_VIDEO_KEYS: tuple[tuple[str, str], ...] = (
    (
        rf"{_MEMORY_LAYER}\.(self_attn|cross_attn_image)\.([qkv])_proj\.{_WB}",
        r"memory_attention.layers.\1.\2.\3_proj.\4",
    ),
    (
        rf"{_MEMORY_LAYER}\.(self_attn|cross_attn_image)\.out_proj\.{_WB}",
        r"memory_attention.layers.\1.\2.o_proj.\3",
    ),
    (rf"{_MEMORY_LAYER}\.(linear[12])\.{_WB}", r"memory_attention.layers.\1.\2.\3"),
    (rf"{_MEMORY_LAYER}\.norm([1-3])\.{_WB}", r"memory_attention.layers.\1.layer_norm\2.\3"),
    (rf"memory_attention\.norm\.{_WB}", r"memory_attention.layer_norm.\1"),
    # Convolution, norm and activation take turns, so every third entry of Meta's list is a layer.
    *(
        (
            rf"{_DOWNSAMPLER}\.{3 * layer}\.{_WB}",
            rf"memory_encoder.mask_downsampler.layers.{layer}.conv.\1",
        )
        for layer in range(4)
    ),
    *(
        (
            rf"{_DOWNSAMPLER}\.{3 * layer + 1}\.{_WB}",
            rf"memory_encoder.mask_downsampler.layers.{layer}.layer_norm.\1",
        )
        for layer in range(4)
    ),
    (rf"{_DOWNSAMPLER}\.12\.{_WB}", r"memory_encoder.mask_downsampler.final_conv.\1"),
    (rf"memory_encoder\.pix_feat_proj\.{_WB}", r"memory_encoder.feature_projection.\1"),
    (rf"memory_encoder\.out_proj\.{_WB}", r"memory_encoder.projection.\1"),
    (
        rf"{_FUSER_LAYER}\.dwconv\.{_WB}",
        r"memory_encoder.memory_fuser.layers.\1.depthwise_conv.\2",
    ),
    (rf"{_FUSER_LAYER}\.norm\.{_WB}", r"memory_encoder.memory_fuser.layers.\1.layer_norm.\2"),
    (
        rf"{_FUSER_LAYER}\.pwconv([12])\.{_WB}",
        r"memory_encoder.memory_fuser.layers.\1.pointwise_conv\2.\3",
    ),
    (rf"{_FUSER_LAYER}\.gamma", r"memory_encoder.memory_fuser.layers.\1.scale"),
    (r"maskmem_tpos_enc", r"memory_temporal_positional_encoding"),
    # In the checkpoint, but neither Meta's predictor nor these graphs use it.
    (r"no_mem_pos_enc", r"no_memory_positional_encoding"),
    (r"no_obj_ptr", r"no_object_pointer"),
    (r"no_obj_embed_spatial", r"occlusion_spatial_embedding_parameter"),
    (rf"mask_downsample\.{_WB}", r"mask_downsample.\1"),
    (rf"obj_ptr_proj\.layers\.0\.{_WB}", r"object_pointer_proj.proj_in.\1"),
    (rf"obj_ptr_proj\.layers\.1\.{_WB}", r"object_pointer_proj.layers.0.\1"),
    (rf"obj_ptr_proj\.layers\.2\.{_WB}", r"object_pointer_proj.proj_out.\1"),
    (rf"obj_ptr_tpos_proj\.{_WB}", r"temporal_positional_encoding_projection_layer.\1"),
)
_TRANSFORMERS_VIDEO_KEYS = (
    r"memory_attention\..+",
    r"memory_encoder\..+",
    r"memory_temporal_positional_encoding",
    r"no_memory_positional_encoding",
    r"no_object_pointer",
    r"occlusion_spatial_embedding_parameter",
    rf"mask_downsample\.{_WB}",
    r"object_pointer_proj\..+",
    rf"temporal_positional_encoding_projection_layer\.{_WB}",
)

_COMPILED = tuple((re.compile(pattern), new) for pattern, new in _IMAGE_KEYS)
_COMPILED_VIDEO = tuple((re.compile(pattern), new) for pattern, new in _VIDEO_KEYS)
_TRANSFORMERS_VIDEO = re.compile("|".join(_TRANSFORMERS_VIDEO_KEYS))


def transformers_key(meta_key: str) -> str | None:
    """The name of a Meta weight in transformers' model; None where no rule knows it."""
    for pattern, new in (*_COMPILED, *_COMPILED_VIDEO):
        found = pattern.fullmatch(meta_key)
        if found:
            return found.expand(new)
    return None


def meta_video_keys(keys: Iterable[str]) -> set[str]:
    """Those of Meta's keys that belong to video tracking."""
    return {key for key in keys if any(p.fullmatch(key) for p, _ in _COMPILED_VIDEO)}


def transformers_video_keys(keys: Iterable[str]) -> set[str]:
    """Those of transformers' keys that belong to video tracking."""
    return {key for key in keys if _TRANSFORMERS_VIDEO.fullmatch(key)}
