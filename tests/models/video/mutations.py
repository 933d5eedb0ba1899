"""Mistakes that an implementation of Meta's rules makes easily. Each must show in a scenario."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import memory_selection
import remembered
import tracking
from memory_selection import CONDITIONING_ROW, OBJECT_POINTERS, Selection
from video_graphs import PADDING_LABEL, DecoderPrompt, VideoGraphs

Patch = Callable[[Any], None]


@dataclass(frozen=True)
class Mutation:
    """A mistake, how pytest's monkeypatch makes it, and the scenario that must notice."""

    name: str
    apply: Patch
    scenario: str


def selecting(change: Callable[..., Selection]) -> Patch:
    """Changes what is selected; `change` gets the selection and the arguments it was made from."""
    original = memory_selection.select_memories

    def changed(*arguments: Any, **options: Any) -> Selection:
        return change(original(*arguments, **options), *arguments)

    return lambda patch: patch.setattr(remembered, "select_memories", changed)


def no_pointers(selection: Selection, *_: Any) -> Selection:
    return replace(selection, pointers=())


def reversed_rows(selection: Selection, *_: Any) -> Selection:
    memories = tuple(
        (row if row == CONDITIONING_ROW else CONDITIONING_ROW - 1 - row, frame)
        for row, frame in selection.memories
    )
    return replace(selection, memories=memories)


def offsets_over_15(selection: Selection, *_: Any) -> Selection:
    return replace(selection, pointer_span=OBJECT_POINTERS - 1)


def future_pointers(
    selection: Selection, cond_frames: Any, _: Any, frame: int, reverse: bool, *__: Any
) -> Selection:
    back = 1 if reverse else -1
    ahead = [((f - frame) * back, f) for f in cond_frames if (f - frame) * back < 0]
    return replace(selection, pointers=(*selection.pointers, *ahead))


def five_memories(selection: Selection, *_: Any) -> Selection:
    kept = tuple(m for m in selection.memories if m[0] != CONDITIONING_ROW - 1)
    return replace(selection, memories=kept)


def memory_not_binarised(patch: Any) -> None:
    encode = VideoGraphs.encode_memory

    async def soft(self: Any, *arguments: Any, binarize: bool) -> Any:
        return await encode(self, *arguments, binarize=False)

    patch.setattr(VideoGraphs, "encode_memory", soft)


def decoding(change: Callable[[DecoderPrompt], DecoderPrompt]) -> Patch:
    """Changes the prompt that the decoder gets."""
    decode = VideoGraphs.decode

    async def changed(self: Any, features: Any, embed: Any, prompt: Any, earlier: Any) -> Any:
        return await decode(self, features, embed, change(prompt), earlier)

    return lambda patch: patch.setattr(VideoGraphs, "decode", changed)


def one_padding_point(prompt: DecoderPrompt) -> DecoderPrompt:
    if (prompt.labels == PADDING_LABEL).all():
        return replace(prompt, labels=prompt.labels[:, :1], unit_coords=prompt.unit_coords[:, :1])
    return prompt


def single_mask_while_tracking(prompt: DecoderPrompt) -> DecoderPrompt:
    is_tracking = (prompt.labels == PADDING_LABEL).all()
    return replace(prompt, best_of_three=False) if is_tracking else prompt


def best_pointer_of_a_mask_prompt(prompt: DecoderPrompt) -> DecoderPrompt:
    is_mask = (prompt.labels == PADDING_LABEL).all() and not prompt.best_of_three
    return replace(prompt, best_of_three=True) if is_mask else prompt


def earlier_logits_left_out(patch: Any) -> None:
    patch.setattr(tracking, "_as_mask_input", lambda _: None)


MUTATIONS = [
    Mutation("no pointers", selecting(no_pointers), "one click"),
    Mutation("reversed rows", selecting(reversed_rows), "one click"),
    Mutation("offsets over 15 in 8 frames", selecting(offsets_over_15), "one click"),
    Mutation("clicked memory not binarised", memory_not_binarised, "one click"),
    Mutation("one padding point", decoding(one_padding_point), "one click"),
    Mutation("single mask while tracking", decoding(single_mask_while_tracking), "one click"),
    Mutation("earlier logits not passed", earlier_logits_left_out, "more clicks"),
    Mutation("pointers of the future", selecting(future_pointers), "two prompted frames"),
    Mutation(
        "mask prompt's pointer is the best of three",
        decoding(best_pointer_of_a_mask_prompt),
        "mask",
    ),
    Mutation("five recent memories", selecting(five_memories), "22 frames"),
]
