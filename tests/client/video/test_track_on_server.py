"""`triton-sam2 track` against a real server: what it writes is what the client is told."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import SAM2VideoClient

from tests.models.video.clips import clip, write_clip

pytestmark = [pytest.mark.server, pytest.mark.slow]

FRAMES = 5


def test_both_ways_over_http(server, tmp_path):
    folder = write_clip(clip(FRAMES), tmp_path / "frames")
    with SAM2VideoClient(server.grpc_url) as client:
        state = client.init_state(folder)
        client.add_new_points_or_box(state, 2, 1, [[150, 110]], [1])
        client.add_new_points_or_box(state, 3, 5, box=[20, 100, 100, 220])
        expected = {frame.frame_idx: frame for frame in client.propagate_in_video(state)}
        for frame in client.propagate_in_video(state, 1, reverse=True):
            expected[frame.frame_idx] = frame
        client.close_state(state)
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from triton_sam2.cli import app; app()", "track", folder),
            *("--point", "2:1:150,110", "--box", "3:5:20,100,100,220", "--direction", "both"),
            *("-o", tmp_path / "masks", "-o", tmp_path / "out.json", "-o", tmp_path / "seen.mp4"),
            *("--url", f"http://{server.http_url}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "object 5: in " in done.stdout
    entries = {
        entry["object_id"]: entry for entry in json.loads((tmp_path / "out.json").read_text())
    }
    assert sorted(expected) == list(range(FRAMES))
    for frame_idx, frame in expected.items():
        assert frame.object_ids == [1, 5]
        for row, number in enumerate(frame.object_ids):
            there = frame.object_score_logits[row] > 0
            rle = entries[number]["segmentations"][frame_idx]
            assert rle == (frame.rle(number) if there else None)
            written = np.asarray(Image.open(tmp_path / f"masks/{number}/{frame_idx:05}.png"))
            assert np.array_equal(written > 0, frame.mask(number) > 0)
