"""The resizes of OpenCV, against what OpenCV gave (4.8.1 and 5.0.0, the same bytes)."""

import hashlib

import numpy as np
import pytest

from cliptrase.data.read.opencv import linear, nearest

GOLDEN = [  # old and new (height, width); sha256 of cv2.resize, INTER_LINEAR and INTER_NEAREST
    ((60, 80), (51, 68), "2f8ddd4042ccc63e", "156791e6f3618a81"),
    ((61, 83), (51, 70), "afce51284545203e", "867cb9223c48cd4a"),
    ((80, 60), (40, 30), "a21c37a66ed17319", "222957382ee17dcc"),
    ((97, 53), (94, 51), "4b802545e2a29188", "cbf1a4afffca1a0d"),
    ((53, 97), (71, 130), "f94223871441d630", "3068baab6055db9b"),
    ((40, 40), (39, 40), "22525745009cb815", "1033a9b11e74c62e"),
    ((1536, 2048), (512, 683), "9b9cadfdd3a1dd2c", "a6eee867744fae82"),
]


def picture(height: int, width: int) -> np.ndarray:
    y, x, c = np.mgrid[:height, :width, :3]
    return ((y * y * 7 + x * 31 + x * y * 3 + c * 85) % 256).astype(np.uint8)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("old", "new", "picture_digest", "label_digest"), GOLDEN)
def test_the_bytes_of_opencv(
    old: tuple[int, int], new: tuple[int, int], picture_digest: str, label_digest: str
) -> None:
    assert digest(linear(picture(*old), *new)) == picture_digest
    grey = linear(picture(*old)[..., 1], *new)
    assert np.array_equal(grey, linear(picture(*old), *new)[..., 1])
    places = np.arange(old[0] * old[1], dtype="<i4").reshape(old)
    assert digest(nearest(places, *new)) == label_digest


def test_a_place_that_would_be_whole_may_fall_below_it() -> None:
    """30 · 589 / 570 = 31, but OpenCV takes pixel 30: an exact floor would differ from it."""
    assert nearest(np.arange(589)[None], 1, 570)[0, 30] == 30
