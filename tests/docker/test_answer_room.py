import numpy as np
import pytest
from answer_room import bytes_of, fits


def test_bytes_are_those_of_all_tensors_and_of_each_text_with_its_length() -> None:
    texts = np.empty((2, 2), np.object_)
    texts[:] = [[b"", b"a"], [b"bc", b"def"]]
    assert (
        bytes_of([np.zeros((3, 5), np.float32), np.zeros((0, 7), np.uint8), texts]) == 60 + 6 + 16
    )
    assert bytes_of([np.empty((0, 0), np.object_)]) == 0


@pytest.mark.parametrize(
    ("needed", "region_free", "directory_free", "expected"),
    [
        (10, 10, 0, True),  # in the region
        (11, 10, 99, False),  # the region grows by 100 at least
        (11, 10, 100, True),
        (101, 10, 100, False),  # or by what is needed
        (101, 10, 101, True),
    ],
)
def test_an_answer_fits_into_the_region_or_into_what_it_grows_by(
    needed: int, region_free: int, directory_free: int, expected: bool
) -> None:
    assert fits(needed, region_free, 100, directory_free) == expected
