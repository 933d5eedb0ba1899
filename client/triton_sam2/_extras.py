"""Libraries that only some functions need."""

import importlib
from typing import Any

from triton_sam2._errors import MissingExtraError


def require(module: str, purpose: str, extra: str = "client") -> Any:
    """Import a library of an extra, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}: pip install 'triton-sam2[{extra}]'"
        ) from error
