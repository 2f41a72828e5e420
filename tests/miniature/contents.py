"""What is in each miniature archive: member name → bytes, in the layout of the real one.

Also what a reader has to leave alone: training parts, instance masks, an index nobody may open.
"""

from __future__ import annotations

import functools
import io
import json

import numpy as np
import scipy.io

from . import pictures
from .pictures import jpeg, picture, png

Contents = dict[str, bytes]

# (width, height): landscape, portrait, square; as photographs of each source are
VOC_SIZES = [(500, 375), (375, 500), (500, 333), (334, 500), (353, 353), (500, 281)]
COCO_SIZES = [(640, 480), (480, 640), (612, 612), (640, 426), (375, 500), (240, 320)]
ADE_SIZES = [(683, 512), (512, 683), (256, 256), (512, 512), (360, 270), (778, 512)]
ADE_FULL_SIZES = [(1024, 768), (700, 1000), (683, 512), (400, 300), (513, 514), (900, 600)]
CITY_SIZES = [(1024, 512)] * 6

VOC_IDS = ["2007_000033", "2007_000042", "2008_000009", "2009_000012", "2010_000003", "2011_000045"]
CONTEXT_IDS = [
    "2008_000002",
    "2008_000003",
    "2008_000007",
    "2008_000009",
    "2009_000001",
    "2010_000001",
]
COCO_IDS = [f"{number:012d}" for number in (285, 632, 724, 776, 785, 802)]
COCO_TRAIN_IDS = ("000000000009", "000000000025")
ADE_IDS = [f"ADE_val_{number:08d}" for number in (2, 3, 4, 5, 6, 2000)]
CITY_IDS = [
    "frankfurt_000000_000294",
    "frankfurt_000001_002646",
    "lindau_000000_000019",
    "lindau_000058_000019",
    "munster_000000_000019",
    "munster_000173_000019",
]
SCENES = [("urban", "street"), ("home_or_hotel", "bedroom"), ("nature_landscape", "beach")]


def voc2012(count: int) -> Contents:
    """VOCtrainval_11-May-2012.tar: palette masks, lists, training images that nobody asked for."""
    root, table = "VOCdevkit/VOC2012", pictures.voc_table()
    colours = pictures.voc_colormap()
    ids, train = VOC_IDS[:count], ["2007_000032", "2007_000039"]
    made: Contents = {}
    for number, name in enumerate([*ids, *train]):
        shown = picture(number, VOC_SIZES[number % len(VOC_SIZES)])
        made[f"{root}/JPEGImages/{name}.jpg"] = jpeg(shown.image)
        mask = shown.labels(table, seam=255)
        made[f"{root}/SegmentationClass/{name}.png"] = png(mask, colours)
        made[f"{root}/SegmentationObject/{name}.png"] = png((mask > 0).astype(np.uint8), colours)
        made[f"{root}/Annotations/{name}.xml"] = b"<annotation/>\n"
    lists = {"val": ids, "train": train, "trainval": sorted([*ids, *train])}
    for part, names in lists.items():
        made[f"{root}/ImageSets/Segmentation/{part}.txt"] = _lines(names)
        made[f"{root}/ImageSets/Main/{part}.txt"] = _lines([*names, "2008_009999"])
    return made


def context_images(count: int) -> Contents:
    """VOCtrainval_03-May-2010.tar: photographs; its Segmentation/val.txt is of another split."""
    root = "VOCdevkit/VOC2010"
    made = {
        f"{root}/JPEGImages/{name}.jpg": jpeg(shown.image)
        for name, shown in _context(count).items()
    }
    made[f"{root}/JPEGImages/2008_000008.jpg"] = jpeg(picture(90, (320, 240)).image)
    made[f"{root}/ImageSets/Segmentation/val.txt"] = _lines([CONTEXT_IDS[0], "2007_000999"])
    return made


def context_masks(count: int) -> Contents:
    """trainval.tar.gz: a MATLAB file for each image, uint16 1..459, and for a training image."""
    table = pictures.pcontext_table()
    made = {
        f"trainval/{name}.mat": mat(shown.labels(table)) for name, shown in _context(count).items()
    }
    made["trainval/2008_000008.mat"] = mat(picture(90, (320, 240)).labels(table))
    made["labels.txt"] = _lines([f"{number}: class {number}" for number in range(1, 460)])
    return made


def _coco_training() -> dict[str, pictures.Picture]:
    return {name: picture(80 + number, (320, 240)) for number, name in enumerate(COCO_TRAIN_IDS)}


def coco_images(count: int) -> Contents:
    """val2017.zip."""
    return {f"val2017/{name}.jpg": jpeg(shown.image) for name, shown in _coco(count).items()}


def coco_masks(count: int) -> Contents:
    """stuffthingmaps_trainval2017.zip: no folder above, a few of the training masks too."""
    table = pictures.coco_table()
    made = {
        f"val2017/{name}.png": png(shown.labels(table, seam=255))
        for name, shown in _coco(count).items()
    }
    for name, shown in _coco_training().items():
        made[f"train2017/{name}.png"] = png(shown.labels(table, 255))
    return made


def coco_training_images() -> Contents:
    """train2017.zip: the images of the training masks."""
    return {f"train2017/{name}.jpg": jpeg(shown.image) for name, shown in _coco_training().items()}


def coco_curated(names: list[str]) -> Contents:
    """COCOStuff164kCurated.tar.gz: the lists of images with at least so many stuff pixels."""
    return {
        "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt": _lines(names),
        "curated/val2017/Coco164kFull_Stuff_Coarse_6.txt": _lines(names[:1]),
        "curated/train2017/Coco164kFull_Stuff_Coarse_7.txt": _lines(["000000000009"]),
    }


def ade2016(count: int) -> Contents:
    """ADEChallengeData2016.zip, with its two lists and a training part."""
    root, table = "ADEChallengeData2016", pictures.ade2016_table()
    made: Contents = {}
    parts = [("validation", name) for name in ADE_IDS[:count]]
    parts += [("training", f"ADE_train_{number:08d}") for number in (1, 2)]
    for number, (part, name) in enumerate(parts):
        shown = picture(20 + number, ADE_SIZES[number % len(ADE_SIZES)])
        made[f"{root}/images/{part}/{name}.jpg"] = jpeg(shown.image)
        made[f"{root}/annotations/{part}/{name}.png"] = png(shown.labels(table, seam=0))
    names = [f"{number}\t0.01\t100\t10\tclass {number}" for number in range(1, 151)]
    made[f"{root}/objectInfo150.txt"] = _lines(["Idx\tRatio\tTrain\tVal\tName", *names])
    made[f"{root}/sceneCategories.txt"] = _lines([f"{name} street" for _, name in parts])
    return made


def ade2021(count: int) -> Contents:
    """ADE20K_2021_17_01.zip: RGB class masks by group and scene, parts, instances, the index."""
    root = "ADE20K_2021_17_01"
    table = pictures.ade2021_table()
    parts = [("validation", name) for name in ADE_IDS[:count]]
    parts += [("training", "ADE_train_00000001")]
    made: Contents = {}
    for number, (part, name) in enumerate(parts):
        shown = picture(40 + number, ADE_FULL_SIZES[number % len(ADE_FULL_SIZES)])
        group, scene = SCENES[number % len(SCENES)]
        stem = f"{root}/images/ADE/{part}/{group}/{scene}/{name}"
        raw = shown.labels(table, seam=0)
        made[f"{stem}.jpg"] = jpeg(shown.image)
        made[f"{stem}_seg.png"] = png(class_colours(raw, shown.fine))
        made[f"{stem}_parts_1.png"] = png(class_colours(raw // 2, shown.fine))
        made[f"{stem}/instance_000_{name}.png"] = png((raw == raw[0, 0]).astype(np.uint8) * 255)
        made[f"{stem}.json"] = json.dumps(
            {"annotation": {"filename": f"{name}.jpg", "scene": ["café", scene], "object": []}},
            ensure_ascii=False,
        ).encode("latin-1")
    made[f"{root}/index_ade20k.pkl"] = b"cbuiltins\nexit\n(S'the index was unpickled'\ntR."
    made[f"{root}/index_ade20k.mat"] = b"not a MATLAB file"
    made[f"{root}/objects.txt"] = b"name\tcounts\n"
    return made


def cityscapes_images(count: int) -> Contents:
    """leftImg8bit_trainvaltest.zip: PNG photographs by city."""
    made = {f"leftImg8bit/{path}_leftImg8bit.png": png(p.image) for path, p in _city(count).items()}
    return made | {"README": b"Cityscapes\n", "license.txt": b"for research\n"}


def cityscapes_masks(count: int) -> Contents:
    """gtFine_trainvaltest.zip: four files for each photograph, of which labelIds is wanted."""
    table = pictures.cityscapes_table()
    made: Contents = {}
    for path, shown in _city(count).items():
        raw, stem = shown.labels(table, seam=0), f"gtFine/{path}_gtFine"
        made[f"{stem}_labelIds.png"] = png(raw)
        made[f"{stem}_instanceIds.png"] = png(raw.astype(np.uint16) * np.uint16(1000))
        made[f"{stem}_color.png"] = png(class_colours(raw.astype(np.uint16), shown.fine))
        made[f"{stem}_polygons.json"] = b'{"imgHeight": 512, "imgWidth": 1024, "objects": []}\n'
    return made | {"README": b"Cityscapes\n", "license.txt": b"for research\n"}


def class_colours(raw: np.ndarray, instance: np.ndarray) -> np.ndarray:
    """(H, W, 3) as ADE20K's full masks are coloured: class in red and green, instance in blue."""
    return np.stack([raw // 256 * 10, raw % 256, instance], axis=-1).astype(np.uint8)


def mat(labels: np.ndarray) -> bytes:
    """A MATLAB 5 file with the key LabelMap; its header, which scipy dates, always the same."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"LabelMap": labels}, do_compression=True)
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Tue Dec  3 00:00:00 2013"
    return header.ljust(116) + file.getvalue()[116:]


@functools.cache
def _context(count: int) -> dict[str, pictures.Picture]:
    sizes = VOC_SIZES[::-1]
    return {name: picture(10 + n, sizes[n]) for n, name in enumerate(CONTEXT_IDS[:count])}


@functools.cache
def _coco(count: int) -> dict[str, pictures.Picture]:
    return {name: picture(30 + n, COCO_SIZES[n]) for n, name in enumerate(COCO_IDS[:count])}


@functools.cache
def _city(count: int) -> dict[str, pictures.Picture]:
    names = [f"val/{name.split('_')[0]}/{name}" for name in CITY_IDS[:count]]
    names.append("train/aachen/aachen_000000_000019")
    return {name: picture(60 + n, (1024, 512)) for n, name in enumerate(names)}


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
