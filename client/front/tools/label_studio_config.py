"""A Label Studio project's labelling configuration: where a mask goes, which field of a task is its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from front.refusals import invalid

# The kinds of result that a mask can be, in the order in which a configuration's tags are taken.
_RESULT_TAGS: dict[str, Literal["brushlabels", "polygonlabels"]] = {
    "BrushLabels": "brushlabels",
    "PolygonLabels": "polygonlabels",
}
_IMAGE_TAG = "Image"


@dataclass(frozen=True)
class LabelTarget:
    """The control that a mask is a value of, and the image that it lies on."""

    kind: Literal["brushlabels", "polygonlabels"]
    from_name: str
    to_name: str
    # Of the task's data.
    image_field: str


def read_label_target(
    config: str, most_bytes: int, to_name: str | None = None, label: str | None = None
) -> LabelTarget:
    """Where a mask with a label goes that was marked on an image: BrushLabels before PolygonLabels.

    Of several controls the first that has the label, else the first. Without `to_name`, of any image.

    Raises:
        Refusal: what of it is missing.
    """
    root = _parsed(config, most_bytes)
    images = {
        name: (tag.get("value") or "")
        for tag in root.iter(_IMAGE_TAG)
        if (name := tag.get("name")) is not None
    }
    controls = [
        (kind, tag)
        for name, kind in _RESULT_TAGS.items()
        for tag in root.iter(name)
        if tag.get("name")
        and tag.get("toName") in (images if to_name is None else images.keys() & {to_name})
    ]
    if not controls:
        raise invalid(
            "label_config: expected a BrushLabels or PolygonLabels tag whose toName is an Image tag"
            f"{'' if to_name is None else f' of the name {to_name[:60]!r}'}, for the mask to go to"
        )
    having = [
        each for each in controls if label in {tag.get("value") for tag in each[1].iter("Label")}
    ]
    kind, tag = (having or controls)[0]
    from_name, image = str(tag.get("name")), str(tag.get("toName"))
    return LabelTarget(kind, from_name, image, _field(images[image]))


def _parsed(config: str, most_bytes: int) -> ElementTree.Element:
    if len(config) > most_bytes:
        raise invalid(
            f"label_config: expected at most {most_bytes} bytes (max_label_config_bytes), got {len(config)}"
        )
    # Entities could make gigabytes of it, and no labelling configuration declares any.
    if "<!" in config.replace("<!--", ""):
        raise invalid("label_config: expected XML without declarations and CDATA")
    try:
        return ElementTree.fromstring(config)  # noqa: S314 - without declarations there is nothing to expand
    except (ElementTree.ParseError, ValueError) as error:
        raise invalid(f"label_config: expected XML, got text that is none ({error})") from error


def _field(value: str) -> str:
    """`$image` ► `image`."""
    if not value.startswith("$") or len(value) == 1:
        raise invalid(f"label_config: expected the Image tag's value as $FIELD, got {value[:60]!r}")
    return value[1:]
