"""Names of the metrics, in printed order, and of the rules: planning needs them without numpy."""

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
RULES = ("cliptrase", "mmseg", "detectron2_v06", "detectron2")
