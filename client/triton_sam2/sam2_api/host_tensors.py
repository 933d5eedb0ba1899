"""What Meta's video predictor gives as torch tensors: those where PyTorch is installed, else arrays that take
the same first steps, `(logits > 0.0).cpu().numpy()`.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray


class HostArray(np.ndarray[Any, np.dtype[Any]]):
    """A numpy array with those methods of a tensor that hand it over to numpy."""

    def cpu(self) -> HostArray:
        """Itself."""
        return self

    def detach(self) -> HostArray:
        """Itself."""
        return self

    def float(self) -> HostArray:
        """As FP32."""
        return self.astype(np.float32).view(HostArray)

    def numpy(self) -> NDArray[Any]:
        """A plain array of the same memory."""
        return self.view(np.ndarray)


def has_torch() -> bool:
    """Whether PyTorch is installed, so that code may go on with tensors."""
    return importlib.util.find_spec("torch") is not None


def as_tensor(values: NDArray[Any], *, torch: bool) -> Any:
    """A copy as a torch tensor on the CPU, or as a HostArray."""
    copy = np.array(values)
    if torch:
        return importlib.import_module("torch").from_numpy(copy)
    return copy.view(HostArray)
