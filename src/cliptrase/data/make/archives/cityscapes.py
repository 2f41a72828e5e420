"""Cityscapes val, fine masks: labelIds 0..33, the first seven of them no part of the scene.

Images are named frankfurt_000000_000294 and so on.
"""

from cliptrase.data.make.archives.common import reader

records = reader(
    (
        r"(?:[^/]+/)?leftImg8bit/val/[^/]+/([^/]+)_leftImg8bit\.png",
        "photographs leftImg8bit/val/*/*_leftImg8bit.png",
    ),
    (
        r"(?:[^/]+/)?gtFine/val/[^/]+/([^/]+)_gtFine_labelIds\.png",
        "masks gtFine/val/*/*_gtFine_labelIds.png",
    ),
)
