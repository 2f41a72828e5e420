"""A data folder with one dataset's miniature archives in <data>/raw, their members edited first.

For tests of what preparing does with them.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cliptrase.data.make import prepare
from cliptrase.errors import UserError

from . import contents
from .contents import Contents
from .packing import tarred, zipped

ROOT = Path(__file__).resolve().parents[2]
SCENES = 3
Edit = Callable[[Contents], Contents | bytes]  # bytes: in the place of the whole archive
# dataset → role → archive and what is in it
ARCHIVES: dict[str, dict[str, tuple[str, Callable[[int], Contents]]]] = {
    "coco": {
        "images": ("val2017.zip", contents.coco_images),
        "labels": ("stuffthingmaps_trainval2017.zip", contents.coco_masks),
    },
    "voc2012": dict.fromkeys(
        ("images", "labels"), ("VOCtrainval_11-May-2012.tar", contents.voc2012)
    ),
    "pcontext": {
        "images": ("VOCtrainval_03-May-2010.tar", contents.context_images),
        "labels": ("trainval.tar.gz", contents.context_masks),
    },
    "ade2016": dict.fromkeys(("images", "labels"), ("ADEChallengeData2016.zip", contents.ade2016)),
    "ade2021": dict.fromkeys(("images", "labels"), ("ADE20K_2021_17_01.zip", contents.ade2021)),
    "cityscapes": {
        "images": ("leftImg8bit_trainvaltest.zip", contents.cityscapes_images),
        "labels": ("gtFine_trainvaltest.zip", contents.cityscapes_masks),
    },
}
CURATED = "COCOStuff164kCurated.tar.gz"
IDS = {
    "coco": contents.COCO_IDS,
    "voc2012": contents.VOC_IDS,
    "pcontext": contents.CONTEXT_IDS,
    "ade2016": contents.ADE_IDS,
    "ade2021": contents.ADE_IDS,
    "cityscapes": contents.CITY_IDS,
}


@functools.cache
def members(archive: str) -> Contents:
    """What is in an archive before anybody edits it."""
    if archive == CURATED:
        return contents.coco_curated(contents.COCO_IDS[:SCENES:2])
    made = {name: make for roles in ARCHIVES.values() for name, make in roles.values()}
    return made[archive](SCENES)


def ids(dataset: str) -> list[str]:
    """The ids of a dataset, sorted."""
    return sorted(IDS[dataset][:SCENES])


def packed(archive: str, held: Contents) -> bytes:
    """An archive of the kind that its name says."""
    if archive.endswith(".zip"):
        return zipped(held)
    return tarred(held, compressed=archive.endswith(".gz"))


def place(
    data: Path,
    dataset: str,
    edits: Mapping[str, Edit] | None = None,
    expected: Mapping[str, Any] | None = None,
    **source: Any,
) -> Path:
    """Write the archives of a dataset, and a sources.yaml of them; returns the data folder.

    edits: role → edit. expected, source: for the dataset's entry in sources.yaml.
    """
    roles = {role: name for role, (name, _) in ARCHIVES[dataset].items()}
    optional = {"curated": CURATED} if "curated" in (edits or {}) else {}
    kept: dict[str, Any] = {"ids": ids(dataset)} if dataset == "pcontext" else {}
    kept["label_values"] = _shipped()[dataset]["expected"]["label_values"]
    entry = {"archives": roles, "optional": optional, "count": SCENES}
    entry |= {"expected": kept | dict(expected or {})} | source
    (data / "raw").mkdir(parents=True, exist_ok=True)
    listed = {}
    for name in {*roles.values(), *optional.values()}:
        held: Contents | bytes = dict(members(name))
        for role, edit in (edits or {}).items():
            if (roles | optional).get(role) == name and isinstance(held, dict):
                held = edit(held)
        content = held if isinstance(held, bytes) else packed(name, held)
        (data / "raw" / name).write_bytes(content)
        fields = {"bytes": None, "checksum": None, "licence": "none", "gated": None}
        listed[name] = {"role": "a test's", "urls": []} | fields
    text = yaml.safe_dump({"archives": listed, "datasets": {dataset: entry}})
    (data / "sources.yaml").write_text(text, encoding="utf-8")
    return data


@functools.cache
def _shipped() -> dict[str, Any]:
    """The datasets of conf/sources.yaml."""
    return yaml.safe_load((ROOT / "conf/sources.yaml").read_text(encoding="utf-8"))["datasets"]


def put(name: str, content: bytes | Callable[[Contents], bytes]) -> Edit:
    """Add a member, or put it in the place of another."""
    return lambda held: held | {name: content(held) if callable(content) else content}


def a_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def refused(data: Path, dataset: str, message: str) -> str:
    """The message of a preparation that fails, once nothing is found to be left of it."""
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(dataset, data)
    left = [path.name for path in (data / "prepared").iterdir() if path.name[0] != "."]
    assert not left and not list((data / "prepared").glob(f".{dataset}.[0-9]*"))
    text = str(error.value)
    assert "\n" not in text and len(text) < 900, text
    return text
