import numpy as np
import pytest
from plane_selection import select_planes, stability_scores


def planes(*values: float) -> np.ndarray:
    """One object's four planes, each constant."""
    return np.stack([np.full((4, 4), v, np.float32) for v in values])[None]


IOUS = np.array([[0.1, 0.2, 0.9, 0.3]], np.float32)


def test_multimask_is_planes_one_to_three_with_their_own_predictions():
    logits, ious = select_planes(planes(0, 1, 2, 3), IOUS, multimask_output=True)
    assert logits[0, :, 0, 0].tolist() == [1, 2, 3]
    assert ious.tolist() == [pytest.approx([0.2, 0.9, 0.3])]


def test_a_stable_single_mask_is_plane_zero():
    logits, ious = select_planes(planes(5, 1, 2, 3), IOUS, multimask_output=False)
    assert (logits.shape, logits[0, 0, 0, 0]) == ((1, 1, 4, 4), 5)
    assert ious.tolist() == [[pytest.approx(0.1)]]


def test_an_unstable_single_mask_gives_way_to_the_best_predicted_candidate():
    # All of plane 0 lies between the two cuts: nothing above +0.05, everything above -0.05.
    logits, ious = select_planes(planes(0.0, 1, 2, 3), IOUS, multimask_output=False)
    assert logits[0, 0, 0, 0] == 2
    assert ious.tolist() == [[pytest.approx(0.9)]]


def test_objects_are_decided_one_by_one():
    both = np.concatenate([planes(0.0, 1, 2, 3), planes(5, 1, 2, 3)])
    logits, _ = select_planes(both, np.repeat(IOUS, 2, axis=0), multimask_output=False)
    assert logits[:, 0, 0, 0].tolist() == [2, 5]


def test_an_empty_mask_counts_as_stable():
    assert stability_scores(np.full((1, 2, 2), -9, np.float32)).tolist() == [1]


def test_the_stability_score_is_the_ratio_of_the_two_areas():
    logits = np.array([[[1, 1, 1, 0.01]]], np.float32)
    assert stability_scores(logits).tolist() == [0.75]
