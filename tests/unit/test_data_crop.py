"""The crops equal torchvision's and PIL's to the pixel."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from cliptrase.data.read.crop import crop_image, crop_label, fit_image, nearest_indices
from cliptrase.errors import UserError


def released(size: int, mode: InterpolationMode) -> Compose:
    """The transforms of the released code."""
    return Compose([Resize(size, mode), CenterCrop(size)])


def sizes(seed: int, count: int) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    random = [
        (*map(int, rng.integers(20, 700, 2)), int(rng.choice([224, 336]))) for _ in range(count)
    ]
    return [*random, (224, 224, 224), (225, 224, 224), (223, 500, 224), (333, 500, 336), (1, 9, 32)]


@pytest.mark.parametrize(("height", "width", "size"), sizes(0, 40))
def test_images_equal_the_released_transforms(height: int, width: int, size: int) -> None:
    rng = np.random.default_rng(height * width)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    want = np.asarray(released(size, InterpolationMode.BICUBIC)(image))
    got = crop_image(image, size)
    assert got.shape == (size, size, 3) and np.array_equal(got, want)


@pytest.mark.parametrize(("height", "width", "size"), sizes(1, 40))
def test_labels_equal_the_released_transforms(height: int, width: int, size: int) -> None:
    label = np.random.default_rng(height * width).integers(0, 256, (height, width), dtype=np.uint8)
    want = np.asarray(released(size, InterpolationMode.NEAREST)(Image.fromarray(label)))
    got = crop_label(label.astype(np.int32), size)
    assert got.dtype == np.int32 and np.array_equal(got, want)


def test_nearest_is_pils_over_thousands_of_sizes() -> None:
    """The obvious (i + 0.5) · scale differs from PIL's in one size of ten."""
    rng = np.random.default_rng(2)
    lengths = np.concatenate([rng.integers(1, 1500, 2000), np.arange(1, 700)])
    product_differs = 0
    for length in map(int, lengths):
        new = int(rng.choice([224, 336, 448, rng.integers(1, 1500)]))
        line = np.stack([np.arange(length) // 250, np.arange(length) % 250]).astype(np.uint8)
        high, low = (
            np.asarray(Image.fromarray(part[None]).resize((new, 1), Image.Resampling.NEAREST))[0]
            for part in line
        )
        want = high.astype(np.int64) * 250 + low
        assert np.array_equal(nearest_indices(length, new), want), (length, new)
        product_differs += not np.array_equal(
            ((np.arange(new) + 0.5) * (length / new)).astype(np.int64), want
        )
    assert product_differs > 100


def test_sixteen_bit_labels_keep_their_values() -> None:
    label = np.random.default_rng(3).choice([0, 255, 256, 846, 65535], (300, 401)).astype(np.int32)
    assert set(np.unique(crop_label(label, 224))) == {0, 255, 256, 846, 65535}
    low = crop_label(label % 256, 224) + 256 * crop_label(label // 256, 224)
    assert np.array_equal(crop_label(label, 224), low)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    assert np.array_equal(crop_image(Image.fromarray(pixels), 224), pixels)
    assert np.array_equal(crop_label(pixels[..., 0], 224), pixels[..., 0])


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (640, 480, (224, 304, 3)),  # 298.7 px: 18.67 patches, 19
        (480, 640, (304, 224, 3)),
        (500, 500, (224, 224, 3)),
        (1000, 100, (224, 2240, 3)),
        (30, 31, (224, 224, 3)),
    ],
)
def test_whole_pictures_have_sides_of_whole_patches(width: int, height: int, shape: tuple) -> None:
    image = Image.new("RGB", (width, height), (10, 20, 30))
    fitted = fit_image(image, 224, 16)
    assert fitted.shape == shape
    assert (fitted == (10, 20, 30)).all()


def test_a_strip_is_refused_instead_of_blown_up() -> None:
    strip = Image.new("RGB", (5001, 50))
    for refuse in (
        lambda: crop_image(strip, 224),
        lambda: fit_image(strip, 224, 16),
        lambda: crop_label(np.zeros((50, 5001), np.int32), 224),
    ):
        with pytest.raises(
            UserError, match="5001 × 50 pixels is too long for the model; cut it up"
        ):
            refuse()
