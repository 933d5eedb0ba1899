"""A gallery of what the client can do: one picture per way to ask.

    python gallery.py --url localhost:8001 --image photo.jpg --click 105,72 --output gallery/

Refinement by clicks, candidates, a box, several objects at once, and a batch of crops encoded ahead.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from triton_sam2 import SAM2TritonClient, Segmentation

IMAGE = Path(__file__).parent / "images" / "coins.png"


def refine_by_clicks(client: SAM2TritonClient, x: float, y: float) -> list[Segmentation]:
    """A click, then a second one beside it that is outside, on top of the first answer's logits."""
    first = client.predict([[x, y]], [1], low_res_masks=True)
    refined = client.predict([[x, y], [x - 45, y]], [1, 0], mask_input=first.low_res_masks[0])
    return [first, refined]


def three_candidates(client: SAM2TritonClient, x: float, y: float) -> Segmentation:
    """One click can mean a part or the whole: three masks, with the model's opinion of each."""
    return client.predict([[x, y]], [1], multimask_output=True)


def from_a_box(client: SAM2TritonClient, x: float, y: float) -> Segmentation:
    """A box round the object instead of a click in it."""
    return client.predict(box=[x - 30, y - 30, x + 30, y + 30])


def several_objects(client: SAM2TritonClient, x: float, y: float) -> Segmentation:
    """Three objects in one call, with unequal numbers of clicks."""
    clicks = [[[x, y]], [[x + 60, y], [x + 60, y - 45]], [[x, y + 60]]]
    return client.predict(clicks, [[1], [1, 0], [1]])


def batch_of_crops(client: SAM2TritonClient, pixels: NDArray[np.uint8]) -> list[Segmentation]:
    """Four quarters, encoded ahead and together, then one click into the middle of each."""
    height, width = (side // 2 for side in pixels.shape[:2])
    corners = [(top, left) for top in (0, height) for left in (0, width)]
    crops = [
        np.ascontiguousarray(pixels[top : top + height, left : left + width])
        for top, left in corners
    ]
    return [
        client.predict([[width / 2, height / 2]], [1], image=handle)
        for handle in client.prefetch(crops)
    ]


def picture(result: Segmentation, image: Path | NDArray[np.uint8], caption: str) -> Image.Image:
    """An overlay with a line of text under it."""
    overlay = Image.fromarray(result.overlay(image))
    framed = Image.new("RGB", (overlay.width, overlay.height + 18), "white")
    framed.paste(overlay)
    iou = ", ".join(f"{score:.2f}" for score in result.best().iou_predictions[:, 0])
    ImageDraw.Draw(framed).text((4, overlay.height + 3), f"{caption} (IoU {iou})", fill="black")
    return framed


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(description="A gallery of what the client can do.")
    parser.add_argument(
        "--url", default=None, help="the server (default: TRITON_URL, else localhost:8001)"
    )
    parser.add_argument("--image", type=Path, default=IMAGE, help="a photograph (default: coins)")
    parser.add_argument("--click", default="107,73", help="X,Y of an object in it")
    parser.add_argument(
        "--output", type=Path, default=Path("gallery"), help="folder for the pictures"
    )
    options = parser.parse_args()
    x, y = (float(part) for part in options.click.split(","))
    options.output.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(Image.open(options.image).convert("RGB"))

    with SAM2TritonClient(options.url) as client:
        client.set_image(options.image)
        before, after = refine_by_clicks(client, x, y)
        candidates = three_candidates(client, x, y)
        pictures = {
            "1-click": picture(before, options.image, "one click"),
            "2-refined": picture(after, options.image, "refined by a click outside"),
            "3-candidates": picture(candidates, options.image, "the best of three candidates"),
            "4-box": picture(from_a_box(client, x, y), options.image, "a box"),
            "5-objects": picture(
                several_objects(client, x, y), options.image, "three objects, one call"
            ),
        }
        height, width = (side // 2 for side in pixels.shape[:2])
        for index, result in enumerate(batch_of_crops(client, pixels)):
            top, left = index // 2 * height, index % 2 * width
            crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
            pictures[f"6-crop-{index + 1}"] = picture(result, crop, f"quarter {index + 1}")
    for name, image in pictures.items():
        path = options.output / f"{name}.png"
        image.save(path)
        print(path)


if __name__ == "__main__":
    main()
