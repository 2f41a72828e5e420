"""The metrics, in the order in which they are printed; planning needs their names without numpy."""

METRICS = ("pAcc", "mAcc", "fwIoU", "mIoU")
