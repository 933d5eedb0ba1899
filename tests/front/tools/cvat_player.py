"""CVAT, as its lambda_manager calls a Nuclio dashboard and its page reads the answer."""

from __future__ import annotations

import base64
import json
from itertools import groupby
from typing import Any

import requests

HEADERS = {
    "x-nuclio-project-name": "cvat",
    "x-nuclio-function-namespace": "nuclio",
    "x-nuclio-invoke-via": "domain-name",
    "X-Nuclio-Invoke-Timeout": "120s",
}


def function_facts(description: dict[str, Any]) -> dict[str, Any]:
    """What CVAT makes of a function's description."""
    annotations = description["metadata"]["annotations"]
    return {
        "id": description["metadata"]["name"],
        "kind": annotations["type"],
        "labels": json.loads(annotations.get("spec") or "[]"),
        "state": description["status"]["state"],
        "description": description["spec"]["description"],
        "name": annotations.get("name"),
        "min_pos_points": int(annotations.get("min_pos_points", 1)),
        "min_neg_points": int(annotations.get("min_neg_points", -1)),
        "startswith_box": bool(annotations.get("startswith_box", False)),
        "startswith_box_optional": bool(annotations.get("startswith_box_optional", False)),
        "animated_gif": annotations.get("animated_gif", ""),
        "version": int(annotations.get("version", "1")),
    }


def payload(picture: bytes, **fields: Any) -> dict[str, Any]:
    """An interactor's call."""
    return {
        "image": base64.b64encode(picture).decode(),
        "pos_points": [],
        "neg_points": [],
        "obj_bbox": None,
        **fields,
    }


def invoke(url: str, document: Any, function: str = "triton-sam2") -> requests.Response:
    """A click, by way of the dashboard."""
    headers = {**HEADERS, "x-nuclio-function-name": function, "x-nuclio-path": "/"}
    return requests.post(
        f"{url}/api/function_invocations", headers=headers, json=document, timeout=120
    )


def shape_points(answer: dict[str, Any]) -> list[int]:
    """The points of a mask shape that the page makes of an answer: runs, background first, and bounds."""
    flat = [value for row in answer["mask"] for value in row]
    runs = [(value, len(list(group))) for value, group in groupby(flat)]
    lengths = [length for _, length in runs]
    return ([0, *lengths] if runs[0][0] else lengths) + answer["bounds"]
