"""Video sessions through the front: steps in order on a stream, the same masks as without it."""

import numpy as np
import pytest
from triton_sam2 import InvalidInputError, SAM2VideoClient, SessionNotFoundError

from tests.models.video.clips import clip

pytestmark = [pytest.mark.server, pytest.mark.slow]

FILES = clip(6)


def masks_by(url: str) -> list[np.ndarray]:
    with SAM2VideoClient(url) as client:
        state = client.init_state(FILES)
        first = client.add_new_points_or_box(state, 1, 1, [[150, 110]], [1])
        forward = [frame.masks for frame in client.propagate_in_video(state)]
        backward = [frame.masks for frame in client.propagate_in_video(state, 5, reverse=True)]
        client.close_state(state)
        with pytest.raises(SessionNotFoundError, match="start it again"):
            client.status(state)
        assert (len(forward), len(backward)) == (5, 6)
        return [first.masks, *forward, *backward]


def test_a_session_through_the_front_is_as_without_it(server, front):
    expected = masks_by(server.grpc_url)
    for url in (f"grpc://{front.grpc_url}", f"http://{front.http_url}"):
        assert all(np.array_equal(a, b) for a, b in zip(expected, masks_by(url), strict=True))


def test_the_servers_words_about_a_step_come_through(front):
    with SAM2VideoClient(front.grpc_url) as client:
        state = client.init_state(FILES)
        with pytest.raises(InvalidInputError, match="^box: "):
            client.add_new_points_or_box(state, 0, 1, box=[5, 5, 1, 1])
        client.close_state(state)
