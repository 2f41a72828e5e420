"""Miniatures of every source, in the true container and layout, and the sources.yaml of them.

    python -m tests.miniature.write FOLDER [--samples DIR] [--scenes 6] [--photographs 3]

Deterministic: the same bytes on every run. FOLDER/sources.yaml has what conf/sources.yaml has, with
the miniatures' own sizes, sums and counts, and addresses that nobody serves: give a mirror.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import contents, samples
from .packing import tarred, zipped

ROOT = Path(__file__).resolve().parents[2]
# The raw values that a mask may hold are the real ones; other figures are of the real images.
KEPT = ("label_values",)


@dataclass
class Miniatures:
    """archives: file name → bytes. ids: dataset → the ids of its images, sorted."""

    archives: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)


def miniatures(scenes: int = 6, photographs: Path | None = None, real: int = 3) -> Miniatures:
    """All archives, with `scenes` (1..6) drawn pictures and up to `real` real ones of a source."""
    made = Miniatures()
    found = {name: samples.members(photographs, name, real) for name in samples.PLACES}

    voc = contents.voc2012(scenes) | found["voc"]
    made.ids["voc2012"] = sorted({*contents.VOC_IDS[:scenes], *samples.ids(found["voc"])})
    voc["VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"] = _lines(made.ids["voc2012"])
    made.archives["VOCtrainval_11-May-2012.tar"] = tarred(voc)

    made.ids["pcontext"] = sorted(
        {*contents.CONTEXT_IDS[:scenes], *samples.ids(found["context_masks"])}
    )
    made.archives["VOCtrainval_03-May-2010.tar"] = tarred(
        contents.context_images(scenes) | found["context_images"]
    )
    made.archives["trainval.tar.gz"] = tarred(
        contents.context_masks(scenes) | found["context_masks"], compressed=True
    )

    made.ids["coco"] = sorted({*contents.COCO_IDS[:scenes], *samples.ids(found["coco_masks"])})
    made.archives["val2017.zip"] = zipped(
        contents.coco_images(scenes) | found["coco_images"], stored=True
    )
    made.ids["coco_train"] = list(contents.COCO_TRAIN_IDS)
    made.archives["train2017.zip"] = zipped(contents.coco_training_images(), stored=True)
    made.archives["stuffthingmaps_trainval2017.zip"] = zipped(
        contents.coco_masks(scenes) | found["coco_masks"]
    )
    made.archives["COCOStuff164kCurated.tar.gz"] = tarred(
        contents.coco_curated(made.ids["coco"][::2]), compressed=True
    )

    made.ids["ade2016"] = sorted({*contents.ADE_IDS[:scenes], *samples.ids(found["ade2016"])})
    made.archives["ADEChallengeData2016.zip"] = zipped(contents.ade2016(scenes) | found["ade2016"])
    made.ids["ade2021"] = sorted(contents.ADE_IDS[:scenes])
    made.archives["ADE20K_2021_17_01.zip"] = zipped(contents.ade2021(scenes) | found["ade2021"])

    made.ids["cityscapes"] = sorted(contents.CITY_IDS[:scenes])
    made.archives["leftImg8bit_trainvaltest.zip"] = zipped(
        contents.cityscapes_images(scenes), stored=True
    )
    made.archives["gtFine_trainvaltest.zip"] = zipped(contents.cityscapes_masks(scenes))
    return made


def sources(made: Miniatures, real: dict[str, Any]) -> dict[str, Any]:
    """conf/sources.yaml, read, as it is for the miniatures."""
    archives = {}
    for name, entry in real["archives"].items():
        content = made.archives[name]
        archives[name] = entry | {
            "urls": [f"https://miniature.invalid/{name}"] if entry["urls"] else [],
            "bytes": len(content),
            "checksum": {"sha256": hashlib.sha256(content).hexdigest()},
        }
    datasets = {}
    for name, entry in real["datasets"].items():
        ids = made.ids[name]
        expected = {key: entry["expected"][key] for key in KEPT if key in entry["expected"]}
        if "ids" in entry["expected"]:
            expected["ids"] = ids
        else:
            expected["ids_sha256"] = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        datasets[name] = entry | {"count": len(ids), "expected": expected}
    return {"archives": archives, "datasets": datasets}


def write(folder: Path, made: Miniatures) -> None:
    """Every archive and sources.yaml into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(ROOT / "conf" / "sources.yaml", encoding="utf-8") as file:
        real = yaml.safe_load(file)
    for name, content in made.archives.items():
        (folder / name).write_bytes(content)
    text = yaml.safe_dump(sources(made, real), sort_keys=False, allow_unicode=True)
    (folder / "sources.yaml").write_text(text, encoding="utf-8")


def place(folder: Path, data: Path) -> None:
    """Put the list of sources into a data folder; where it is the same, it stays as it is."""
    data.mkdir(parents=True, exist_ok=True)
    file, content = data / "sources.yaml", (folder / "sources.yaml").read_bytes()
    if not file.is_file() or file.read_bytes() != content:
        file.write_bytes(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write miniatures of every source.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=Path, help="folder of real photographs and masks")
    parser.add_argument("--scenes", type=int, default=6, choices=range(1, 7))
    parser.add_argument("--photographs", type=int, default=3, help="real ones of a source, at most")
    options = parser.parse_args(arguments)
    found = options.samples if options.samples and options.samples.is_dir() else None
    write(options.folder, miniatures(options.scenes, found, options.photographs))
    sys.stdout.write(f"{options.folder}: miniatures of every source\n")


def _lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


if __name__ == "__main__":
    main()
