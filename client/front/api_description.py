"""What /docs says of the REST interface: fields, answers and examples, as OpenAPI has them."""

from __future__ import annotations

from typing import Any

IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP or TIFF."}
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
SHAPES: dict[str, Any] = {
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
}
_MASK = {
    "type": "object",
    "properties": {
        "iou": {"type": "number", "description": "The model's own estimate of the mask's quality."},
        **SHAPES,
    },
}
_FACTS = {
    "image_id": {"type": "string", "description": "Send it instead of the image from now on."},
    "width": {"type": "integer"},
    "height": {"type": "integer"},
}


def form(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A request's body: a form with these fields."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def answers(**by_status: Any) -> dict[str, Any]:
    """Answers by status (`_200`), and the refusals that every call may get."""
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
    "summary": "Masks for an image and prompts",
    **form(
        {
            "image": IMAGE,
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
    **answers(
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
_PARAMETERS: dict[str, dict[str, Any]] = {
    "points_per_side": {"type": "integer", "default": 32, "example": 16},
    "points_per_batch": {"type": "integer", "default": 64},
    "pred_iou_thresh": {"type": "number", "default": 0.8, "example": 0.7},
    "stability_score_thresh": {"type": "number", "default": 0.95, "example": 0.9},
    "stability_score_offset": {"type": "number", "default": 1.0},
    "mask_threshold": {"type": "number", "default": 0.0},
    "box_nms_thresh": {"type": "number", "default": 0.7},
    "crop_n_layers": {"type": "integer", "default": 0},
    "crop_nms_thresh": {"type": "number", "default": 0.7},
    "crop_overlap_ratio": {"type": "number"},
    "crop_n_points_downscale_factor": {"type": "integer", "default": 1},
    "point_grids": {"type": "string", "description": "JSON: lists of [x, y] in the unit square."},
    "min_mask_region_area": {"type": "integer", "default": 0},
    "use_m2m": {"type": "boolean", "default": False},
    "multimask_output": {"type": "boolean", "default": True},
    "min_mask_area": {"type": "integer", "description": "Smaller masks are left out."},
    "max_mask_area": {"type": "integer", "description": "Larger masks are left out."},
    "mask_nms_thresh": {"type": "number", "description": "Of masks that overlap more, one stays."},
    "mask_containment_thresh": {
        "type": "number",
        "description": "Masks that lie in others by more are left out.",
    },
    "max_masks": {"type": "integer", "description": "The best so many.", "example": 50},
}
_GENERATED: dict[str, Any] = {
    **SHAPES,
    "area": {"type": "integer", "description": "Pixels."},
    "bbox": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "x, y, width, height between the outermost pixels' centres.",
    },
    "predicted_iou": {"type": "number"},
    "stability_score": {"type": "number"},
    "point_coords": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    "crop_box": {"type": "array", "items": {"type": "integer"}},
}
EVERYTHING = {
    "summary": "Every mask of an image, without prompts",
    "description": "Meta's SAM2AutomaticMaskGenerator, in the server: its parameters by their own names.",
    **form(
        {
            "image": IMAGE,
            "image_id": _IMAGE_ID,
            "format": {
                "type": "string",
                "enum": ["rle", "polygons", "labels", "overlay"],
                "default": "rle",
                "description": "rle and polygons: JSON. labels: a picture of 16 bits, each pixel its mask's"
                " number (0: none; smaller masks over larger ones). overlay: the image and masks.",
            },
            **_PARAMETERS,
        }
    ),
    **answers(
        _200={
            "description": "Masks in the generator's order.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            **_FACTS,
                            "masks": {
                                "type": "array",
                                "items": {"type": "object", "properties": _GENERATED},
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
    "summary": "Encode an image ahead of its first click",
    **form({"image": IMAGE, "image_id": _IMAGE_ID}, required=("image",)),
    **answers(
        _200={
            "description": "The image is encoded.",
            "content": {"application/json": {"schema": {"type": "object", "properties": _FACTS}}},
        }
    ),
}
FORGET = {
    "summary": "Forget an image",
    "parameters": [
        {"name": "image_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ],
    **answers(_204={"description": "The image and all of its names are dropped."}),
}
