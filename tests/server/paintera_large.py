"""Paintera's model as it is meant: an untrained `large` at 1024 px, exported and served as the recipes do,
against Meta's own encoder and decoder with the same weights. Minutes and some 6 GB: `just test-paintera`.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch

from export.checkpoint import random_checkpoint
from tests.meta_package import decoded, encoded_features, with_image_weights
from tests.paintera import OUTPUTS, Lane, letterboxed
from tests.photographs import opened, photograph
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_server import ROOT, RunningServer

S = 1024
SHAPES = [(1, 256, 64, 64), (1, 32, 256, 256), (1, 64, 128, 128)]
# Untrained masks are full of edges, where FP16 on the way decides.
LEAST_AGREEMENT = 0.995


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "export", "--size", "large", "--random-weights", "0"),
            *("--no-video", "--output-dir", str(folder / "repository")),
        ],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout)
    assert "sam2.1_large_encoder (Paintera): its graphs written" in " ".join(done.stdout.split())
    with RunningServer(folder / "repository", folder / "state", "--no-probe") as running:
        yield running


def test_what_paintera_gets_of_large_is_what_metas_decoder_wants(large):
    from sam2.build_sam import build_sam2

    network = build_sam2("configs/sam2.1/sam2.1_hiera_l.yaml", device="cpu")
    network = with_image_weights(network, random_checkpoint("large", 0).model.state_dict())
    picture = np.array(opened(photograph("coffee.png")).convert("RGB"))
    image = letterboxed(picture, S)
    with Lane(large.grpc_url) as lane:
        assert lane.is_ready()
        got = lane.encode(image)
    assert [got[name].shape for name in OUTPUTS] == SHAPES
    expected = encoded_features(network, image)
    for name, like in zip(OUTPUTS, expected, strict=True):
        error = np.abs(got[name] - like.numpy()) / like.numpy().std()
        print(f"{name}: mean {error.mean():.5f}, largest {error.max():.5f} of a standard deviation")
        assert error.mean() < 1e-3
    features = [torch.from_numpy(got[name].copy()) for name in OUTPUTS]
    for points, labels in (([[400.0, 300.0]], [1]), ([[100.0, 80.0], [700.0, 500.0]], [2, 3])):
        ours, theirs = (decoded(network, each, points, labels) for each in (features, expected))
        print(f"pixels {(ours == theirs).mean():.5f}")
        assert (ours == theirs).mean() >= LEAST_AGREEMENT


def test_sam2_is_beside_it(large):
    answer = RawClient(large, "grpc").infer(
        image=bytes_tensor(photograph("coffee.png")), **click(300, 200)
    )
    assert answer["masks"].shape == (1, 1, 400, 600)
