"""Masks compared."""

import numpy as np


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; anything but 0 is inside."""
    a, b = a.astype(bool), b.astype(bool)
    return float((a & b).sum() / (a | b).sum())
