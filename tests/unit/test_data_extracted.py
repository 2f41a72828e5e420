"""Datasets whose archives are extracted already: the same bytes; faults are told with the cure."""

import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.miniature import edited
from tests.miniature.edited import CURATED, members, place

from cliptrase.data.fetch.sources import read_sources
from cliptrase.data.make import prepare, recipes
from cliptrase.data.read.prepared import open_prepared, read_selfcheck, read_subset, verify_prepared
from cliptrase.errors import UserError
from cliptrase.pipeline import data as pipeline_data

every_dataset = pytest.mark.parametrize("dataset", edited.ARCHIVES)


def extracted(data: Path, folder: Path) -> Path:
    """Extract the archives of a data folder as a user does, and delete them."""
    for path in sorted((data / "raw").iterdir()):
        if path.name.endswith((".zip", ".tar", ".tar.gz")):
            packed = zipfile.ZipFile if path.suffix == ".zip" else tarfile.open
            with packed(path) as archive:
                archive.extractall(folder)
        path.unlink()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def refused(dataset: str, data: Path, folder: Path, message: str) -> str:
    """The message of a preparation that fails; the folder is as it was, and nothing was made."""
    before = files(folder)
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(dataset, data, folders=[folder])
    assert files(folder) == before and not [*(data / "prepared").glob(f"{dataset}*")]
    text = str(error.value)
    assert text.startswith(f"{dataset}") and "\n" not in text and len(text) < 900, text
    assert "fetch it again" not in text and not re.search(r"delete .*extracted", text), text
    assert f"again and run `cliptrase prepare {dataset} --from {folder} --data {data}` ag" in text
    return text


@every_dataset
def test_the_same_bytes_as_from_the_archives(dataset: str, tmp_path: Path) -> None:
    edits = {"curated": dict} if dataset == "coco" else {}
    one, two = (place(tmp_path / name, dataset, edits) for name in ("archives", "other"))
    whole = files(prepare.prepare(dataset, one))
    folder = extracted(two, tmp_path / "extracted")
    (folder / "__MACOSX").mkdir()
    for name in (".DS_Store", "__MACOSX/._2007_000042.jpg", "Thumbs.db"):
        (folder / name).write_bytes(b"of no use")
    before = files(folder)
    made = files(prepare.prepare(dataset, two, folders=[folder]))
    check, other = (json.loads(each.pop("selfcheck.json")) for each in (whole, made))
    assert made == whole
    assert other["archives"] == dict.fromkeys(check["archives"]), "no archive was seen"
    assert other == check | {key: other[key] for key in ("archives", "sha256")}
    assert files(folder) == before and not list((two / "raw").iterdir()), "nothing is fetched"
    assert verify_prepared(dataset, two)["count"] == edited.SCENES
    if dataset == "coco":
        assert read_subset("coco", "coco27", two) == set(edited.ids("coco")[::2])


@pytest.mark.parametrize(
    ("dataset", "given"),
    [
        ("voc2012", [""]),
        ("voc2012", ["VOCdevkit"]),
        ("voc2012", ["VOCdevkit/VOC2012"]),
        ("voc2012", ["VOCdevkit", "VOCdevkit/VOC2012"]),
        ("pcontext", ["VOCdevkit/VOC2010", "trainval"]),
        ("ade2016", ["ADEChallengeData2016"]),
        ("ade2016", ["ADEChallengeData2016/images", "ADEChallengeData2016/annotations"]),
        ("ade2021", ["ADE20K_2021_17_01/images/ADE/validation"]),
        ("cityscapes", ["leftImg8bit", "gtFine"]),
        ("cityscapes", ["leftImg8bit/val", "gtFine/val"]),
        ("coco", [".."]),
    ],
)
def test_a_folder_at_another_level_does_too(
    dataset: str, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place(tmp_path / "data", dataset)
    folder = extracted(data, tmp_path / "deep/inside/extracted")
    monkeypatch.chdir(folder.parent)
    options = [word for name in given for word in ("--from", str(Path("extracted", name)))]
    prepare.main([dataset, *options, "--data", str(data)])
    assert [sample.id for sample in open_prepared(dataset, data)] == edited.ids(dataset)


def moved(folder: Path, moves: dict[str, str]) -> Path:
    for source, target in moves.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / source).rename(folder / target)
    return folder


def test_folders_as_other_tools_lay_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO-Stuff's own layout, with links to where the pictures really are, one of them a circle;
    VOC without VOCdevkit above it."""
    data = place(tmp_path / "coco", "coco")
    folder = tmp_path / "coco_stuff164k"
    (folder / "annotations").mkdir(parents=True)
    for name, content in members("stuffthingmaps_trainval2017.zip").items():
        path = folder / "annotations" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.with_name(f"{path.stem}_labelTrainIds.png").write_bytes(content)
    elsewhere = tmp_path / "disk/0"
    (elsewhere / "val2017").mkdir(parents=True)
    for name, content in members("val2017.zip").items():
        (elsewhere / name).write_bytes(content)
    (folder / "images").mkdir()
    (folder / "images/val2017").symlink_to(elsewhere / "val2017")
    (folder / "coco_stuff164k").symlink_to(folder)
    (elsewhere / "val2017/up").symlink_to(tmp_path)
    extracted(data, tmp_path / "unused")
    prepare.prepare("coco", data, folders=[folder])
    assert [sample.id for sample in open_prepared("coco", data)] == edited.ids("coco")

    data = place(tmp_path / "voc", "voc2012")
    folder = moved(extracted(data, tmp_path / "sets"), {"VOCdevkit/VOC2012": "VOC2012"})
    monkeypatch.setenv("HOME", str(folder.parent))
    prepare.prepare("voc2012", data, folders="~/sets")
    assert len(open_prepared("voc2012", data)) == edited.SCENES


def test_what_is_missing_is_named_by_its_first_names(tmp_path: Path) -> None:
    data = place(tmp_path / "data", "ade2016", expected={"ids": edited.ids("ade2016")})
    folder = extracted(data, tmp_path / "extracted")
    masks = folder / "ADEChallengeData2016/annotations/validation"
    for path in sorted(masks.iterdir())[1:]:
        path.unlink()
    refused("ade2016", data, folder, "ade2016: ADE_val_00000003, ADE_val_00000004 without mask; ")
    for path in masks.parent.with_name("images").glob("validation/*[34].jpg"):
        path.unlink()
    refused("ade2016", data, folder, "ADE_val_00000003, ADE_val_00000004 are missing; the files")
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        some = folder / f"ADEChallengeData2016/{kind}/validation"
        for number in range(10, 15):
            copy = some / f"ADE_val_{number:08d}.{suffix}"
            copy.write_bytes((some / f"ADE_val_00000002.{suffix}").read_bytes())
    extra = "ADE_val_00000010, ADE_val_00000011, ADE_val_00000012 and 2 more are not of this da"
    refused("ade2016", data, folder, extra)


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    data = place(tmp_path / "data", "voc2012")
    folder = extracted(data, tmp_path / "extracted")
    voc = moved(folder, {"VOCdevkit/VOC2012": "pascal"}) / "pascal"
    text = refused("voc2012", data, folder, r"holds no photographs VOCdevkit/VOC2012/JPEGImages/\*")
    assert "give the folder that the archive was extracted to" in text
    voc = moved(folder, {"pascal": "VOC2012"}) / "VOC2012"
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    refused("voc2012", data, folder, r"0 lists of images \(VOC2012/ImageSets/Seg")
    refused("voc2012", data, voc / "JPEGImages", r"no masks VOC.*/SegmentationClass/\*\.png")
    (tmp_path / "nothing").mkdir()
    refused("voc2012", data, tmp_path / "nothing", "it begins with nothing")


def test_two_copies_are_not_guessed_between(tmp_path: Path) -> None:
    data = place(tmp_path / "data", "cityscapes")
    folder = extracted(data, tmp_path / "extracted")
    name = "val/lindau/lindau_000000_000019_leftImg8bit.png"
    copy = folder / "copy/leftImg8bit" / name
    copy.parent.mkdir(parents=True)
    copy.write_bytes((folder / "leftImg8bit" / name).read_bytes())
    text = refused(
        "cityscapes", data, folder, "both have the id .*; give the folder .* with one copy"
    )
    assert str(copy) in text and f"{folder}/leftImg8bit/{name}" in text


def without_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_lost_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


def large(path: Path) -> None:
    os.truncate(path, 65 * 2**20)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_end, "2007_000042: truncated or damaged"),
        (a_lost_link, r"/2007_000042\.jpg: cannot be read \(No such file"),
        (a_pipe, r"/2007_000042\.jpg: a link or another thing that is no file"),
        (large, r"/2007_000042\.jpg: 68157440 bytes, more than any picture has"),
    ],
)
def test_a_file_that_is_none(fault, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = place(tmp_path / "data", "voc2012")
    folder = extracted(data, tmp_path / "extracted")
    fault(folder / "VOCdevkit/VOC2012/JPEGImages/2007_000042.jpg")
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare("voc2012", data, folders=[folder])
    assert "if these files are at fault, extract VOCtrainval_11-May-2012.tar again" in str(
        error.value
    )
    assert not list((data / "prepared").glob("voc*"))


def test_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = place(tmp_path / "data", "voc2012")
    archive = data / "raw/VOCtrainval_11-May-2012.tar"
    for dataset, given, message in (
        ("voc2012", tmp_path / "nowhere", "nowhere: there is no such folder; give one that"),
        ("voc2012", archive, r"2012\.tar: is no folder"),
        ("shapes", tmp_path, "shapes is drawn, not made from archives: leave `--from` out"),
        ("voc2013", tmp_path, "unknown dataset 'voc2013'; did you mean 'voc2012'"),
    ):
        with pytest.raises(SystemExit) as ended:
            prepare.main([dataset, "--from", str(given), "--data", str(data)])
        said = capsys.readouterr().err
        assert ended.value.code == 1 and said.startswith("error: ") and said.count("\n") == 1
        assert re.search(message, said), said
    assert not list((data / "prepared").glob("*") if (data / "prepared").exists() else [])


def test_prepared_from_a_folder_it_is_taken_as_it_is(tmp_path: Path) -> None:
    """Whatever becomes of the folder, and also once the archives come; `--force` makes it again."""
    data = place(tmp_path / "data", "coco")
    raw = {path.name: path.read_bytes() for path in (data / "raw").iterdir()}
    folder = extracted(data, tmp_path / "extracted")
    arrow = prepare.prepare("coco", data, folders=[folder]) / "samples.arrow"
    made = arrow.stat().st_mtime_ns
    folder.rename(tmp_path / "away")
    prepare.prepare("coco", data)
    assert pipeline_data.receipts("coco", str(data)) == [], "Snakemake fetches nothing for it"
    for name, content in raw.items():
        (data / "raw" / name).write_bytes(content)
    prepare.prepare("coco", data)
    assert arrow.stat().st_mtime_ns == made
    prepare.prepare("coco", data, force=True)
    assert arrow.stat().st_mtime_ns != made and None not in (
        (read_selfcheck(arrow.parent) or {})["archives"].values()
    )
    assert pipeline_data.receipts("coco", str(data)) == [
        f"{data}/raw/{archive.name}.json"
        for archive in read_sources(data).datasets["coco"].needed()
    ]


def test_a_list_that_comes_later_is_added(tmp_path: Path) -> None:
    """The list of coco27 is an archive of its own, which the folder may lack."""
    data = place(tmp_path / "data", "coco", {"curated": dict})
    listing = (data / "raw" / CURATED).read_bytes()
    (data / "raw" / CURATED).unlink()
    folder = extracted(data, tmp_path / "extracted")
    made = prepare.prepare("coco", data, folders=[folder])
    with pytest.raises(UserError, match=r"has 0 lists of images \(curated/val2017/Coco164k.*_7\.t"):
        read_subset("coco", "coco27", data)
    arrow = (made / "samples.arrow").stat().st_mtime_ns
    (data / "raw" / CURATED).write_bytes(listing)
    prepare.prepare("coco", data)
    assert (made / "samples.arrow").stat().st_mtime_ns == arrow, "the images are not read again"
    assert read_subset("coco", "coco27", data) == set(edited.ids("coco")[::2])
    check = read_selfcheck(made) or {}
    assert check["without"] == {} and check["archives"][CURATED] is not None
    assert recipes.recipe("coco", data).outdated(check) is None
