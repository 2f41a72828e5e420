"""Whole pictures for sliding windows: their sizes, and that nothing is blurred."""

import numpy as np
import pytest
import torch
from PIL import Image

from cliptrase.data.read.crop import whole_image, whole_size
from cliptrase.data.read.opencv import linear
from cliptrase.errors import UserError


@pytest.mark.parametrize("seed", range(12))
def test_pixels_are_torch_s_without_antialiasing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, new_height, new_width = map(int, rng.integers(2, 300, 4))
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    values = torch.tensor(pixels).permute(2, 0, 1)[None].double()
    want = torch.nn.functional.interpolate(
        values, (new_height, new_width), mode="bilinear", align_corners=False, antialias=False
    )[0].permute(1, 2, 0)
    found = linear(pixels, new_height, new_width)
    assert np.abs(found - want.numpy()).max() < 1  # grey level: weights have 11 bits
    if new_height * 2 < height:  # and not PIL's, which blurs what it makes smaller
        blurred = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
        assert np.abs(found.astype(int) - np.asarray(blurred)).max() > 20


@pytest.mark.parametrize(
    ("width", "height", "short_side", "size"),
    [
        (500, 375, 336, (448, 336)),
        (375, 500, 336, (336, 448)),
        (500, 333, 336, (505, 336)),  # 504.5, half up
        (640, 427, 448, (671, 448)),  # 671.48
        (2048, 1024, 560, (1120, 560)),
        (224, 224, 336, (336, 336)),
        (4000, 500, 336, (2048, 256)),  # the long side is what limits
        (3000, 100, 336, (2048, 68)),  # 68.27
        (10, 10, 336, (336, 336)),
    ],
)
def test_sizes(width: int, height: int, short_side: int, size: tuple[int, int]) -> None:
    assert whole_size(width, height, short_side) == size
    picture = Image.new("RGB", (width, height), (10, 20, 30))
    shown = whole_image(picture, short_side)
    assert shown.shape == (size[1], size[0], 3) and (shown == (10, 20, 30)).all()


def test_a_strip_is_refused() -> None:
    with pytest.raises(UserError, match="5001 × 50 pixels is too long for the model; cut it up"):
        whole_image(Image.new("RGB", (5001, 50)), 336)
