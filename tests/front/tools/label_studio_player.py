"""Label Studio, as its server calls an ML backend: the requests of its api_connector."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import ModuleType
from typing import Any

import requests

LABEL_CONFIG = """
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image"><Label value="Coin"/><Label value="Table"/></BrushLabels>
  <KeyPointLabels name="tag2" toName="image" smart="true"><Label value="Coin" smart="true"/></KeyPointLabels>
  <RectangleLabels name="tag3" toName="image" smart="true">
    <Label value="Coin" smart="true"/>
  </RectangleLabels>
</View>
"""
POLYGON_CONFIG = LABEL_CONFIG.replace("BrushLabels", "PolygonLabels")


def brush_module() -> ModuleType:
    """label-studio-sdk's module of brush masks, without the package's other needs."""
    distribution = importlib.metadata.distribution("label-studio-sdk")
    path = distribution.locate_file("label_studio_sdk/converter/brush.py")
    spec = importlib.util.spec_from_file_location("label_studio_brush", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def click(x: float, y: float, hw: tuple[int, int], positive: int = 1) -> dict[str, Any]:
    """A smart keypoint at pixels x, y, in percent."""
    return {
        "id": "abc",
        "type": "keypointlabels",
        "from_name": "tag2",
        "to_name": "image",
        "original_width": hw[1],
        "original_height": hw[0],
        "is_positive": positive,
        "value": {
            "x": x / hw[1] * 100,
            "y": y / hw[0] * 100,
            "width": 0.5,
            "keypointlabels": ["Coin"],
        },
    }


def rectangle(box: tuple[float, ...], hw: tuple[int, int], **more: Any) -> dict[str, Any]:
    """A smart rectangle, in percent."""
    x0, y0, x1, y1 = box
    value = {
        "x": x0 / hw[1] * 100,
        "y": y0 / hw[0] * 100,
        "width": (x1 - x0) / hw[1] * 100,
        "height": (y1 - y0) / hw[0] * 100,
        "rotation": 0,
        "rectanglelabels": ["Coin"],
        **more,
    }
    mark = {"id": "def", "type": "rectanglelabels", "from_name": "tag3", "to_name": "image"}
    return {**mark, "original_width": hw[1], "original_height": hw[0], "value": value}


def prediction_request(
    image: str, marks: list[dict[str, Any]], config: str = LABEL_CONFIG
) -> dict[str, Any]:
    """What its server sends when a user has clicked."""
    return {
        "tasks": [{"id": 7, "data": {"image": image}, "project": 1}],
        "model_version": "sam2.1",
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": {"result": marks}},
    }


def post(
    url: str, path: str, document: Any, auth: tuple[str, str] | None = None
) -> requests.Response:
    """One call, with Label Studio's own library for it."""
    return requests.post(f"{url}/{path}", json=document, auth=auth, timeout=120)
