"""COCO train2017 with COCO-Stuff's masks: things 0..90, stuff 91..181, 255 unlabelled."""

from cliptrase.data.make.archives import common

records = common.reader(
    (r"(?:[^/]+/)?train2017/(\d{12})\.jpg", "photographs train2017/*.jpg"),
    (r"(?:[^/]+/)?train2017/(\d{12})\.png", "masks train2017/*.png"),
)
