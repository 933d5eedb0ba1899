"""Our batched memory against the exporter's reference, which does one object at a time."""

import pytest
import torch

from export.demo_model.model import WEIGHTS_DIR
from export.demo_model.video.model import (
    SCORE_HEAD,
    choose_trained,
    load_video_model,
    new_video_model,
    save_video_model,
)
from export.demo_model.video.tracking import Memories, Remembered, Tracking
from export.video_model import memory_weights_of
from export.video_reference import (
    reference_condition,
    reference_remember,
    reference_video_decode,
)

WIDTH, DEPTH, SIDE = 96, 32, 16
OBJECTS = 2


@pytest.fixture(scope="module")
def model():
    return new_video_model(seed=3)


@pytest.fixture(scope="module")
def tracking(model):
    return Tracking(model)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def remembered(frame):
    return Remembered(
        frame,
        noise(SIDE**2, OBJECTS, DEPTH, seed=frame),
        noise(OBJECTS, WIDTH, seed=100 + frame),
    )


@torch.no_grad()
def test_conditioning_uses_the_memories_and_pointers_that_the_reference_would(model, tracking):
    """Frame 20, prompted on 0 and 30: both as memories, the later one without its pointer."""
    memories = Memories(
        [remembered(0), remembered(30)], [remembered(frame) for frame in range(1, 20)]
    )
    embed = noise(1, WIDTH, SIDE, SIDE, seed=7)
    got = tracking.condition(embed, 20, memories)
    rows = [(0, 6), (30, 6)] + [(20 - age, age - 1) for age in range(1, 7)]
    pointing = [0, *range(5, 20)]
    for k in range(OBJECTS):
        stored = [remembered(f).tokens[:, k].T.reshape(DEPTH, SIDE, SIDE) for f, _ in rows]
        expected = reference_condition(
            model,
            embed[0],
            torch.stack(stored),
            torch.tensor([row for _, row in rows]),
            torch.stack([remembered(f).pointers[k] for f in pointing]),
            torch.tensor([(20 - f) / 15 for f in pointing]),
        )
        assert torch.allclose(got[k], expected, atol=2e-4)
    assert not torch.allclose(got[0], got[1], atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("from_prompt", [True, False])
def test_remembering_agrees_with_the_reference(model, tracking, from_prompt):
    embed, logits = noise(1, WIDTH, SIDE, SIDE), 5 * noise(OBJECTS, 1, 64, 64, seed=1)
    tokens, present = noise(OBJECTS, WIDTH, seed=2), torch.tensor([1.0, 0.0])
    memory = tracking.remember(4, embed, logits, tokens, present, from_prompt=from_prompt)
    shown = [logits[0], torch.full_like(logits[1], -1024.0)]
    for k, score in enumerate((1.0, -1.0)):
        expected = reference_remember(
            model, embed[0], shown[k], torch.tensor([score]), binarize=from_prompt
        )
        got = memory.tokens[:, k].T.reshape(DEPTH, SIDE, SIDE)
        assert torch.allclose(got, expected, atol=1e-4)
    assert torch.allclose(memory.pointers[0], model.object_pointer_proj(tokens[0]), atol=1e-5)
    assert torch.equal(memory.pointers[1], model.no_object_pointer[0])


@torch.no_grad()
def test_decoding_without_a_prompt_agrees_with_the_reference(model, tracking):
    embed = noise(OBJECTS, WIDTH, SIDE, SIDE)
    high_res = noise(1, 12, 64, 64, seed=1), noise(1, 24, 32, 32, seed=2)
    nothing = torch.zeros(OBJECTS, 0, 2)
    answer = tracking.decode(embed, high_res, nothing, nothing[..., 0].long())
    best = 1 + answer.iou_predictions[:, 1:].argmax(1)
    for k in range(OBJECTS):
        expected = reference_video_decode(
            model,
            (embed[k], *high_res),
            torch.zeros(2, 2),  # the two padding points that stand for no prompt
            torch.tensor([-1, -1]),
            None,
            add_no_memory=False,
            best_of_three=True,
        )
        assert torch.allclose(answer.object_scores[k], expected.object_score_logit, atol=1e-4)
        if expected.object_score_logit > 0:
            assert torch.allclose(answer.planes[k, best[k]], expected.low_res_mask[0], atol=1e-3)


def test_only_the_memory_and_the_score_learn(model):
    """Stills are answered by weights that training never touches."""
    learning = choose_trained(model)
    expected = {name for name, p in model.named_parameters() if name.startswith(SCORE_HEAD)}
    expected |= memory_weights_of(model).keys() & dict(model.named_parameters()).keys()
    assert set(learning) == expected
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} >= {"vision_encoder", "prompt_encoder"}


def test_weights_with_a_memory_survive_saving(model, tmp_path):
    save_video_model(model, tmp_path)
    again = load_video_model(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.allclose(again[name], tensor, atol=2e-3), name
    assert (tmp_path / "config.json").read_text() == (WEIGHTS_DIR / "config.json").read_text()
