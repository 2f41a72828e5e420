"""A user's folder: paired by name, checked before use, and each fault named in one message."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from tests.objects import changed, rules

from cliptrase import config
from cliptrase.config.schema import Folder as FolderOf
from cliptrase.data import open_dataset
from cliptrase.data.read import labels
from cliptrase.data.read.folder import folder_digest, ignore_value, pairs
from cliptrase.data.read.folder_samples import FolderSamples
from cliptrase.errors import UserError

PHOTOS = [photo[:160, :200] for photo in load_sample_images().images]
MASK = np.repeat(np.repeat(np.arange(20).reshape(4, 5) % 7, 40, axis=0), 40, axis=1)


class Folder:
    """A folder of two photographs with masks, to be damaged by a test."""

    def __init__(self, root: Path) -> None:
        self.images, self.labels = root / "images", root / "labels"
        self.images.mkdir(parents=True)
        self.labels.mkdir()
        for name, photo in zip(("china", "flower"), PHOTOS, strict=True):
            Image.fromarray(photo).save(self.images / f"{name}.jpg", quality=90)
            self.mask(f"{name}.png", MASK)

    def mask(self, name: str, values: np.ndarray, dtype: type = np.uint8) -> None:
        Image.fromarray(values.astype(dtype)).save(self.labels / name)

    def open(self, classes: int | None = None, ignore: int = 255) -> Any:
        lookup = None if classes is None else labels.lookup(rules(ignore=ignore), classes)
        places = {"images_path": str(self.images), "labels_path": str(self.labels)}
        digest = folder_digest(self.images, self.labels)
        return FolderSamples(FolderOf(**places, digest=digest), lookup)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_samples_are_pictures_with_their_masks_in_order(folder: Folder) -> None:
    samples = folder.open(classes=7)
    assert samples.ids == ["china", "flower"] and len(samples) == 2
    for sample, photo in zip(samples, PHOTOS, strict=True):
        assert np.abs(np.asarray(sample.image).astype(int) - photo).mean() < 8
        assert np.array_equal(sample.label, MASK) and sample.label.dtype == np.int32
    assert samples[-1].id == "flower"
    with pytest.raises(IndexError):
        samples[2]


def test_names_pair_whatever_the_format(folder: Folder) -> None:
    for name, suffix in (("china", "tif"), ("flower", "bmp")):
        Image.open(folder.labels / f"{name}.png").save(folder.labels / f"{name}.{suffix}")
        (folder.labels / f"{name}.png").unlink()
    (folder.images / "china.jpg").rename(folder.images / "china.JPEG")
    (folder.labels / ".DS_Store").write_bytes(b"x")
    (folder.images / "notes.txt").write_text("x")
    assert [pair.mask.name for pair in pairs(folder.images, folder.labels)] == [
        "china.tif",
        "flower.bmp",
    ]
    assert np.array_equal(folder.open(classes=7)[1].label, MASK)


def test_masks_of_16_bits_ignore_65535(folder: Folder) -> None:
    assert ignore_value(folder.labels) == 255
    deep = np.where(MASK == 3, 65535, MASK + 254)
    for name in ("china.png", "flower.png"):
        folder.mask(name, deep, np.uint16)
    assert ignore_value(folder.labels) == 65535
    assert set(np.unique(folder.open(classes=261, ignore=65535)[0].label)) == {
        *np.unique(deep).tolist()
    }


def test_masks_of_both_depths_are_refused(folder: Folder) -> None:
    folder.mask("flower.png", MASK, np.uint16)
    with pytest.raises(UserError, match=r"china.png has 8 bits and flower.png has 16"):
        ignore_value(folder.labels)


def test_a_turned_photograph_is_measured_as_shown(folder: Folder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTOS[0]).save(folder.images / "china.jpg", exif=exif)
    with pytest.raises(UserError, match=r"200 × 160 pixels, but china.jpg has 160 × 200 as shown"):
        folder.open()
    folder.mask("china.png", np.rot90(MASK, -1))
    assert folder.open(classes=7)[0].image.size == (160, 200)


def break_missing_folder(folder: Folder) -> None:
    shutil.rmtree(folder.labels)


def break_file_for_folder(folder: Folder) -> None:
    folder.images = folder.images / "china.jpg"


def break_empty_images(folder: Folder) -> None:
    for path in folder.images.iterdir():
        path.unlink()


def break_missing_mask(folder: Folder) -> None:
    (folder.labels / "flower.png").unlink()


def break_two_missing_masks(folder: Folder) -> None:
    for name in ("orchid", "tulip"):
        Image.fromarray(PHOTOS[0]).save(folder.images / f"{name}.jpg")


def break_extra_mask(folder: Folder) -> None:
    folder.mask("orchid.png", MASK)


def break_jpeg_mask(folder: Folder) -> None:
    Image.fromarray(MASK.astype(np.uint8)).save(folder.labels / "flower.jpg")
    (folder.labels / "flower.png").unlink()


def break_two_of_a_name(folder: Folder) -> None:
    Image.fromarray(PHOTOS[0]).save(folder.images / "china.png")


def break_two_masks_of_a_name(folder: Folder) -> None:
    folder.mask("china.tif", MASK)


def break_same_folder(folder: Folder) -> None:
    folder.images = folder.labels


def break_size(folder: Folder) -> None:
    folder.mask("flower.png", MASK[:, :-1])


def break_colours(folder: Folder) -> None:
    Image.fromarray(PHOTOS[0]).save(folder.labels / "flower.png")


def break_swapped(folder: Folder) -> None:
    folder.images, folder.labels = folder.labels, folder.images


def break_swapped_png(folder: Folder) -> None:
    for path in list(folder.images.iterdir()):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    break_swapped(folder)


def break_swapped_grey(folder: Folder) -> None:
    for path in list(folder.images.iterdir()):
        Image.open(path).convert("L").save(path.with_suffix(".png"))
        path.unlink()
    break_swapped(folder)


def break_truncated_image(folder: Folder) -> None:
    path = folder.images / "flower.jpg"
    path.write_bytes(path.read_bytes()[:3000])


def break_truncated_mask(folder: Folder) -> None:
    path = folder.labels / "flower.png"
    path.write_bytes(path.read_bytes()[:-40])


def break_page_for_image(folder: Folder) -> None:
    (folder.images / "flower.jpg").write_text("<html>")


def break_label(folder: Folder) -> None:
    folder.mask("flower.png", np.where(MASK == 2, 9, MASK))


def break_noisy_label(folder: Folder) -> None:
    folder.mask("flower.png", PHOTOS[0][..., 0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_missing_folder, r"labels: no such folder; benchmark.labels must name a folder"),
        (break_file_for_folder, r"china.jpg: a file, not a folder; benchmark.images must"),
        (break_empty_images, r"images: no picture in this folder \(.jpg, .*subfolders are not"),
        (break_missing_mask, r"labels: no mask for flower.jpg; add flower.png"),
        (break_two_missing_masks, r"labels: no mask for orchid.jpg \(nor for 1 more\)"),
        (break_extra_mask, r"orchid.png: a mask without a picture in .*images"),
        (break_jpeg_mask, r"flower.jpg: .jpg is no format for masks; save it as PNG"),
        (break_two_of_a_name, r"china.png: the same name as china.jpg; keep one picture"),
        (break_two_masks_of_a_name, r"china.tif: the same name as china.png; keep one mask"),
        (break_same_folder, r"labels: given as images and as labels"),
        (break_size, r"flower.png: 199 × 160 pixels, but flower.jpg has 200 × 160"),
        (break_colours, r"flower.png: a mask must hold one label a pixel"),
        (break_swapped, r"images: no mask in this folder .*benchmark.labels swapped\?"),
        (break_swapped_png, r"china.png looks like a photograph and .*label map: .*swapped\?"),
        (break_swapped_grey, r"china.png looks like a photograph and .*label map: .*swapped\?"),
        (break_truncated_image, r"flower.jpg: truncated or damaged"),
        (break_truncated_mask, r"flower.png: truncated or damaged"),
        (break_page_for_image, r"flower.jpg: not an image that can be read"),
        (break_label, r"flower.png: label 9 is neither one of the 7 classes \(0 to 6\)"),
        (break_noisy_label, r"flower.png: label .* looks like a photograph: .*swapped\?"),
    ],
)
def test_each_fault_is_named(damage: Any, message: str, folder: Folder) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        list(folder.open(classes=7))
    assert "\n" not in str(error.value)


def test_the_digest_follows_contents_and_names_never_the_place(
    folder: Folder, tmp_path: Path
) -> None:
    first = folder_digest(folder.images, folder.labels)
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder.images, moved / "a")
    shutil.copytree(folder.labels, moved / "b")
    (moved / "a" / "notes.txt").write_text("not part of it")
    assert folder_digest(moved / "a", moved / "b") == first
    (moved / "a" / "china.jpg").rename(moved / "a" / "orchid.jpg")
    (moved / "b" / "china.png").rename(moved / "b" / "orchid.png")
    assert folder_digest(moved / "a", moved / "b") != first
    folder.mask("china.png", np.where(MASK == 2, 1, MASK))
    assert folder_digest(folder.images, folder.labels) != first


def test_a_run_opens_its_folder_and_keeps_to_its_limit(folder: Folder, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"word {number}" for number in range(7)))
    places = [f"benchmark.images={folder.images}", f"benchmark.labels={folder.labels}"]
    run = config.resolve(["benchmark=folder", *places, f"benchmark.classes={words}"])
    assert open_dataset(run).ids == ["china", "flower"]
    assert [sample.id for sample in open_dataset(changed(run, {"limit": 1}))] == ["china"]
    assert len(open_dataset(changed(run, {"limit": 10}))) == 2
    run = changed(run, {"vocabulary.classes.count": 6})
    with pytest.raises(UserError, match=r"china.png: label 6 is neither one of the 6 classes"):
        open_dataset(run)[0]


def test_palette_masks_are_read_as_indices(folder: Folder) -> None:
    for name in ("china.png", "flower.png"):
        mask = Image.fromarray(MASK.astype(np.uint8), "P")
        mask.putpalette(bytes(range(256)) * 3)
        content = io.BytesIO()
        mask.save(content, "PNG")
        (folder.labels / name).write_bytes(content.getvalue())
    assert np.array_equal(folder.open(classes=7)[0].label, MASK)
