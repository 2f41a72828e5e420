"""Names of the metrics, in printed order, and of the rules: planning needs them without numpy."""

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
LOST = "lost"  # of runs with distractors beside them: the share of scored pixels that these got
OF_COUNTS = (*METRICS, LOST)  # what metrics.json may have
RULES = ("cliptrase", "mmseg", "detectron2_v06", "detectron2")
# What the ledger of a run's errors says (docs/errors.md): shares of the scored pixels that are
# wrong, which add up to 100 with pAcc; then what is computed as mIoU is, and of logits.
CATEGORIES = ("naming", "missed", "boundary", "object_to_bg", "bg_to_object", "fragments")
LIKE_MIOU = ("boundary_IoU", "true_regions", "true_names")
OF_LOGITS = ("ECE", "AURC", "AUROC")
OF_LEDGER = (*CATEGORIES, *LIKE_MIOU, *OF_LOGITS)
FALLING = (*CATEGORIES, LOST, "ECE", "AURC")  # of which less is better
OF_BACKGROUND = ("object_to_bg", "bg_to_object", "AUROC")  # of benchmarks that score one
