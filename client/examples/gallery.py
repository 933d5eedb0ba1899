"""A gallery of what the client can do: one picture per way to ask.

    python gallery.py --url localhost:8001 --output gallery/
    python gallery.py --image photo.jpg --clicks 310,200 500,210 120,330 --output gallery/

Refinement by clicks, candidates, a box, several objects at once, and a batch of crops encoded ahead.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from triton_sam2 import SAM2TritonClient, Segmentation

IMAGE = Path(__file__).parent / "images" / "coins.png"
COINS = ["100,57", "155,51", "102,125", "345,187"]
REACH = 32  # pixels from a click to the corners of its box
Point = tuple[float, float]


def refine_by_clicks(client: SAM2TritonClient, point: Point) -> list[Segmentation]:
    """A click, then a second one beside it that is outside, on top of the first answer's logits."""
    first = client.predict([point], [1], low_res_masks=True)
    outside = (point[0] - REACH, point[1])
    refined = client.predict([point, outside], [1, 0], mask_input=first.low_res_masks[0])
    return [first, refined]


def three_candidates(client: SAM2TritonClient, point: Point) -> Segmentation:
    """One click can mean a part or the whole: three masks, with the model's opinion of each."""
    return client.predict([point], [1], multimask_output=True)


def from_a_box(client: SAM2TritonClient, point: Point) -> Segmentation:
    """A box round the object instead of a click in it."""
    x, y = point
    return client.predict(box=[x - REACH, y - REACH, x + REACH, y + REACH])


def several_objects(client: SAM2TritonClient, points: list[Point]) -> Segmentation:
    """All objects in one call, with unequal numbers of clicks: the first has one more, outside it."""
    outside = (points[0][0] - REACH, points[0][1])
    clicks = [[points[0], outside], *([point] for point in points[1:])]
    return client.predict(clicks, [[1, 0], *([1] for _ in points[1:])])


def batch_of_crops(client: SAM2TritonClient, crops: list[NDArray[np.uint8]]) -> list[Segmentation]:
    """Pictures encoded ahead and together, then one click into the middle of each."""
    results = []
    for handle in client.prefetch(crops):
        height, width = handle.original_hw
        results.append(client.predict([[width / 2, height / 2]], [1], image=handle))
    return results


def crop_around(pixels: NDArray[np.uint8], point: Point) -> NDArray[np.uint8]:
    """The surroundings of a click."""
    left, top = (max(0, round(side - 2 * REACH)) for side in point)
    return np.ascontiguousarray(pixels[top : top + 4 * REACH, left : left + 4 * REACH])


def picture(result: Segmentation, image: Path | NDArray[np.uint8], caption: str) -> Image.Image:
    """An overlay with a line of text under it."""
    overlay = Image.fromarray(result.overlay(image))
    framed = Image.new("RGB", (overlay.width, overlay.height + 18), "white")
    framed.paste(overlay)
    iou = ", ".join(f"{score:.2f}" for score in result.best().iou_predictions[:, 0])
    ImageDraw.Draw(framed).text((4, overlay.height + 3), f"{caption} (IoU {iou})", fill="black")
    return framed


def parse_point(text: str) -> Point:
    """`X,Y` in pixels."""
    x, y = text.split(",")
    return float(x), float(y)


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(description="A gallery of what the client can do.")
    parser.add_argument("--url", help="the server (default: TRITON_URL, else localhost:8001)")
    parser.add_argument("--image", type=Path, default=IMAGE, help="a photograph (default: coins)")
    parser.add_argument("--clicks", nargs="+", metavar="X,Y", default=COINS, help="objects in it")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="a folder")
    options = parser.parse_args()
    points = [parse_point(text) for text in options.clicks]
    pixels = np.asarray(Image.open(options.image).convert("RGB"))
    crops = [crop_around(pixels, point) for point in points]

    with SAM2TritonClient(options.url) as client:
        client.set_image(options.image)
        before, after = refine_by_clicks(client, points[0])
        results = {
            "one click": before,
            "refined by a click outside": after,
            "the best of three candidates": three_candidates(client, points[0]),
            "a box": from_a_box(client, points[0]),
            "several objects in one call": several_objects(client, points),
        }
        pictures = [picture(result, options.image, caption) for caption, result in results.items()]
        for crop, result in zip(crops, batch_of_crops(client, crops), strict=True):
            pictures.append(picture(result, crop, "crop"))
    options.output.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pictures):
        path = options.output / f"{index + 1}.png"
        image.save(path)
        print(path)


if __name__ == "__main__":
    main()
