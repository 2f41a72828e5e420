"""Names of the metrics, in printed order, and of the rules: planning needs them without numpy."""

from cliptrase.config.error_names import CATEGORIES

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
LOST = "lost"  # of runs with distractors beside them: the share of scored pixels that these got
OF_COUNTS = (*METRICS, LOST)  # what metrics.json may have
RULES = ("cliptrase", "mmseg", "detectron2_v06", "detectron2")
FALLING = (*CATEGORIES, LOST, "ECE", "AURC")  # of which less is better
