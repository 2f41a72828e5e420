"""Archives that are damaged, foreign, hostile or not whole, and preparations that are cut short.

Each ends in one message that names the archive or the image, and leaves no prepared dataset.
"""

import errno
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from tests.miniature import edited
from tests.miniature.contents import Contents
from tests.miniature.edited import ARCHIVES, Edit, members, packed, place

from cliptrase.data import prepare, prepared, recipes
from cliptrase.data.prepared import open_prepared
from cliptrase.errors import UserError

COCO, CITY = edited.ids("coco"), edited.ids("cityscapes")
VOC = "VOCdevkit/VOC2012"
ADE = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"


def refused(data: Path, dataset: str, message: str) -> str:
    """The message of a preparation that fails, once nothing is found to be left of it."""
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(dataset, data)
    left = [path.name for path in (data / "prepared").iterdir() if path.name[0] != "."]
    assert not left and not list((data / "prepared").glob(f".{dataset}.[0-9]*"))
    text = str(error.value)
    assert "\n" not in text and len(text) < 900, text
    return text


def without(pattern: str) -> Edit:
    """Leave out the one member whose name the pattern finds."""

    def edit(held: Contents) -> Contents:
        (gone,) = (name for name in held if re.search(pattern, name))
        return {name: content for name, content in held.items() if name != gone}

    return edit


def put(name: str, content: bytes | Callable[[Contents], bytes]) -> Edit:
    """Add a member, or put it in the place of another."""
    return lambda held: held | {name: content(held) if callable(content) else content}


def copy(source: str, target: str) -> Edit:
    return put(target, lambda held: held[source])


def a_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def mask_of(value: int, like: str, dtype: type = np.uint8) -> Callable[[Contents], bytes]:
    """A mask of the size of another, wholly of one value."""

    def made(held: Contents) -> bytes:
        width, height = Image.open(io.BytesIO(held[like])).size
        return a_png(np.full((height, width), value, dtype))

    return made


def a_mat(**content: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    return file.getvalue()


MEMBERS = [  # dataset, edits, message
    ("coco", {"images": without(COCO[1])}, f"coco: {COCO[1]} without image"),
    ("coco", {"labels": without(COCO[1])}, f"coco: {COCO[1]} without mask"),
    (
        "coco",
        {"images": copy(f"val2017/{COCO[0]}.jpg", "val2017/000000999999.jpg")},
        "000000999999 without mask",
    ),
    (
        "coco",
        {
            "images": copy(f"val2017/{COCO[0]}.jpg", "val2017/000000999999.jpg"),
            "labels": copy(f"val2017/{COCO[0]}.png", "val2017/000000999999.png"),
        },
        "coco: 4 images, where its source has 3 .*first and last: 000000000285, 000000999999",
    ),
    (
        "coco",
        {"images": copy(f"val2017/{COCO[0]}.jpg", f"again/val2017/{COCO[0]}.jpg")},
        f"{COCO[0]}.*: two of one id",
    ),
    ("voc2012", {"images": without(r"JPEGImages/2007_000042")}, "2007_000042 without image"),
    ("voc2012", {"images": without(r"SegmentationClass/2007_000042")}, "2007_000042 without mask"),
    ("voc2012", {"images": without(r"Segmentation/val\.txt")}, "0 lists of images"),
    (
        "voc2012",
        {"images": put(f"{VOC}/ImageSets/Segmentation/val.txt", b"2007_000033\n2007_000033\n")},
        "lists an image twice",
    ),
    ("pcontext", {"images": without("2008_000003")}, "2008_000003 without image"),
    ("pcontext", {"labels": without("2008_000003")}, "2008_000003 without mask"),
    ("ade2016", {"images": without(r"images/validation/.*3\.jpg")}, "ADE_val_00000003 without im"),
    ("ade2021", {"images": without(r"ADE_val_00000003_seg")}, "ADE_val_00000003 without mask"),
    ("cityscapes", {"labels": without(rf"{CITY[1]}_gtFine_labelIds")}, f"{CITY[1]} without mask"),
    # values
    (
        "coco",
        {"labels": put(f"val2017/{COCO[1]}.png", mask_of(200, f"val2017/{COCO[1]}.png"))},
        f"{COCO[1]}: its mask holds 200, a value that no mask",
    ),
    (
        "cityscapes",
        {
            "labels": put(
                f"gtFine/val/frankfurt/{CITY[0]}_gtFine_labelIds.png",
                mask_of(26001, f"gtFine/val/frankfurt/{CITY[0]}_gtFine_labelIds.png", np.uint16),
            )
        },
        f"{CITY[0]}: its mask holds 26001",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((353, 353), 460)))},
        "2008_000003: its mask holds 460, a value that no mask",
    ),
    # sizes and kinds of pictures
    (
        "ade2016",
        {"images": put(f"{ADE}/annotations/validation/ADE_val_00000003.png", a_png(np.eye(9) > 0))},
        r"ADE_val_00000003\.png: a mask of 9 x 9 pixels for an image of 512 x 683",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002_seg.png",
                a_png(np.zeros((9, 9, 3), np.uint8)),
            )
        },
        r"ADE_val_00000002_seg\.png: a mask of 9 x 9 pixels for an image of 1024 x 768",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002_seg.png",
                a_png(np.zeros((768, 1024), np.uint8)),
            )
        },
        r"ADE_val_00000002_seg\.png: a PNG of mode L, where masks are RGB PNGs",
    ),
    (
        "voc2012",
        {
            "images": put(
                f"{VOC}/SegmentationClass/2007_000042.png",
                lambda held: held[f"{VOC}/JPEGImages/2007_000042.jpg"],
            )
        },
        r"SegmentationClass/2007_000042\.png: a JPEG file does not keep label values",
    ),
    (
        "voc2012",
        {
            "images": put(
                f"{VOC}/JPEGImages/2007_000042.jpg",
                lambda held: held[f"{VOC}/SegmentationClass/2007_000042.png"],
            )
        },
        r"JPEGImages/2007_000042\.jpg: a PNG of mode P is no photograph; are images and masks swap",
    ),
    (
        "coco",
        {"images": put(f"val2017/{COCO[1]}.jpg", b"<html>not found</html>")},
        rf"{COCO[1]}\.jpg: not an image that can be read; give JPEG",
    ),
    (
        "coco",
        {"images": put(f"val2017/{COCO[1]}.jpg", lambda h: h[f"val2017/{COCO[1]}.jpg"][:5000])},
        rf"{COCO[1]}: truncated or damaged",
    ),
    (
        "ade2021",
        {
            "images": put(
                f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002.jpg",
                lambda h: h[f"{FULL}/images/ADE/validation/urban/street/ADE_val_00000002.jpg"][
                    :5000
                ],
            )
        },
        r"ADE_val_00000002\.jpg: truncated or damaged",
    ),
    # MATLAB files
    ("pcontext", {"labels": put("trainval/2008_000003.mat", b"MATLAB 5.0")}, "no label map"),
    ("pcontext", {"labels": put("trainval/2008_000003.mat", a_mat(Other=1))}, "LabelMap is absent"),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((5, 5), 1.5)))},
        r"2008_000003\.mat: .*other things than whole numbers",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap=np.full((5, 5), -1)))},
        r"2008_000003\.mat: .*other things than whole numbers",
    ),
    (
        "pcontext",
        {"labels": put("trainval/2008_000003.mat", a_mat(LabelMap="text"))},
        r"2008_000003\.mat: no label map",
    ),
    # names that lead out of the folder, in any archive
    *(
        (dataset, {"images": put("../../out.jpg", b"")}, r"'\.\./\.\./out\.jpg': a name that leads")
        for dataset in ("coco", "voc2012")
    ),
    ("pcontext", {"labels": put("/etc/out.mat", b"")}, r"'/etc/out\.mat': a name that leads"),
]


@pytest.mark.parametrize(("dataset", "edits", "message"), MEMBERS)
def test_a_member_that_is_not_as_it_should_be(
    dataset: str, edits: dict[str, Edit], message: str, tmp_path: Path
) -> None:
    text = refused(place(tmp_path, dataset, edits), dataset, message)
    assert re.search(r"again|Put |put |save|give|delete|shrink", text), f"no cure: {text}"
    assert str(tmp_path / "prepared") not in text, "it names a folder that is gone"


@pytest.mark.parametrize("dataset", ["coco", "cityscapes"])
def test_swapped_archives(dataset: str, tmp_path: Path) -> None:
    """Each under the other's name."""
    data = place(tmp_path, dataset)
    names = [data / "raw" / ARCHIVES[dataset][role][0] for role in ("images", "labels")]
    contents = [path.read_bytes() for path in names]
    for path, content in zip(names, reversed(contents), strict=True):
        path.write_bytes(content)
    text = refused(data, dataset, "holds no photographs .*is it another archive under this name")
    assert text.startswith(f"{names[0]}: ")


def test_folders_that_are_swapped_inside_an_archive(tmp_path: Path) -> None:
    def swapped(held: Contents) -> Contents:
        other = {"images": "annotations", "annotations": "images"}
        suffix = {".jpg": ".png", ".png": ".jpg"}
        moved = {}
        for name, content in held.items():
            if name.endswith((".jpg", ".png")):
                root, kind, rest = name.split("/", 2)
                name = f"{root}/{other[kind]}/{rest[:-4]}{suffix[rest[-4:]]}"
            moved[name] = content
        return moved

    data = place(tmp_path, "ade2016", {"images": swapped})
    refused(data, "ade2016", r"ADE_val_00000002\.jpg: a PNG of mode L is no photograph; .*swapped")


@pytest.mark.parametrize("dataset", recipes.ARCHIVED)
def test_archives_that_are_cut_off(dataset: str, tmp_path: Path) -> None:
    """At several places, without any checksum that would tell before."""
    for role, (name, _) in ARCHIVES[dataset].items():
        whole = packed(name, members(name))
        if name.endswith(".tar"):
            whole = whole.rstrip(b"\0")
        for part in (0.5, 0.98):
            content = whole[: int(len(whole) * part)]
            data = place(tmp_path / f"{role}{part}", dataset, {role: lambda _, c=content: c})
            text = refused(
                data, dataset, r"truncated or damaged|its end is missing|does not begin as"
            )
            assert f"{data}/raw/{name}" in text and re.search("etch it again|Get it again", text)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>Please log in</html>" * 40])
def test_something_else_in_the_place_of_an_archive(content: bytes, tmp_path: Path) -> None:
    data = place(tmp_path, "cityscapes", {"images": lambda _: content})
    assert "leftImg8bit_trainvaltest.zip" in refused(
        data, "cityscapes", "does not begin as a .zip|an HTML page"
    )


def linked(held: Contents) -> bytes:
    """The tar, its second mask a link to the first."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in held.items():
            entry = tarfile.TarInfo(name)
            if name.endswith("SegmentationClass/2007_000042.png"):
                entry.type, entry.linkname = tarfile.SYMTYPE, "2007_000033.png"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def bomb(held: Contents) -> bytes:
    """The zip, one of its masks 20 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, bytes(20_000_000) if f"{COCO[1]}.png" in name else content)
    return file.getvalue()


def test_a_link_and_a_bomb(tmp_path: Path) -> None:
    data = place(tmp_path / "voc", "voc2012", {"images": linked})
    refused(data, "voc2012", r"2007_000042\.png: a link or another thing")
    data = place(tmp_path / "coco", "coco", {"labels": bomb})
    refused(data, "coco", rf"{COCO[1]}\.png: .*as large as compressed, a bomb")


def test_a_picture_that_is_a_bomb(tmp_path: Path) -> None:
    """A hundred bytes of PNG that say 20,000 x 20,000 pixels are not decoded."""
    small = a_png(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    content = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    data = place(tmp_path, "coco", {"labels": put(f"val2017/{COCO[1]}.png", content)})
    refused(data, "coco", rf"{COCO[1]}\.png: too large to be decoded")


KILLED = """
import os, signal, sys
from cliptrase.data import prepare, prepared
dataset, data, when = sys.argv[1], sys.argv[2], int(sys.argv[3])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if when < 3:  # after so many records
    def cut(records):
        for number, record in enumerate(records):
            die() if number == when else None
            yield record
    write = prepared.write_arrow
    prepared.write_arrow = lambda path, records: write(path, cut(records))
elif when == 3:
    prepared.self_check = die
else:  # whole, but not in its place
    prepare._replace = die
prepare.prepare(dataset, data)
"""


@pytest.mark.parametrize(("dataset", "when"), [("pcontext", 2), ("ade2021", 4)])
def test_killed_with_9_the_rerun_gives_the_same_bytes(
    dataset: str, when: int, tmp_path: Path
) -> None:
    whole = prepare.prepare(dataset, place(tmp_path / "whole", dataset))
    data = place(tmp_path / "killed", dataset)
    command = [sys.executable, "-c", KILLED, dataset, str(data), str(when)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not prepared; run `cliptrase prepare"):
        open_prepared(dataset, data)
    again = prepare.prepare(dataset, data)
    for name in ("samples.arrow", "selfcheck.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert not list((data / "prepared").glob(f".{dataset}.[0-9]*")), "what was left is cleared away"


@pytest.mark.parametrize("place_of_fault", ["arrow", "spool"])
def test_no_space_left(
    place_of_fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place(tmp_path, "pcontext")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if place_of_fault == "arrow":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("cliptrase.data.archives.pcontext.tempfile.TemporaryFile", full)
    with pytest.raises(UserError, match="no space left on the disk; free some"):
        prepare.prepare("pcontext", data)
    monkeypatch.undo()
    assert len(prepared.PreparedSamples(prepare.prepare("pcontext", data))) == edited.SCENES


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    data = place(tmp_path, "cityscapes")
    command = [sys.executable, "-m", "cliptrase.data.prepare", "cityscapes", "--data", str(data)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [f"{data}/prepared/cityscapes: 3 samples\n"] * 2
    assert [sample.id for sample in open_prepared("cityscapes", data)] == CITY
