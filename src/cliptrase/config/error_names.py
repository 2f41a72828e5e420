"""Names of what the ledger of a run's errors says (docs/errors.md): planning needs them without
numpy, and the ledger's columns have the order of the categories."""

# Shares of the scored pixels that are wrong; they add up to 100 with pAcc.
CATEGORIES = ("naming", "missed", "boundary", "object_to_bg", "bg_to_object", "fragments")
LIKE_MIOU = ("boundary_IoU", "true_regions", "true_names")  # computed as mIoU is
OF_LOGITS = ("ECE", "AURC", "AUROC")
OF_LEDGER = (*CATEGORIES, *LIKE_MIOU, *OF_LOGITS)
OF_BACKGROUND = ("object_to_bg", "bg_to_object", "AUROC")  # of benchmarks that score one
