"""The video graphs' ONNX files against PyTorch: a frame with two objects is clicked, remembered and tracked.

Inputs come from the reference's own steps, so that magnitudes are those of use. What a graph *chooses* (a plane, an
object's presence) may flip where the reference itself hardly decides; prompts are drawn until it decides clearly.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from export.decoder_graph import NO_TOKEN
from export.errors import VerificationError
from export.reference import reference_decode, reference_encode
from export.verify import (
    TOLERANCES,
    Array,
    Measured,
    measure_error,
    open_session,
    refuse_failed,
)
from export.video_export import VideoFiles
from export.video_reference import (
    Decoded,
    reference_condition,
    reference_mask_prompt,
    reference_remember,
    reference_video_decode,
)

# Memories and pointers of each object; pointers may be missing.
COUNTS = ((1, 0), (1, 1), (3, 5))
# Clear enough that no rounding turns it: object score, difference of the two best IoUs, stability.
CLEAR_SCORE, CLEAR_IOU, CLEAR_STABILITY = 0.1, 0.02, 0.01
DRAWS = 32
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Prompt(NamedTuple):
    """One object's decoder inputs."""

    token_labels: Tensor  # [N]
    embed: Tensor  # [C, S/16, S/16]
    mask: Tensor | None = None  # [1, S/4, S/4]
    add_no_memory: bool = False
    best_of_three: bool = False
    object_present: bool = True
    unit_point_coords: Tensor = torch.empty(0, 2)  # [N, 2]


def verify_video(
    files: VideoFiles,
    model: Sam2VideoModel,
    fingerprint: int,
    precision: str,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measured]:
    """Run the four files in ONNX Runtime on the CPU and measure their errors.

    Args:
        files: as written.
        model: in FP32.
        fingerprint: the encoder's.
        precision: fp32 or fp16.
        progress: hears of each step.

    Raises:
        VerificationError: an error is above its tolerance, an output is not a number, or a graph does not know
            the fingerprint.
    """
    check = _Check(files, model, fingerprint, precision, progress)
    measured = [*check.mask_prompts(), *check.decodings(), *check.memories(), *check.conditioning()]
    refuse_failed(measured, precision)
    return measured


class _Check:
    def __init__(
        self,
        files: VideoFiles,
        model: Sam2VideoModel,
        fingerprint: int,
        precision: str,
        progress: Callable[[str], None],
    ) -> None:
        self.files, self.model = files, model
        self.tolerances, self.progress = TOLERANCES[precision], progress
        self.fingerprint = np.array([[fingerprint]], np.int64)
        self.generator = torch.Generator().manual_seed(0)
        size = self.size = int(model.image_size)
        self.discs = two_discs(size)
        # What passes between the models is FP16: both sides get that.
        features = reference_encode(model, picture_of(self.discs))
        self.embed, *self.high_res = (tensor.half() for tensor in features)

    def mask_prompts(self) -> Iterator[Measured]:
        """A disc, its neighbour, and nothing at all."""
        masks = torch.cat([self.discs, torch.zeros_like(self.discs[:1])])[:, None]
        got = self._run("mask_prompt", mask_prompt=masks.numpy())
        expected = [reference_mask_prompt(self.model, mask) for mask in masks]
        for index, name in enumerate(("dense_mask_input", "low_res_masks")):
            together = torch.stack([pair[index] for pair in expected])
            yield measure_error(
                "masks", name, got[name], together, self.tolerances["plane_logits"]
            )

    def decodings(self) -> Iterator[Measured]:
        """Clicks, a box, mask prompts, tracking and corrections, two objects in each call."""
        raw = self.embed[0]
        # Conditioned features are no image features: something else of their size.
        conditioned = (raw.float() + 0.5 * raw.float().std() * self._noise(*raw.shape)).half()
        dense, _ = reference_mask_prompt(self.model, self.discs[0][None])
        earlier = 4 * self._noise(1, self.size // 4, self.size // 4)
        padding = _labels(-1, -1)
        cases = {
            "first clicks": [Prompt(_labels(1, -1), raw, None, True, True)] * 2,
            "box and correction": [
                Prompt(_labels(2, 3, -1), raw, None, True),
                Prompt(_labels(1, 0, -1), conditioned, earlier),
            ],
            "masks, one empty": [
                Prompt(padding, raw, dense),
                Prompt(padding, raw, torch.zeros_like(dense), object_present=False),
            ],
            "tracking": [Prompt(padding, conditioned, best_of_three=True)] * 2,
        }
        for case, prompts in cases.items():
            self.progress(f"video_decoder: {case}")
            drawn = [self._drawn(prompt) for prompt in prompts]
            if not any(float(decoded.object_score_logit) > 0 for _, decoded in drawn):
                case += ": nobody there"  # so its masks are empty, and compare little
            got = self._run("video_decoder", **self._decoder_inputs([p for p, _ in drawn]))
            for name, index in _DECODED.items():
                expected = torch.stack([decoded[index] for _, decoded in drawn])
                kind = {"low_res_masks": "plane_logits", "iou_predictions": "plane_ious"}
                tolerance = self.tolerances[kind.get(name, "scores")]
                yield measure_error(case, name, got[name], expected, tolerance)

    def memories(self) -> Iterator[Measured]:
        """A prompt's mask, a predicted one, and an object that is not there."""
        self.progress("memory_encoder")
        side = self.size // 4
        logits = torch.stack([6 * self._noise(1, side, side) for _ in range(3)])
        scores, binarize = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([1.0, 0.0, 0.0])
        got = self._run(
            "memory_encoder",
            image_embed=self.embed.numpy(),
            low_res_masks=logits.numpy(),
            object_score_logits=scores.numpy(),
            binarize=binarize.numpy(),
        )
        expected = torch.stack(self._remembered(logits, scores, binarize))
        yield measure_error(
            "3 objects",
            "maskmem_features",
            got["maskmem_features"],
            expected,
            self.tolerances["features"],
        )
        largest = float(expected.abs().max())
        if not largest < _LARGEST_HALF:
            raise VerificationError(f"memories reach {largest:.3g}, more than FP16 holds")

    def conditioning(self) -> Iterator[Measured]:
        """Two objects with memories and pointers of their own."""
        side = self.size // 4
        for memories, pointers in COUNTS:
            case = f"{memories} memories, {pointers} pointers"
            self.progress(f"memory_attention: {case}")
            stored = torch.stack(
                [
                    torch.stack(
                        self._remembered(
                            torch.stack([6 * self._noise(1, side, side) for _ in range(memories)]),
                            torch.ones(memories, 1),
                            torch.zeros(memories),
                        )
                    )
                    for _ in range(2)
                ]
            ).half()
            times = torch.randint(0, 7, (2, memories), generator=self.generator)
            held = self._noise(2, pointers, self.embed.shape[1])
            offsets = torch.rand(2, pointers, generator=self.generator)
            got = self._run(
                "memory_attention",
                image_embed=self.embed.numpy(),
                maskmem_features=stored.numpy(),
                maskmem_tpos=times.numpy(),
                obj_ptrs=held.numpy(),
                obj_ptr_offsets=offsets.numpy(),
                memory_fingerprint=self.memory_fingerprint,
            )
            expected = torch.stack(
                [
                    reference_condition(self.model, self.embed[0], *each)
                    for each in zip(stored, times, held, offsets, strict=True)
                ]
            )
            yield measure_error(
                case,
                "conditioned_embed",
                got["conditioned_embed"],
                expected,
                self.tolerances["features"],
            )

    def _run(self, name: str, **inputs: Array) -> dict[str, Array]:
        session = open_session(getattr(self.files, name))
        outputs = [output.name for output in session.get_outputs()]
        answers = session.run(None, {**inputs, "encoder_fingerprint": self.fingerprint})
        got: dict[str, Array] = dict(zip(outputs, answers, strict=True))
        if not got["fingerprint_matches"].all():
            raise VerificationError(f"{name}: it does not recognise its own encoder's fingerprint")
        if "memory_fingerprint" in got:
            self.memory_fingerprint = got["memory_fingerprint"]
        return got

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def _remembered(self, logits: Tensor, scores: Tensor, binarize: Tensor) -> list[Tensor]:
        return [
            reference_remember(self.model, self.embed[0], mask, score, binarize=bool(hard))
            for mask, score, hard in zip(logits, scores, binarize, strict=True)
        ]

    def _drawn(self, prompt: Prompt) -> tuple[Prompt, Decoded]:
        """The prompt with points and features for which the reference decides clearly, if some are found;
        preferably with the object there."""
        fallback: tuple[Prompt, Decoded] | None = None
        for _ in range(DRAWS):
            noise = self._noise(*prompt.embed.shape)
            drawn = prompt._replace(
                unit_point_coords=self._points(prompt.token_labels),
                embed=(prompt.embed.float() + 0.05 * prompt.embed.float().std() * noise).half(),
            )
            found = drawn, self._decoded(drawn)
            clear = self._is_clear(*found)
            if clear and found[1].object_score_logit > 0:
                return found
            fallback = found if fallback is None or clear else fallback
        assert fallback is not None
        return fallback

    def _points(self, labels: Tensor) -> Tensor:
        """Clicks into a disc, a box around it, anything for the rest: [N, 2]."""
        x, y, radius = DISCS[0]
        points = torch.rand(len(labels), 2, generator=self.generator)
        near = torch.tensor([x, y]) + 0.1 * radius * self._noise(len(labels), 2)
        for label, away in ((1, 0.0), (2, -radius), (3, radius)):
            points = torch.where((labels == label)[:, None], near + away, points)
        return points

    def _decoded(self, prompt: Prompt) -> Decoded:
        return reference_video_decode(
            self.model,
            (prompt.embed, self.high_res[0], self.high_res[1]),
            prompt.unit_point_coords,
            prompt.token_labels,
            prompt.mask,
            add_no_memory=prompt.add_no_memory,
            best_of_three=prompt.best_of_three,
            object_present=prompt.object_present,
        )

    def _is_clear(self, prompt: Prompt, decoded: Decoded) -> bool:
        # This one adds the no-memory embedding in any case.
        surplus = 0 if prompt.add_no_memory else self.model.no_memory_embedding.view(1, -1, 1, 1)
        planes, ious = reference_decode(
            self.model,  # an image model as well
            (prompt.embed[None].float() - surplus, self.high_res[0], self.high_res[1]),
            prompt.unit_point_coords,
            prompt.token_labels,
            prompt.mask,
        )
        score = abs(float(decoded.object_score_logit))
        best, second = ious[1:].sort(descending=True).values[:2].tolist()
        if score < CLEAR_SCORE or best - second < CLEAR_IOU:
            return False
        config = self.model.mask_decoder.config
        delta = float(config.dynamic_multimask_stability_delta)
        inner, outer = int((planes[0] > delta).sum()), int((planes[0] > -delta).sum())
        off = inner / max(outer, 1) - float(config.dynamic_multimask_stability_thresh)
        return prompt.best_of_three or abs(off) > CLEAR_STABILITY

    def _decoder_inputs(self, prompts: list[Prompt]) -> dict[str, Array]:
        side = self.size // 4
        empty = torch.zeros(1, side, side)

        def numbers(values: Iterable[bool]) -> Array:
            return np.array([float(value) for value in values], np.float32)

        return {
            "image_embed": torch.stack([p.embed for p in prompts]).numpy(),
            "high_res_feats_0": self.high_res[0].numpy(),
            "high_res_feats_1": self.high_res[1].numpy(),
            "add_no_memory": numbers(p.add_no_memory for p in prompts),
            "unit_point_coords": torch.stack([p.unit_point_coords for p in prompts]).numpy(),
            "token_labels": torch.stack([p.token_labels for p in prompts]).numpy(),
            "dense_mask_input": torch.stack(
                [empty if p.mask is None else p.mask for p in prompts]
            ).numpy(),
            "has_mask_input": numbers(p.mask is not None for p in prompts),
            "best_of_three": numbers(p.best_of_three for p in prompts),
            "object_present": numbers(p.object_present for p in prompts),
        }


_DECODED = {
    "low_res_masks": 0,
    "iou_predictions": 1,
    "object_score_logits": 2,
    "obj_ptr": 3,
}


def _labels(*labels: int) -> Tensor:
    # As many for each object of a call: what is missing is no token.
    padded = [*labels, *[NO_TOKEN] * (3 - len(labels))]
    return torch.tensor(padded, dtype=torch.int32)


# Centre x, y and radius, in widths of the image.
DISCS = ((0.3, 0.35, 0.15), (0.65, 0.6, 0.2))


def two_discs(size: int) -> Tensor:
    """Masks UINT8 [2, S, S]: something that a trained model takes for objects."""
    place = (torch.arange(size).float() + 0.5) / size
    y, x = torch.meshgrid(place, place, indexing="ij")
    return torch.stack([(x - a) ** 2 + (y - b) ** 2 < r**2 for a, b, r in DISCS]).to(torch.uint8)


def picture_of(discs: Tensor) -> Tensor:
    """UINT8 [1, 3, S, S]: the masks in two colours on grey."""
    image = torch.full((3, *discs.shape[1:]), 90.0)
    for disc, colour in zip(discs, ((220.0, 60.0, 50.0), (60.0, 200.0, 90.0)), strict=True):
        image = torch.where(disc.bool(), torch.tensor(colour).view(3, 1, 1), image)
    return image.to(torch.uint8)[None]
