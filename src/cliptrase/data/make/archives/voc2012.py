"""PASCAL VOC 2012 val: palette masks whose indices are 0 background, 1..20 classes, 255 void."""

from cliptrase.data.make.archives.common import reader

ROOT = r"(?:[^/]+/)?(?:VOCdevkit/)?VOC2012"

records = reader(
    (rf"{ROOT}/JPEGImages/([^/]+)\.jpg", "photographs VOCdevkit/VOC2012/JPEGImages/*.jpg"),
    (rf"{ROOT}/SegmentationClass/([^/]+)\.png", "masks VOCdevkit/VOC2012/SegmentationClass/*.png"),
    listing=rf"{ROOT}/ImageSets/Segmentation/val\.txt",
)
