"""The video graphs' ONNX files against PyTorch: objects on a frame are clicked, remembered and tracked.

Inputs come from the reference's own steps, so that magnitudes are those of use.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from export.errors import VerificationError
from export.reference import reference_encode
from export.verify import (
    TOLERANCES,
    Array,
    Measured,
    measure_error,
    open_session,
    refuse_failed,
)
from export.video_export import VideoFiles
from export.video_prompts import (
    ClearPrompts,
    Prompt,
    decoder_inputs,
    labels_of,
    picture_of,
    two_discs,
)
from export.video_reference import reference_condition, reference_mask_prompt, reference_remember

# Memories and pointers of each object; pointers may be missing.
COUNTS = ((1, 0), (1, 1), (3, 5))
# The decoder's outputs, as `Decoded` has them.
_DECODED = ("low_res_masks", "iou_predictions", "object_score_logits", "obj_ptr")
_LARGEST_HALF = float(np.finfo(np.float16).max)


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
        VerificationError: an error is above its tolerance, an output is not a number, or a graph does not
            know the fingerprint.
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
        self.embed, high_res_0, high_res_1 = (tensor.half() for tensor in features)
        self.high_res = high_res_0, high_res_1
        self.clear = ClearPrompts(model, self.high_res, self.generator)
        self.memory_fingerprint: Array = np.zeros(
            (1, 1), np.int64
        )  # the graphs that make memories say it

    def mask_prompts(self) -> Iterator[Measured]:
        """A disc, its neighbour, and nothing at all."""
        masks = torch.cat([self.discs, torch.zeros_like(self.discs[:1])])[:, None]
        got = self._run("mask_prompt", mask_prompt=masks.numpy())
        expected = [reference_mask_prompt(self.model, mask) for mask in masks]
        for index, name in enumerate(("dense_mask_input", "low_res_masks")):
            together = torch.stack([pair[index] for pair in expected])
            yield measure_error("masks", name, got[name], together, self.tolerances["plane_logits"])

    def decodings(self) -> Iterator[Measured]:
        """Clicks, a box, mask prompts, tracking and corrections, two objects in each call."""
        raw = self.embed[0]
        # Conditioned features are no image features: something else of their size.
        conditioned = (raw.float() + 0.5 * raw.float().std() * self._noise(*raw.shape)).half()
        dense, _ = reference_mask_prompt(self.model, self.discs[0][None])
        earlier = 4 * self._noise(1, self.size // 4, self.size // 4)
        padding = labels_of(-1, -1)
        cases = {
            "first clicks": [Prompt(labels_of(1, -1), raw, None, True, True)] * 2,
            "box and correction": [
                Prompt(labels_of(2, 3, -1), raw, None, True),
                Prompt(labels_of(1, 0, -1), conditioned, earlier),
            ],
            "masks, one empty": [
                Prompt(padding, raw, dense),
                Prompt(padding, raw, torch.zeros_like(dense), object_present=False),
            ],
            "tracking": [Prompt(padding, conditioned, best_of_three=True)] * 2,
        }
        for case, prompts in cases.items():
            self.progress(f"video_decoder: {case}")
            drawn = [self.clear.drawn(prompt) for prompt in prompts]
            there = any(float(decoded.object_score_logit) > 0 for _, decoded in drawn)
            # Where nobody is, all masks are empty, and comparing them says little.
            said = case if there else f"{case}: nobody there"
            got = self._run("video_decoder", **decoder_inputs([p for p, _ in drawn], self.high_res))
            for index, name in enumerate(_DECODED):
                expected = torch.stack([decoded[index] for _, decoded in drawn])
                kind = {"low_res_masks": "plane_logits", "iou_predictions": "plane_ious"}
                tolerance = self.tolerances[kind.get(name, "scores")]
                yield measure_error(said, name, got[name], expected, tolerance)

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
            raise VerificationError(f"maskmem_features reach {largest:.3g}, more than FP16 holds")

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
