"""Names of the metrics, in printed order, and of the rules: planning needs them without numpy."""

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
LOST = "lost"  # of runs with distractors beside them: the share of scored pixels that these got
RULES = ("cliptrase", "mmseg", "detectron2_v06", "detectron2")
