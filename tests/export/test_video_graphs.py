"""The video graphs, still in PyTorch, against transformers' own modules. Meta's: test_meta_video.py."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import Sam2Model, Sam2VideoModel

from export.graphs import VideoGraphs, build_video_graphs, fingerprint_of, memory_fingerprint_of
from export.memory_attention_graph import QUERIES_AT_ONCE, attend
from export.video_reference import (
    Decoded,
    reference_condition,
    reference_mask_prompt,
    reference_remember,
    reference_video_decode,
)
from tests.export.conftest import (
    CHANNELS,
    IMAGE_SIZE,
    MEMORY_CHANNELS,
    micro_model,
    micro_video_model,
)

SIDE, LOW = IMAGE_SIZE // 16, IMAGE_SIZE // 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fingerprint(value: int) -> Tensor:
    return torch.tensor([[value]])


# Two ways to sum the same FP32 numbers; planes and pointers have a standard deviation of about 1.
def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=3e-4)


# Half a unit in the last place of FP16, relative and near zero.
def assert_close_half(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.float(), expected, rtol=6e-4, atol=3e-4)


class Remembered:
    """B objects with M memories and P pointers each, of a frame of `side` squared positions."""

    def __init__(self, objects: int, memories: int, pointers: int, side: int = SIDE) -> None:
        self.embed = noise(1, CHANNELS, side, side).half()
        self.memories = noise(objects, memories, MEMORY_CHANNELS, side, side, seed=1).half()
        generator = torch.Generator().manual_seed(2)
        self.times = torch.randint(0, 7, (objects, memories), generator=generator)
        self.pointers = noise(objects, pointers, CHANNELS, seed=3)
        self.offsets = torch.rand(objects, pointers, generator=generator) * 2 - 0.5

    def condition(self, graphs: VideoGraphs) -> Tensor:
        attention = graphs.memory_attention
        with torch.no_grad():
            conditioned, matches = attention(
                self.embed,
                fingerprint(int(attention.encoder_fingerprint)),
                self.memories,
                self.times,
                self.pointers,
                self.offsets,
                fingerprint(int(attention.memory_fingerprint)),
            )
        assert matches.tolist() == [True]
        return conditioned

    def reference(self, model: Sam2VideoModel, index: int) -> Tensor:
        rows = (self.memories, self.times, self.pointers, self.offsets)
        return reference_condition(model, self.embed[0], *(row[index] for row in rows))

    def reordered(self, memories: list[int], pointers: list[int]) -> "Remembered":
        other = copy.copy(self)
        other.memories, other.times = self.memories[:, memories], self.times[:, memories]
        other.pointers, other.offsets = self.pointers[:, pointers], self.offsets[:, pointers]
        return other

    def of_object(self, index: int) -> "Remembered":
        other = copy.copy(self)
        rows = slice(index, index + 1)
        other.memories, other.times = self.memories[rows], self.times[rows]
        other.pointers, other.offsets = self.pointers[rows], self.offsets[rows]
        return other


@pytest.mark.parametrize("objects", [1, 2, 3])
@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (2, 3), (3, 2), (3, 0)])
def test_attention_is_the_references(
    video_graphs: VideoGraphs, tracker: Sam2VideoModel, objects: int, memories: int, pointers: int
) -> None:
    remembered = Remembered(objects, memories, pointers)
    conditioned = remembered.condition(video_graphs)
    assert conditioned.shape == (objects, CHANNELS, SIDE, SIDE)
    for index in range(objects):
        assert_close_half(conditioned[index], remembered.reference(tracker, index))


@pytest.mark.parametrize("image_size", [32, 64, 160, 256, 320])
def test_attention_at_other_image_sizes(image_size: int) -> None:
    """At 320 px the frame's 400 positions are no multiple of what is computed at a time."""
    model = micro_video_model(image_size=image_size)
    remembered = Remembered(1, 2, 1, image_size // 16)
    conditioned = remembered.condition(build_video_graphs(model, 7))
    assert_close_half(conditioned[0], remembered.reference(model, 0))


def test_memories_are_a_set(video_graphs: VideoGraphs) -> None:
    remembered = Remembered(2, 3, 3)
    expected = remembered.condition(video_graphs)
    got = remembered.reordered([2, 0, 1], [1, 2, 0]).condition(video_graphs)
    # Sums in another order, then one rounding to FP16.
    assert_close_half(got, expected.float())
    assert not torch.equal(
        remembered.reordered([0, 1, 1], [0, 1, 2]).condition(video_graphs), expected
    )


def test_objects_do_not_influence_one_another(video_graphs: VideoGraphs) -> None:
    remembered = Remembered(3, 2, 2)
    together = remembered.condition(video_graphs)
    for index in range(3):
        alone = remembered.of_object(index).condition(video_graphs)
        assert_close_half(alone[0], together[index].float())


@pytest.mark.parametrize("what", ["memories", "times", "pointers", "offsets"])
def test_everything_remembered_counts(video_graphs: VideoGraphs, what: str) -> None:
    remembered = Remembered(1, 2, 2)
    expected = remembered.condition(video_graphs)
    changed = copy.copy(remembered)
    value = getattr(remembered, what)
    setattr(changed, what, (value + 1) % 7 if what == "times" else value + 0.3)
    assert (changed.condition(video_graphs) - expected).abs().max() > 1e-2


def test_attention_in_parts_is_attention_at_once() -> None:
    query, key, value = (noise(2, QUERIES_AT_ONCE + 40, 8, seed=seed) for seed in range(3))
    weights = torch.softmax(query @ key.transpose(1, 2) / 8**0.5, dim=-1)
    assert_close(attend(query, key, value), weights @ value)


# --- the decoder: prompts, and what is chosen


class Prompts:
    """B objects' decoder inputs; every object its own points, masks and choices."""

    def __init__(self, labels: list[list[int]], **choices: list[float]) -> None:
        objects = len(labels)
        self.labels = torch.tensor(labels, dtype=torch.int32)
        self.points = torch.rand(
            objects, len(labels[0]), 2, generator=torch.Generator().manual_seed(4)
        )
        self.masks = 4 * noise(objects, 1, LOW, LOW, seed=5)
        self.embed = noise(objects, CHANNELS, SIDE, SIDE, seed=6).half()
        self.high_res = (
            noise(1, CHANNELS // 8, LOW, LOW, seed=7).half(),
            noise(1, CHANNELS // 4, 2 * SIDE, 2 * SIDE, seed=8).half(),
        )
        defaults = {"no_memory": 0.0, "has_mask": 0.0, "of_three": 0.0, "present": 1.0}
        self.choices = {
            name: torch.tensor(choices.get(name, [default] * objects))
            for name, default in defaults.items()
        }

    def decode(self, graphs: VideoGraphs, embed: Tensor | None = None) -> tuple[Tensor, ...]:
        decoder = graphs.video_decoder
        with torch.no_grad():
            *answer, memory, matches = decoder(
                self.embed if embed is None else embed,
                *self.high_res,
                fingerprint(int(decoder.fingerprint)),
                self.choices["no_memory"],
                self.points,
                self.labels,
                self.masks,
                self.choices["has_mask"],
                self.choices["of_three"],
                self.choices["present"],
            )
        assert matches.tolist() == [True]
        assert memory.tolist() == [[int(graphs.memory_attention.memory_fingerprint)]]
        return tuple(answer)

    def reference(self, model: Sam2VideoModel, index: int, embed: Tensor | None = None) -> Decoded:
        choice = {name: bool(values[index]) for name, values in self.choices.items()}
        return reference_video_decode(
            model,
            (self.embed[index] if embed is None else embed, *self.high_res),
            self.points[index],
            self.labels[index],
            self.masks[index] if choice["has_mask"] else None,
            add_no_memory=choice["no_memory"],
            best_of_three=choice["of_three"],
            object_present=choice["present"],
        )


def with_score_bias(model: Sam2VideoModel, bias: float) -> VideoGraphs:
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(bias)
    return build_video_graphs(model, 7)


def assert_decoded_as_reference(
    prompts: Prompts, graphs: VideoGraphs, model: Sam2VideoModel
) -> list[Decoded]:
    answer = prompts.decode(graphs)
    expected = [prompts.reference(model, index) for index in range(len(prompts.labels))]
    for got, name in zip(answer, Decoded._fields, strict=True):
        assert_close(got, torch.stack([getattr(decoded, name) for decoded in expected]))
    return expected


@pytest.mark.parametrize("of_three", [0.0, 1.0])
@pytest.mark.parametrize("no_memory", [0.0, 1.0])
@pytest.mark.parametrize(
    "labels",
    [
        [[1, -1]],
        [[-1, -1]],
        [[2, 3, -1], [1, 0, -1]],
        [[1, 0, -1], [2, 3, -1], [1, -1, -2]],
    ],
)
def test_decoder_is_the_references(
    video_graphs: VideoGraphs,
    tracker: Sam2VideoModel,
    labels: list[list[int]],
    no_memory: float,
    of_three: float,
) -> None:
    objects = len(labels)
    prompts = Prompts(
        labels,
        no_memory=[no_memory] * objects,
        of_three=[of_three] * objects,
        has_mask=[1.0, 0.0, 1.0][:objects],
    )
    expected = assert_decoded_as_reference(prompts, video_graphs, tracker)
    assert all(decoded.object_score_logit > 0 for decoded in expected)


def test_every_object_chooses_for_itself(
    video_graphs: VideoGraphs, tracker: Sam2VideoModel
) -> None:
    prompts = Prompts(
        [[1, -1], [1, -1], [-1, -1]],
        no_memory=[1.0, 0.0, 0.0],
        of_three=[1.0, 0.0, 1.0],
        has_mask=[0.0, 1.0, 0.0],
        present=[1.0, 1.0, 0.0],
    )
    assert_decoded_as_reference(prompts, video_graphs, tracker)


def test_an_absent_object_has_no_mask_and_the_pointer_of_absence() -> None:
    model = micro_video_model()
    graphs = with_score_bias(model, -5.0)
    prompts = Prompts([[1, -1], [-1, -1]], of_three=[0.0, 1.0])
    masks, _, scores, pointers = prompts.decode(graphs)
    assert (scores < 0).all()
    assert (masks == -1024).all()
    assert torch.equal(pointers, model.no_object_pointer.detach().expand(2, -1))
    assert_decoded_as_reference(prompts, graphs, model)


def test_an_empty_mask_prompt_has_the_pointer_of_absence_alone(
    video_graphs: VideoGraphs, tracker: Sam2VideoModel
) -> None:
    given = Prompts([[-1, -1]], has_mask=[1.0]).decode(video_graphs)
    empty = Prompts([[-1, -1]], has_mask=[1.0], present=[0.0]).decode(video_graphs)
    for got, expected in zip(empty[:3], given[:3], strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(empty[3], tracker.no_object_pointer)
    assert not torch.equal(given[3], empty[3])


@pytest.mark.parametrize("stable", [True, False])
def test_an_unstable_single_mask_gives_way_but_keeps_its_pointer(stable: bool) -> None:
    """Meta's fallback changes the mask and its IoU; the pointer stays the single mask's."""
    model = micro_video_model()
    # Random planes cross zero everywhere, which is unstable; logits that are all far from it are not.
    if stable:
        with torch.no_grad():
            model.mask_decoder.upscale_conv2.bias.fill_(5.0)
            head = model.mask_decoder.output_hypernetworks_mlps[0].proj_out
            head.weight.mul_(0.1)
            head.bias.fill_(2.0)
    graphs = build_video_graphs(model, 7)
    prompts = Prompts([[2, 3, -1]])
    assert_decoded_as_reference(prompts, graphs, model)
    single = prompts.decode(graphs)
    prompts.choices["of_three"] = torch.ones(1)
    best = prompts.decode(graphs)
    assert torch.equal(single[0], best[0]) == (not stable)
    assert torch.equal(single[1], best[1]) == (not stable)
    assert not torch.allclose(single[3], best[3], atol=1e-2)


def test_one_frames_features_serve_all_objects(
    video_graphs: VideoGraphs, tracker: Sam2VideoModel
) -> None:
    prompts = Prompts([[1, -1], [2, 3], [-1, -1]], no_memory=[1.0, 1.0, 0.0])
    frame = prompts.embed[:1]
    answer = prompts.decode(video_graphs, frame)
    for index in range(3):
        for got, expected in zip(answer, prompts.reference(tracker, index, frame[0]), strict=True):
            assert_close(got[index], expected)


# --- the memory encoder


@pytest.mark.parametrize("objects", [1, 3])
def test_memories_are_the_references(
    video_graphs: VideoGraphs, tracker: Sam2VideoModel, objects: int
) -> None:
    """Soft and binarised, present and absent, in one call."""
    embed = noise(1, CHANNELS, SIDE, SIDE).half()
    logits = 5 * noise(objects, 1, LOW, LOW, seed=1)
    scores = torch.tensor([[0.5], [-0.5], [0.0]])[:objects]
    binarize = torch.tensor([0.0, 1.0, 0.0])[:objects]
    encoder = video_graphs.memory_encoder
    with torch.no_grad():
        features, memory, matches = encoder(
            embed, fingerprint(int(encoder.encoder_fingerprint)), logits, scores, binarize
        )
    assert features.shape == (objects, MEMORY_CHANNELS, SIDE, SIDE)
    assert matches.tolist() == [True]
    assert memory.tolist() == [[int(video_graphs.memory_attention.memory_fingerprint)]]
    for index in range(objects):
        expected = reference_remember(
            tracker, embed[0], logits[index], scores[index], binarize=bool(binarize[index])
        )
        assert_close_half(features[index], expected)


def test_binarising_and_absence_count(tracker: Sam2VideoModel) -> None:
    """Else the test above would say nothing of them."""
    embed, logits = noise(CHANNELS, SIDE, SIDE), 5 * noise(1, LOW, LOW, seed=1)
    soft, hard, absent = (
        reference_remember(tracker, embed, logits, torch.tensor([score]), binarize=binarize)
        for score, binarize in ((1.0, False), (1.0, True), (-1.0, False))
    )
    assert (soft - hard).abs().max() > 0.05
    assert (soft - absent).abs().max() > 0.05


# --- masks as prompts


@pytest.mark.parametrize("image_size", [32, 96, 160])
def test_mask_prompts_are_the_references(image_size: int) -> None:
    model = micro_video_model(image_size=image_size)
    graph = build_video_graphs(model, 7).mask_prompt
    masks = (noise(3, 1, image_size, image_size) > 0.3).to(torch.uint8)
    masks[1, :, : image_size // 3] = 1  # up to the edge, where the filter hangs over
    masks[2] = 0
    with torch.no_grad():
        dense, low, _, matches = graph(masks, fingerprint(7))
    assert matches.tolist() == [True]
    for index, mask in enumerate(masks):
        expected_dense, expected_low = reference_mask_prompt(model, mask)
        torch.testing.assert_close(dense[index], expected_dense, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(low[index], expected_low, rtol=1e-5, atol=1e-5)


# --- fingerprints


def test_every_graph_refuses_another_encoders_features(video_graphs: VideoGraphs) -> None:
    own = int(video_graphs.memory_attention.encoder_fingerprint)
    embed = noise(1, CHANNELS, SIDE, SIDE).half()
    prompts = Prompts([[1, -1]])
    remembered = Remembered(1, 1, 1)
    memory = fingerprint(int(video_graphs.memory_attention.memory_fingerprint))
    one = torch.ones(1)

    def answers(encoder: Tensor, memory: Tensor) -> list[list[bool]]:
        with torch.no_grad():
            return [
                outputs[-1].tolist()
                for outputs in (
                    video_graphs.memory_attention(
                        embed,
                        encoder,
                        remembered.memories,
                        remembered.times,
                        remembered.pointers,
                        remembered.offsets,
                        memory,
                    ),
                    video_graphs.video_decoder(
                        embed,
                        *prompts.high_res,
                        encoder,
                        one,
                        prompts.points,
                        prompts.labels,
                        prompts.masks,
                        one,
                        one,
                        one,
                    ),
                    video_graphs.memory_encoder(embed, encoder, prompts.masks, one[None], one),
                    video_graphs.mask_prompt(
                        torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8), encoder
                    ),
                )
            ]

    assert answers(fingerprint(own), memory) == [[True]] * 4
    assert answers(fingerprint(own + 1), memory) == [[False]] * 4
    assert answers(fingerprint(own), memory + 1) == [[False], [True], [True], [True]]


def test_memory_fingerprint_is_of_the_memory_and_the_encoder(
    tracker: Sam2VideoModel, model: Sam2Model
) -> None:
    own = memory_fingerprint_of(tracker, 7)
    assert memory_fingerprint_of(copy.deepcopy(tracker), 7) == own
    assert memory_fingerprint_of(tracker, 8) != own
    nudged = copy.deepcopy(tracker)
    with torch.no_grad():
        nudged.object_pointer_proj.proj_out.bias[0] += 1e-3
    assert memory_fingerprint_of(nudged, 7) != own
    # The encoder's is of the image model alone: an image-only export of it pairs with the same cache.
    assert fingerprint_of(micro_model()) == fingerprint_of(model)
