"""What /docs says of the REST interface: fields, answers and examples, as OpenAPI has them."""

from __future__ import annotations

from typing import Any

_IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP or TIFF."}
_IMAGE_ID = {
    "type": "string",
    "description": "A name for the image, or the id of an earlier answer; alone, instead of the image.",
    "example": "page-1",
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "example": "point: expected X,Y[,LABEL[,OBJECT]], got '5'"}
    },
}
_MASK = {
    "type": "object",
    "properties": {
        "iou": {"type": "number", "description": "The model's own estimate of the mask's quality."},
        "rle": {
            "type": "object",
            "description": "COCO compressed RLE (format=rle).",
            "properties": {
                "size": {"type": "array", "items": {"type": "integer"}},
                "counts": {"type": "string"},
            },
        },
        "polygons": {
            "type": "array",
            "description": "Outer outlines, x and y in pixels (format=polygons).",
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        },
    },
}
_FACTS = {
    "image_id": {"type": "string", "description": "Send it instead of the image from now on."},
    "width": {"type": "integer"},
    "height": {"type": "integer"},
}


def _form(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _answers(**by_status: Any) -> dict[str, Any]:
    refusals = {
        "400": "A field is wrong; the message names it.",
        "401": "No API key, or an unknown one.",
        "404": "No image is kept under that id: send it again.",
        "413": "The body is larger than allowed.",
        "429": "Too many requests for this API key.",
        "503": "The server is busy or restarting: try again in a moment.",
    }
    answers: dict[str, Any] = {
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in refusals.items()
    }
    return {"responses": {**{status[1:]: value for status, value in by_status.items()}, **answers}}


SEGMENT = {
    **_form(
        {
            "image": _IMAGE,
            "image_id": _IMAGE_ID,
            "point": {
                "type": "array",
                "items": {"type": "string"},
                "description": "X,Y[,LABEL[,OBJECT]] in pixels of the upright image; LABEL 1 (the default) is"
                " foreground, 0 background; OBJECT counts from 1.",
                "example": ["512,512", "300,200,0"],
            },
            "box": {
                "type": "array",
                "items": {"type": "string"},
                "description": "X0,Y0,X1,Y1; the k-th box belongs to object k.",
            },
            "multimask": {"type": "boolean", "description": "Three candidates for each object."},
            "format": {
                "type": "string",
                "enum": ["rle", "png", "polygons", "overlay"],
                "default": "rle",
                "description": "rle and polygons: JSON. png: the best mask as a picture, 255 is foreground"
                " (of several objects, each pixel is its object's number). overlay: the image and masks.",
            },
        }
    ),
    **_answers(
        _200={
            "description": "Masks at the image's own size.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            **_FACTS,
                            "objects": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {"masks": {"type": "array", "items": _MASK}},
                                },
                            },
                        },
                    }
                },
                "image/png": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    ),
}
WARM = {
    **_form({"image": _IMAGE, "image_id": _IMAGE_ID}, required=("image",)),
    **_answers(
        _200={
            "description": "The image is encoded.",
            "content": {"application/json": {"schema": {"type": "object", "properties": _FACTS}}},
        }
    ),
}
FORGET = {
    "parameters": [
        {"name": "image_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ],
    **_answers(_204={"description": "The image and all of its names are dropped."}),
}
