"""One image or mask of an archive is missing, one too many, foreign, of another size or value.

Each ends in one message that names it and the cure, and leaves no prepared dataset.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from tests.miniature import edited
from tests.miniature.contents import Contents
from tests.miniature.edited import Edit, a_png, place, put, refused

COCO, CITY = edited.ids("coco"), edited.ids("cityscapes")
VOC = "VOCdevkit/VOC2012"
ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"


def without(pattern: str) -> Edit:
    """Leave out the one member whose name the pattern finds."""

    def edit(held: Contents) -> Contents:
        (gone,) = (name for name in held if re.search(pattern, name))
        return {name: content for name, content in held.items() if name != gone}

    return edit


def copy(source: str, target: str) -> Edit:
    return put(target, lambda held: held[source])


def mask_of(value: int, like: str, dtype: type = np.uint8) -> Callable[[Contents], bytes]:
    """A mask of the size of another, wholly of one value."""

    def made(held: Contents) -> bytes:
        width, height = Image.open(io.BytesIO(held[like])).size
        return a_png(np.full((height, width), value, dtype))

    return made


def a_mat(**content: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    return file.getvalue()


MEMBERS = [  # dataset, edits, message
    ("coco", {"images": without(COCO[1])}, f"coco: {COCO[1]} without image"),
    ("coco", {"labels": without(COCO[1])}, f"coco: {COCO[1]} without mask"),
    (
        "coco",
        {"images": copy(f"val2017/{COCO[0]}.jpg", "val2017/000000999999.jpg")},
        "000000999999 without mask",
    ),
    (
        "coco",
        {
            "images": copy(f"val2017/{COCO[0]}.jpg", "val2017/000000999999.jpg"),
            "labels": copy(f"val2017/{COCO[0]}.png", "val2017/000000999999.png"),
        },
        "coco: 4 images, where its source has 3 .*first and last: 000000000285, 000000999999.*"
        r"`count:` of coco in .*sources\.yaml is wrong; ",
    ),
    (
        "coco",
        {"images": copy(f"val2017/{COCO[0]}.jpg", f"again/val2017/{COCO[0]}.jpg")},
        f"{COCO[0]}.* both have the id",
    ),
    ("voc2012", {"images": without(r"JPEGImages/2007_000042")}, "2007_000042 without image"),
    ("voc2012", {"images": without(r"SegmentationClass/2007_000042")}, "2007_000042 without mask"),
    ("voc2012", {"images": without(r"Segmentation/val\.txt")}, "0 lists of images"),
    (
        "voc2012",
        {"images": put(f"{VOC}/ImageSets/Segmentation/val.txt", b"2007_000033\n2007_000033\n")},
        "lists an image twice",
    ),
    ("pcontext", {"images": without("2008_000003")}, "2008_000003 without image"),
    ("pcontext", {"labels": without("2008_000003")}, "2008_000003 without mask"),
    ("ade2016", {"images": without(r"images/validation/.*3\.jpg")}, "ADE_val_00000003 without im"),
    ("ade2021", {"images": without(r"ADE_val_00000003_seg")}, "ADE_val_00000003 without mask"),
    ("cityscapes", {"labels": without(rf"{CITY[1]}_gtFine_labelIds")}, f"{CITY[1]} without mask"),
    # values
    (
        "coco",
        {"labels": put(f"val2017/{COCO[1]}.png", mask_of(200, f"val2017/{COCO[1]}.png"))},
        f"{COCO[1]}: its mask holds 200, a value that no mask",
    ),
    (
        "cityscapes",
        {
            "labels": put(
                f"gtFine/val/frankfurt/{CITY[0]}_gtFine_labelIds.png",
                mask_of(26001, f"gtFine/val/frankfurt/{CITY[0]}_gtFine_labelIds.png", np.uint16),
            )
        },
        f"{CITY[0]}: its mask holds 26001",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((353, 353), 460)))},
        "2008_000003: its mask holds 460, a value that no mask",
    ),
    # sizes and kinds of pictures
    (
        "ade2016",
        {"images": put(f"{ADE}/annotations/validation/ADE_val_00000003.png", a_png(np.eye(9) > 0))},
        r"ADE_val_00000003\.png: a mask of 9 x 9 pixels for an image of 512 x 683",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002_seg.png",
                a_png(np.zeros((9, 9, 3), np.uint8)),
            )
        },
        r"ADE_val_00000002_seg\.png: a mask of 9 x 9 pixels for an image of 1024 x 768",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002_seg.png",
                a_png(np.zeros((768, 1024), np.uint8)),
            )
        },
        r"ADE_val_00000002_seg\.png: a PNG of mode L, where masks are RGB PNGs",
    ),
    (
        "voc2012",
        {
            "images": put(
                f"{VOC}/SegmentationClass/2007_000042.png",
                lambda held: held[f"{VOC}/JPEGImages/2007_000042.jpg"],
            )
        },
        r"SegmentationClass/2007_000042\.png: a JPEG file does not keep label values",
    ),
    (
        "voc2012",
        {
            "images": put(
                f"{VOC}/JPEGImages/2007_000042.jpg",
                lambda held: held[f"{VOC}/SegmentationClass/2007_000042.png"],
            )
        },
        r"JPEGImages/2007_000042\.jpg: a PNG of mode P is no photograph; are images and masks swap",
    ),
    (
        "coco",
        {"images": put(f"val2017/{COCO[1]}.jpg", b"<html>not found</html>")},
        rf"{COCO[1]}\.jpg: not an image that can be read; give JPEG",
    ),
    (
        "coco",
        {"images": put(f"val2017/{COCO[1]}.jpg", lambda h: h[f"val2017/{COCO[1]}.jpg"][:5000])},
        rf"{COCO[1]}: truncated or damaged",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002.jpg",
                lambda h: h[f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002.jpg"][
                    :5000
                ],
            )
        },
        r"ADE_val_00000002\.jpg: truncated or damaged",
    ),
    # MATLAB files
    ("pcontext", {"labels": put("trainval/2008_000003.mat", b"MATLAB 5.0")}, "no label map"),
    ("pcontext", {"labels": put("trainval/2008_000003.mat", a_mat(Other=1))}, "LabelMap is absent"),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((5, 5), 1.5)))},
        r"2008_000003\.mat: .*other things than whole numbers",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((5, 5), -1)))},
        r"2008_000003\.mat: .*other things than whole numbers",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap="text"))},
        r"2008_000003\.mat: no label map",
    ),
    # names that lead out of the folder, in any archive
    *(
        (dataset, {"images": put("../../out.jpg", b"")}, r"'\.\./\.\./out\.jpg': a name that leads")
        for dataset in ("coco", "voc2012")
    ),
    ("pcontext", {"labels": put("/etc/out.mat", b"")}, r"'/etc/out\.mat': a name that leads"),
]


@pytest.mark.parametrize(("dataset", "edits", "message"), MEMBERS)
def test_a_member_that_is_not_as_it_should_be(
    dataset: str, edits: dict[str, Edit], message: str, tmp_path: Path
) -> None:
    text = refused(place(tmp_path, dataset, edits), dataset, message)
    assert text.startswith((f"{dataset}: ", f"{dataset}, "))
    assert re.search(rf"delete {tmp_path}/raw/.* and run `cliptrase prepare {dataset} ", text)
    assert str(tmp_path / "prepared") not in text, "it names a folder that is gone"
