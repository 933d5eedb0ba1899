"""Sets of frames as ranges, against Python's own sets."""

from frame_ranges import FrameRanges
from hypothesis import given
from hypothesis import strategies as st

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60)


@given(STEPS)
def test_they_are_sets(steps: list[tuple[bool, int]]) -> None:
    ranges, expected = FrameRanges(), set[int]()
    for adds, frame in steps:
        (ranges.add if adds else ranges.discard)(frame)
        (expected.add if adds else expected.discard)(frame)
        assert {f for first, last in ranges for f in range(first, last + 1)} == expected
    assert [frame in ranges for frame in range(14)] == [frame in expected for frame in range(14)]
    assert bool(ranges) == bool(expected)
    # As few ranges as there can be.
    assert ranges.count == sum(frame - 1 not in expected for frame in expected)


def test_a_copy_goes_its_own_way() -> None:
    ranges = FrameRanges()
    ranges.add(3)
    copied = ranges.copy()
    copied.add(4)
    assert 4 not in ranges
    assert list(copied) == [(3, 4)]


def test_a_long_stream_is_one_range() -> None:
    ranges = FrameRanges()
    for frame in range(100_000):
        ranges.add(frame)
    assert list(ranges) == [(0, 99_999)]
