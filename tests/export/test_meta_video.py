"""Meta's own video modules, with weights saved in Meta's format, against the converted model's graphs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export.checkpoint import Memory, load_checkpoint
from export.checkpoint_keys import transformers_key
from export.errors import CheckpointError
from export.graphs import VideoGraphs, build_video_graphs
from export.random_weights import randomize
from export.sizes import config_for
from export.video_model import video_config, video_model

build_sam = pytest.importorskip("sam2.build_sam", reason="needs rf-sam-2, hydra-core and iopath")

from tests.export.test_meta_checkpoint import CONFIGS, save  # noqa: E402

pytestmark = pytest.mark.slow

S, C, D = 256, 256, 64
SIDE, LOW = S // 16, S // 4


@pytest.fixture(scope="module")
def meta() -> Any:
    """Meta's tiny model; sizes differ in the encoder alone, of which nothing is used here."""
    overrides = [
        f"++model.image_size={S}",
        # As `build_sam2_video_predictor` has it.
        "++model.binarize_mask_from_pts_for_mem_enc=true",
    ]
    model = build_sam.build_sam2(CONFIGS["tiny"], device="cpu", hydra_overrides_extra=overrides)
    randomize(model, seed=0)
    return model.eval()


@pytest.fixture(scope="module")
def graphs(meta: Any, tmp_path_factory: pytest.TempPathFactory) -> VideoGraphs:
    path = tmp_path_factory.mktemp("meta") / "sam2.1_hiera_tiny.pt"
    loaded = load_checkpoint(save(meta, path), image_size=S, memory=Memory())
    assert loaded.video is not None
    assert loaded.unused_keys == ()
    assert loaded.memory_name == ""
    return build_video_graphs(loaded.video, 7)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SEVEN = torch.tensor([[7]])


@torch.no_grad()
def meta_conditioned(  # noqa: PLR0917
    meta: Any, embed: Tensor, memories: Tensor, times: Tensor, pointers: Tensor, offsets: Tensor
) -> Tensor:
    """As Meta's `_prepare_memory_conditioned_features` puts them together, for one object."""
    from sam2.modeling.sam2_utils import get_1d_sine_pe

    position = meta.image_encoder.neck.position_encoding(embed[None])
    places = meta.memory_encoder.position_encoding(memories)
    tokens = [memory.flatten(1).T[:, None] for memory in memories]
    codes = [
        place.flatten(1).T[:, None] + meta.maskmem_tpos_enc[time]
        for place, time in zip(places, times, strict=True)
    ]
    parts = C // D
    if len(pointers):
        when = meta.obj_ptr_tpos_proj(get_1d_sine_pe(offsets, dim=C))
        tokens.append(pointers.reshape(-1, 1, D))
        codes.append(when[:, None].repeat_interleave(parts, dim=0))
    conditioned = meta.memory_attention(
        curr=embed.flatten(1).T[:, None],
        curr_pos=position.flatten(2).permute(2, 0, 1),
        memory=torch.cat(tokens),
        memory_pos=torch.cat(codes),
        num_obj_ptr_tokens=parts * len(pointers),
    )
    return conditioned[:, 0].T.reshape(C, SIDE, SIDE)


@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (3, 2), (7, 16)])
def test_conditioned_features_are_metas(
    meta: Any, graphs: VideoGraphs, memories: int, pointers: int
) -> None:
    embed = noise(1, C, SIDE, SIDE).half()
    stored = noise(2, memories, D, SIDE, SIDE, seed=1).half()
    times = torch.randint(0, 7, (2, memories), generator=torch.Generator().manual_seed(2))
    held, offsets = noise(2, pointers, C, seed=3), noise(2, pointers, seed=4).abs()
    with torch.no_grad():
        conditioned, _ = graphs.memory_attention(
            embed,
            SEVEN,
            stored,
            times,
            held,
            offsets,
            graphs.memory_attention.memory_fingerprint[None],
        )
    for index in range(2):
        expected = meta_conditioned(
            meta, embed[0].float(), stored[index].float(), times[index], held[index], offsets[index]
        )
        # One step of FP16.
        torch.testing.assert_close(conditioned[index].float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize(
    ("labels", "with_mask", "of_three"),
    [
        ([1], False, True),
        ([2, 3], False, False),
        ([1, 0], True, False),
        ([], False, True),
        ([], True, False),
    ],
    ids=["click", "box", "correction", "tracking", "mask"],
)
def test_decodings_are_metas(  # noqa: PLR0917
    meta: Any,
    graphs: VideoGraphs,
    labels: list[int],
    with_mask: bool,
    of_three: bool,
    present: bool,
) -> None:
    embed = noise(1, C, SIDE, SIDE, seed=5).half()
    high_res = [
        noise(1, C // 8, LOW, LOW, seed=6).half(),
        noise(1, C // 4, 2 * SIDE, 2 * SIDE, seed=7).half(),
    ]
    points = torch.rand(1, len(labels), 2, generator=torch.Generator().manual_seed(8))
    mask = 4 * noise(1, 1, LOW, LOW, seed=9)
    decoder = graphs.video_decoder
    # The same shift of the score on both sides.
    biases = (
        meta.sam_mask_decoder.pred_obj_score_head.layers[-1].bias,
        decoder.decoder.pred_obj_score_head.proj_out.bias,
    )
    before = [bias.detach().clone() for bias in biases]
    with torch.no_grad():
        try:
            for bias in biases:
                bias.fill_(4.0 if present else -4.0)
            _, _, _, expected_mask, _, expected_pointer, expected_score = meta._forward_sam_heads(
                backbone_features=embed.float(),
                point_inputs={
                    "point_coords": points * S,
                    "point_labels": torch.tensor([labels], dtype=torch.int32),
                }
                if labels
                else None,
                mask_inputs=mask if with_mask else None,
                high_res_features=[feature.float() for feature in high_res],
                multimask_output=of_three,
            )
            # Meta's prompt encoder adds a padding point, and without points there is one already.
            padding = 1 if labels else 2
            one, zero = torch.ones(1), torch.zeros(1)
            got_mask, _, got_score, got_pointer, _, _ = decoder(
                embed,
                *high_res,
                SEVEN,
                zero,
                torch.cat([points, torch.zeros(1, padding, 2)], dim=1),
                torch.tensor([[*labels, *[-1] * padding]], dtype=torch.int32),
                mask,
                one if with_mask else zero,
                one if of_three else zero,
                one,
            )
        finally:
            for bias, value in zip(biases, before, strict=True):
                bias.copy_(value)
    assert bool(expected_score > 0) == present
    torch.testing.assert_close(got_score, expected_score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got_mask, expected_mask, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got_pointer, expected_pointer, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("score", [1.0, -1.0])
@pytest.mark.parametrize("binarize", [True, False])
def test_memories_are_metas(meta: Any, graphs: VideoGraphs, binarize: bool, score: float) -> None:
    embed = noise(1, C, SIDE, SIDE).half()
    logits, scores = 5 * noise(1, 1, LOW, LOW, seed=1), torch.tensor([[score]])
    with torch.no_grad():
        expected, _ = meta._encode_new_memory(
            current_vision_feats=[embed.float().flatten(2).permute(2, 0, 1)],
            feat_sizes=[(SIDE, SIDE)],
            pred_masks_high_res=torch.nn.functional.interpolate(
                logits, size=(S, S), mode="bilinear", align_corners=False
            ),
            object_score_logits=scores,
            is_mask_from_pts=binarize,
        )
        got, _, _ = graphs.memory_encoder(
            embed, SEVEN, logits, scores, torch.tensor([float(binarize)])
        )
    torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("empty", [True, False])
def test_mask_prompts_are_metas(meta: Any, graphs: VideoGraphs, empty: bool) -> None:
    """Both graphs that a mask goes through, against Meta's `_use_mask_as_output`."""
    mask = torch.zeros(1, 1, S, S, dtype=torch.uint8)
    mask[..., 40:150, 90:222] = 0 if empty else 1
    embed = noise(1, C, SIDE, SIDE, seed=5).half()
    high_res = [
        noise(1, C // 8, LOW, LOW, seed=6).half(),
        noise(1, C // 4, 2 * SIDE, 2 * SIDE, seed=7).half(),
    ]
    zero, one = torch.zeros(1), torch.ones(1)
    with torch.no_grad():
        expected_low, _, _, _, _, expected_pointer, _ = meta._use_mask_as_output(
            embed.float(), [feature.float() for feature in high_res], mask
        )
        dense, low, _, _ = graphs.mask_prompt(mask, SEVEN)
        *_, pointer, _, _ = graphs.video_decoder(
            embed,
            *high_res,
            SEVEN,
            zero,
            torch.zeros(1, 2, 2),
            torch.full((1, 2), -1, dtype=torch.int32),
            dense,
            one,
            zero,
            zero if empty else one,
        )
    torch.testing.assert_close(low, expected_low, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pointer, expected_pointer, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", CONFIGS)
def test_every_key_of_every_size_is_accounted_for(size: str) -> None:
    """Names and shapes, both ways."""
    theirs = build_sam.build_sam2(CONFIGS[size], device="cpu").state_dict()
    with torch.device("meta"):  # names and shapes alone
        ours = video_model(video_config(config_for(size), {}, size)).state_dict()
    found = {}
    for key, tensor in theirs.items():
        renamed = transformers_key(key)
        if renamed is not None:
            assert ours[renamed].shape == tensor.shape, key
            found[renamed] = key
    assert len(set(found.values())) == len(found)
    special = {
        "prompt_encoder.point_embed.weight",
        "prompt_encoder.shared_embedding.positional_embedding",
        "shared_image_embedding.positional_embedding",
    }
    assert ours.keys() - found.keys() == special
    # Four of Meta's are rows of one tensor, and one is there twice: point embeddings, positional basis.
    assert len(theirs) - len(found) == 5


def test_a_checkpoint_with_half_a_memory_is_refused(meta: Any, tmp_path: Path) -> None:
    state = meta.state_dict()
    path = tmp_path / "changed.pt"
    torch.save({"model": {k: v for k, v in state.items() if k != "no_obj_ptr"}}, path)
    with pytest.raises(CheckpointError, match=r"Missing \(1\): no_object_pointer"):
        load_checkpoint(str(path), memory=Memory())
    assert load_checkpoint(str(path)).video is None

    torch.save({"model": {**state, "memory_attention.layers.0.adapter": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="1 keys that SAM 2.1 does not have"):
        load_checkpoint(str(path), memory=Memory())
    with pytest.raises(CheckpointError, match="1 keys that SAM 2.1 does not have"):
        load_checkpoint(str(path))


def test_a_memory_is_never_replaced(meta: Any, tmp_path: Path) -> None:
    path = save(meta, tmp_path / "sam2.1_hiera_tiny.pt")
    with pytest.raises(CheckpointError, match="it holds a memory; leave --untrained-memory out"):
        load_checkpoint(path, memory=Memory(untrained_seed=0))
