"""Real photographs with their real masks, where somebody has some, as members of the archives."""

from __future__ import annotations

from pathlib import Path

from .contents import Contents

# Where the files of each archive lie below the samples' folder, and under which name they go in
PLACES = {
    "voc": {
        "voc2012/VOCdevkit/VOC2012/JPEGImages": "VOCdevkit/VOC2012/JPEGImages",
        "voc2012/VOCdevkit/VOC2012/SegmentationClassAug": "VOCdevkit/VOC2012/SegmentationClass",
    },
    "context_images": {"pc459_encoding/JPEGImages": "VOCdevkit/VOC2010/JPEGImages"},
    "context_masks": {"pc459_encoding/trainval": "trainval"},
    "coco_images": {"coco_stuff/coco/val2017": "val2017"},
    "coco_masks": {"coco_stuff/coco/stuffthingmaps/val2017": "val2017"},
    "ade2016": {
        f"ade150/ADEChallengeData2016/{kind}/validation": f"ADEChallengeData2016/{kind}/validation"
        for kind in ("images", "annotations")
    },
    "ade2021": {
        f"ade_full/{folder}": folder
        for folder in ("ADE20K_2021_17_01/images/ADE/training/urban/street",)
    },
}


def members(samples: Path | None, archive: str, count: int) -> Contents:
    """The first `count` files of every folder of an archive: name → bytes; {} without samples."""
    made: Contents = {}
    for folder, inside in PLACES[archive].items() if samples else ():
        assert samples is not None
        files = sorted(file for file in (samples / folder).glob("*") if file.is_file())
        if archive != "ade2021":  # three files are one picture there
            files = files[:count]
        made |= {f"{inside}/{file.name}": file.read_bytes() for file in files}
    return made


def ids(made: Contents) -> list[str]:
    """The file stems of members of one archive, sorted, each once."""
    return sorted({Path(name).stem for name in made})
