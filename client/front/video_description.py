"""What /docs says of /v1/videos, as OpenAPI has it."""

from __future__ import annotations

from typing import Any

from front.api_description import IMAGE, SHAPES, answers, form

_SESSION: dict[str, Any] = {
    "parameters": [
        {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
}
_FRAME = {"type": "integer", "description": "Counted from 0.", "example": 0}
_FORMAT = {
    "type": "string",
    "enum": ["rle", "png", "polygons"],
    "default": "rle",
    "description": "rle and polygons: JSON. png: a picture, 255 where the object is (of several, each pixel"
    " is its object's place in the order of their creation).",
}
_MASKS = answers(
    _200={
        "description": "The masks of all objects on this frame.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "frame": {"type": "integer"},
                        "width": {"type": "integer"},
                        "height": {"type": "integer"},
                        "memory_complete": {
                            "type": "boolean",
                            "description": "False where a memory was evicted that would have been used.",
                        },
                        "objects": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "object": {"type": "integer"},
                                    "score": {
                                        "type": "number",
                                        "description": "Above 0: the object is in the frame.",
                                    },
                                    "iou": {"type": "number"},
                                    **SHAPES,
                                },
                            },
                        },
                    },
                }
            },
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    }
)
START = {
    "summary": "Start tracking objects through a video",
    "description": "Then prompt objects on frames, and track them through further ones, one a request.",
    **form(
        {
            "video": {
                "type": "string",
                "format": "binary",
                "description": "MP4, MOV, WebM, Matroska or AVI: then no frame is sent with what follows.",
            },
            "num_frames": {"type": "integer", "description": "Left out for a live stream."},
            "add_all_frames_to_correct_as_cond": {"type": "boolean", "default": True},
            "non_overlap_masks": {"type": "boolean", "default": False},
            "max_cond_frames_in_attn": {"type": "integer", "default": -1},
            "fill_hole_area": {"type": "integer", "default": 8},
        }
    ),
    **answers(
        _200={
            "description": "A session, which ends by DELETE or unused after a while.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "session_id": {"type": "string"},
                            "num_frames": {"type": "integer"},
                            "width": {"type": "integer"},
                            "height": {"type": "integer"},
                        },
                    }
                }
            },
        }
    ),
}
PROMPT = {
    "summary": "Prompt one object on one frame",
    **_SESSION,
    **form(
        {
            "image": {
                **IMAGE,
                "description": "The frame; once sent, the session keeps it for a while.",
            },
            "frame": _FRAME,
            "object": {"type": "integer", "default": 1, "description": "Your number for it."},
            "point": {
                "type": "array",
                "items": {"type": "string"},
                "description": "X,Y[,LABEL] in pixels of the upright frame; LABEL is 1 (foreground) or 0.",
                "example": ["512,512"],
            },
            "box": {"type": "string", "description": "X0,Y0,X1,Y1."},
            "keep_points": {
                "type": "boolean",
                "description": "Add to the object's earlier points on this frame, instead of replacing them.",
            },
            "format": _FORMAT,
        },
        required=("frame",),
    ),
    **_MASKS,
}
TRACK = {
    "summary": "Track all objects to one more frame",
    **_SESSION,
    **form(
        {
            "image": IMAGE,
            "frame": {**_FRAME, "example": 1},
            "reverse": {"type": "boolean", "description": "Towards frame 0."},
            "format": _FORMAT,
        },
        required=("frame",),
    ),
    **_MASKS,
}
STATUS = {
    "summary": "What a session holds",
    **_SESSION,
    **answers(
        _200={
            "description": "Its options, objects with their frames, and bytes.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    ),
}
CLOSE = {
    "summary": "End a session",
    **_SESSION,
    **answers(_204={"description": "It is no more."}),
}
