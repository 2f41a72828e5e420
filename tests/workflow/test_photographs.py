"""Real photographs end to end: `benchmark=folder` and `cliptrase segment`, every kind of file.

The embedded CLIP makes no sense of photographs: what is tested is that pixels and labels arrive.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from cliptrase.cli import main
from cliptrase.data.read.crop import crop_label
from cliptrase.segmenter import Segmenter

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
VOC = SAMPLES / "voc2012" / "VOCdevkit" / "VOC2012"
CLASSES = ("sky", "leaf", "wood", "water", "grass", "apple", "brick")
OFFLINE = ["--model", "shapes_clip", "--templates", "shapes"]


@pytest.fixture(scope="module")
def photographs():
    """china.jpg and flower.jpg, and masks: 0 where blue, 1 green, 2 red, 255 where grey."""
    found = {}
    for name in ("china", "flower"):
        pixels = sklearn.datasets.load_sample_image(f"{name}.jpg")
        mask = np.array([2, 1, 0])[pixels.argmax(axis=2)]
        mask[np.ptp(pixels, axis=2) < 12] = 255
        found[name] = (Image.fromarray(pixels), mask)
    return found


def palette(mask):
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([value for index in range(256) for value in (255 - index, index // 2, 77)])
    return image


MASKS = {  # how a mask is stored: file ending, picture of an (H, W) mask with 255 = ignored
    "8-bit PNG": ("png", lambda mask: Image.fromarray(mask.astype(np.uint8))),
    "16-bit PNG": ("png", lambda mask: Image.fromarray(sixteen(mask))),
    "8-bit TIFF": ("tif", lambda mask: Image.fromarray(mask.astype(np.uint8))),
    "16-bit TIFF": ("tiff", lambda mask: Image.fromarray(sixteen(mask))),
    "palette PNG": ("png", palette),
}


def sixteen(mask):
    return np.where(mask == 255, 65535, mask).astype(np.uint16)


def evaluate(folder, *overrides):
    """metrics.json and the confusion matrix of `benchmark=folder` on what lies in `folder`."""
    (folder / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    main(
        [
            "evaluate",
            "benchmark=folder",
            f"benchmark.images={folder / 'images'}",
            f"benchmark.labels={folder / 'labels'}",
            f"benchmark.classes={folder / 'classes.txt'}",
            "benchmark.templates=shapes",
            "model=shapes_clip",
            f"out={folder / 'runs'}",
            f"data={folder / 'data'}",
            *overrides,
        ]
    )
    (run,) = (path for path in (folder / "runs").iterdir() if path.is_dir())
    with np.load(run / "confusion.npz") as file:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8")), file["confusion"]


def laid_out(folder, photographs, ending="jpg", mask="8-bit PNG"):
    (folder / "images").mkdir(parents=True), (folder / "labels").mkdir()
    mask_ending, stored = MASKS[mask]
    for name, (picture, labels) in photographs.items():
        picture.save(folder / "images" / f"{name}.{ending}")
        stored(labels).save(folder / "labels" / f"{name}.{mask_ending}")
    return folder


@pytest.fixture(scope="module")
def expected(photographs):
    """The confusion matrix of lossless pictures, from Segmenter's crops and the masks alone."""
    segmenter = Segmenter("shapes_clip", classes=CLASSES, templates="shapes", crop=True)
    matrix = np.zeros((7, 7), dtype=np.int64)
    for picture, mask in photographs.values():
        truth = crop_label(mask, 224)
        scored = truth != 255
        np.add.at(matrix, (truth[scored], segmenter(picture).labels[scored]), 1)
    return matrix


@pytest.mark.parametrize("mask", MASKS)
def test_a_folder_is_evaluated_whatever_its_masks_are_stored_as(
    mask, photographs, expected, tmp_path
):
    metrics, confusion = evaluate(laid_out(tmp_path, photographs, "png", mask))
    np.testing.assert_array_equal(confusion, expected)
    assert metrics["images"] == 2
    hit, truth, predicted = np.diag(expected), expected.sum(1), expected.sum(0)
    iou = hit / (truth + predicted - hit + 0.01)
    assert metrics["mIoU"] == pytest.approx(100 * iou[truth > 0].mean(), abs=1e-4)
    assert metrics["pAcc"] == pytest.approx(100 * hit.sum() / expected.sum(), abs=1e-4)


def test_ignored_pixels_count_as_background_where_words_are_given(photographs, tmp_path):
    laid_out(tmp_path, photographs, "webp")
    (tmp_path / "background.txt").write_text("a wall\nsomething\n", encoding="utf-8")
    metrics, confusion = evaluate(tmp_path, f"benchmark.background={tmp_path / 'background.txt'}")
    assert confusion.shape == (8, 8) and confusion.sum() == 2 * 224 * 224
    assert [entry["name"] for entry in metrics["iou"]] == [*CLASSES, "background"]
    grey = sum(int((crop_label(mask, 224) == 255).sum()) for _, mask in photographs.values())
    assert confusion[7].sum() == grey > 0


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("shapes_clip", classes=CLASSES, templates="shapes")


@pytest.fixture(scope="module")
def unvoted():
    return Segmenter("shapes_clip", "sclip", CLASSES, templates="shapes")


KINDS = {  # how a photograph is stored without loss, and how what it shows is made of the original
    "png": (lambda image: image, lambda image: image),
    "webp": (lambda image: image, lambda image: image),
    "tiff": (lambda image: image, lambda image: image),
    "grey.png": (lambda image: image.convert("L"), lambda image: image.convert("L").convert("RGB")),
    "palette.png": (
        lambda image: image.quantize(64),
        lambda image: image.quantize(64).convert("RGB"),
    ),
    "alpha.png": (
        lambda image: half_transparent(image),
        lambda image: Image.composite(image, Image.new("RGB", image.size, "white"), left(image)),
    ),
    "16.png": (
        lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        lambda image: image.convert("L").convert("RGB"),
    ),
}


def left(image):
    """Opaque on the left half."""
    alpha = np.zeros((image.height, image.width), dtype=np.uint8)
    alpha[:, : image.width // 2] = 255
    return Image.fromarray(alpha)


def half_transparent(image):
    image = image.copy()
    image.putalpha(left(image))
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_segmented_as_it_looks(kind, photographs, unvoted, tmp_path):
    """Without the vote: it may give a whole photograph, strange to this model, one label."""
    stored, seen = KINDS[kind]
    picture = photographs["flower"][0]
    options = {"lossless": True} if kind == "webp" else {}
    stored(picture).save(tmp_path / f"photo.{kind}", **options)
    main(
        [
            *("segment", str(tmp_path / f"photo.{kind}"), "--classes", ", ".join(CLASSES)),
            *("--method", "sclip", "--labels", str(tmp_path / "out.png"), *OFFLINE),
        ]
    )
    labels = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(labels, unvoted(seen(picture)).labels)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (3, Image.Transpose.ROTATE_180),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_picture_rotated_by_exif_gets_the_labels_of_the_upright_one(
    orientation, turned, ending, photographs, segmenter, tmp_path
):
    """The sensor's pixels lie turned in the file; the orientation says how to turn them back."""
    upright = photographs["china"][0].resize((320, 208))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 100} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    )
    path = tmp_path / f"turned.{ending}"
    upright.transpose(turned).save(path, exif=exif, **options)
    back = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270}
    back |= {3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_90}
    with Image.open(path) as stored:
        assert stored.size == upright.transpose(turned).size
        shown = Image.fromarray(np.asarray(stored.convert("RGB"))).transpose(back[orientation])
    main(
        [
            *("segment", str(path), "--classes", ", ".join(CLASSES)),
            *(
                "--labels",
                str(tmp_path / "out.png"),
                "--overlay",
                str(tmp_path / "o.png"),
                *OFFLINE,
            ),
        ]
    )
    labels = Image.open(tmp_path / "out.png")
    assert labels.size == upright.size
    np.testing.assert_array_equal(np.asarray(labels), segmenter(shown).labels)
    assert Image.open(tmp_path / "o.png").width == upright.width


def test_a_cmyk_jpeg_is_segmented_in_its_colours(photographs, unvoted, tmp_path):
    """Inks inverted in the file, as Adobe does: read the other way, nearly all labels differ."""
    picture = photographs["flower"][0]
    picture.convert("CMYK").save(tmp_path / "ink.jpg", quality=100)
    labels = unvoted(picture).labels
    assert (unvoted(tmp_path / "ink.jpg").labels == labels).mean() > 0.95
    negative = Image.fromarray(255 - np.asarray(picture))
    assert (unvoted(negative).labels == labels).mean() < 0.8


@pytest.mark.skipif(not VOC.is_dir(), reason="no shared samples here")
def test_voc_photographs_with_their_palette_masks(tmp_path):
    """VOC's own JPEGs and SegmentationClassAug masks, 0 and 255 and 20 objects, as they are."""
    names = [path.stem for path in sorted((VOC / "SegmentationClassAug").iterdir())][:3]
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.jpg").symlink_to(VOC / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "labels" / f"{name}.png").symlink_to(
            VOC / "SegmentationClassAug" / f"{name}.png"
        )
    (tmp_path / "words.txt").write_text(
        "\n".join(f"thing {n}" for n in range(21)), encoding="utf-8"
    )
    _, confusion = evaluate(tmp_path, f"vocabulary={tmp_path / 'words.txt'}")
    counts = np.zeros(256, dtype=np.int64)
    for name in names:
        mask = np.asarray(Image.open(VOC / "SegmentationClassAug" / f"{name}.png"))
        counts += np.bincount(crop_label(mask.astype(np.int32), 224).ravel(), minlength=256)
    np.testing.assert_array_equal(confusion.sum(axis=1), counts[:21])


@pytest.mark.skipif(not VOC.is_dir(), reason="no shared samples here")
def test_photographs_are_segmented_at_their_own_sizes(tmp_path):
    photos = sorted((VOC / "JPEGImages").iterdir())[:2]
    main(
        [
            *("segment", *map(str, photos), "--classes", "person, dog", "--method", "sclip"),
            *("--labels", f"{tmp_path}/", "--json", f"{tmp_path}/{{name}}.json", *OFFLINE),
        ]
    )
    for photo in photos:
        report = json.loads((tmp_path / f"{photo.stem}.json").read_text(encoding="utf-8"))
        size = Image.open(photo).size
        assert Image.open(tmp_path / f"{photo.stem}.png").size == size
        assert (report["width"], report["height"]) == size and report["regions"] == []
