"""ADE20K of the 2016 challenge, validation: 0 other, 1..150 classes."""

from cliptrase.data.make.archives.common import reader

records = reader(
    (r"(?:[^/]+/)?images/validation/([^/]+)\.jpg", "photographs images/validation/*.jpg"),
    (r"(?:[^/]+/)?annotations/validation/([^/]+)\.png", "masks annotations/validation/*.png"),
)
