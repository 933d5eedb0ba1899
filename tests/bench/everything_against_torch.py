"""Everything in an image by the server, and by Meta's generator over PyTorch in float32: what differs?

    python tests/bench/everything_against_torch.py

The small model in the box on photographs. Here the networks' rounding counts too: a candidate with a score
at a threshold may change sides. Such candidates are counted, by the point that they come from.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from export.checkpoint import load_checkpoint
from export.repository import assemble_repository
from tests.automask_cases import CASES
from tests.automask_reference import TorchPredictor, generate
from tests.masks import overlap
from tests.photographs import opened, photograph
from tests.raw_client import RawClient, bytes_tensor
from tests.running_server import ROOT, RunningServer

PHOTOGRAPHS = ("coins.png", "coffee.png", "cell.png", "chelsea.png")
SAME_IOU = 0.99


def main() -> None:
    demo = ROOT / "export/demo_model"
    predictor = TorchPredictor(load_checkpoint(str(demo / "weights")).model)
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "repository"
        assemble_repository(demo / "onnx", repository, video=False)
        with RunningServer(repository, Path(scratch) / "state", "--no-probe") as server:
            client = RawClient(server, "grpc")
            found = [
                compare(client, predictor, name, case) for name in PHOTOGRAPHS for case in CASES
            ]
    totals = np.sum(found, axis=0)
    print(
        f"in all: reference {totals[0]}, server {totals[1]}, the same {totals[2]}, swapped {totals[3]}"
    )


def compare(
    client: RawClient, predictor: TorchPredictor, name: str, case: str
) -> tuple[int, int, int, int]:
    """Masks of the reference, of the server, of both (IoU >= SAME_IOU), and neighbours in another order."""
    image = photograph(name)
    expected = generate(predictor, np.array(opened(image).convert("RGB")), **CASES[case])
    given = bytes_tensor(json.dumps(CASES[case]).encode())
    answer = client.infer("sam2_automask", image=bytes_tensor(image), parameters=given)
    masks = [coco_mask.decode(json.loads(text)) for text in answer["masks_rle"]]
    places, least = [], 1.0
    for record in expected:
        shares = [overlap(mask, record["segmentation"]) for mask in masks]
        best = int(np.argmax(shares)) if shares else -1
        if shares and shares[best] >= SAME_IOU:
            places.append(best)
            least = min(least, shares[best])
    swapped = int((np.diff(places) < 0).sum())
    print(
        f"{name:12} {case:17} reference {len(expected):3} server {len(masks):3} the same {len(places):3}"
        f" least IoU {least:.5f} swapped {swapped}"
    )
    return len(expected), len(masks), len(places), swapped


if __name__ == "__main__":
    main()
