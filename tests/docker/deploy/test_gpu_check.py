"""What `just gpu-check` calls a wrong mask. (`just gpu-check demo --provider cpu` runs it whole.)"""

import numpy as np
import pytest
from gpu_check.measure import Answer, differences, mask_iou, prompts_for, wrong_masks

from tests.running_server import ROOT

IMAGE = ROOT / "client/examples/images/coins.png"


def answer(shift: int = 0, score: float = 0.9) -> Answer:
    masks = np.zeros((3, 200, 200), bool)
    masks[:, 50:150, 50 + shift : 150 + shift] = True
    return Answer(masks, np.full(3, score, np.float32))


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (answer(), False),
        (answer(shift=2), False),  # 196 of 204 columns
        (answer(shift=3), True),  # 194 of 206
        (answer(shift=100), True),
        (answer(score=0.86), False),
        (answer(score=0.8), True),
        (answer(score=float("nan")), True),
        (Answer(np.zeros((3, 200, 200), bool), answer().scores), True),
    ],
)
def test_a_wrong_mask_is_found(found: Answer, wrong: bool) -> None:
    rows = differences({"one": answer()}, {"one": found})
    assert bool(wrong_masks(rows)) == wrong, rows


def test_one_wrong_candidate_of_three_is_enough() -> None:
    masks = answer().masks.copy()
    masks[2] = False
    [problem] = wrong_masks(differences({"a": answer()}, {"a": Answer(masks, answer().scores)}))
    assert problem.startswith("a: mask IoU 0.000")


def test_tiny_masks_decide_nothing() -> None:
    empty, speck = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    speck[4, 4] = True
    assert mask_iou(empty, speck) == 1.0


def test_prompts_lie_on_the_image() -> None:
    prompts = prompts_for(IMAGE)
    assert len({prompt.name for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        for x, y in prompt.points_xy or [prompt.box_xyxy[:2], prompt.box_xyxy[2:]]:
            assert 0 <= x < 384
            assert 0 <= y < 303
