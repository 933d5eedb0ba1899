"""Answers that all tools share."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


def json_answer(document: Any, status: int = 200) -> Response:
    """JSON, numpy's numbers included."""
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, media_type="application/json")
