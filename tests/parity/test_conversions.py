"""Real masks through archive, preparation and lookup, against conversions written down here.

The conversions are those that the sources' own scripts do, in plain Python from their description;
nothing of ours takes part in them. Skipped where the folder of samples is not there.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image
from tests.miniature.packing import tarred, zipped
from tests.objects import rules

from cliptrase.data.make import prepare
from cliptrase.data.make.archives.ade2021 import classes
from cliptrase.data.read import labels
from cliptrase.data.read.prepared import open_prepared
from cliptrase.data.read.vocabularies import read_names, vocabulary_path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared"
SAMPLES, MAPPINGS = SHARED / "samples", SHARED / "datasets" / "mappings"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample photographs are not here")
VOC, COCO = SAMPLES / "voc2012/VOCdevkit/VOC2012", SAMPLES / "coco_stuff/coco"
ADE, CONTEXT = SAMPLES / "ade150/ADEChallengeData2016", SAMPLES / "pc459_encoding"
FULL = SAMPLES / "ade_full/ADE20K_2021_17_01/images/ADE/training/urban/street"
FULL_ID = "ADE_train_00016869"


def mapping(name: str) -> dict[int, int]:
    held = json.loads((MAPPINGS / f"{name}.json").read_text(encoding="utf-8"))["map"]
    return {int(raw): target for raw, target in held.items()}


def each(table: Callable[[int], int], mask: np.ndarray) -> np.ndarray:
    """A function of one raw value, at every pixel."""
    values, places = np.unique(mask, return_inverse=True)
    return np.array([table(int(value)) for value in values])[places].reshape(mask.shape)


def voc20(mask: np.ndarray) -> np.ndarray:
    """0 becomes 255 and the others one less, which leaves the void's 255 as it is."""
    return each(lambda raw: 255 if raw in (0, 255) else raw - 1, mask)


def voc21(mask: np.ndarray) -> np.ndarray:
    """As released: of VOC20's masks, 255 becomes class 20, void borders included."""
    return each(lambda raw: 20 if raw == 255 else raw, voc20(mask))


def voc21_standard(mask: np.ndarray) -> np.ndarray:
    return each(lambda raw: {0: 20, 255: 255}.get(raw, raw - 1), mask)


def coco_stuff(mask: np.ndarray) -> np.ndarray:
    known = mapping("coco_stuffthingmaps_to_171")
    return each(lambda raw: known.get(raw, 255), mask)


def coco_object(mask: np.ndarray) -> np.ndarray:
    """As released: the 171 classes with 255 as class 80; those above 80 are not counted."""
    return each(lambda raw: 80 if raw == 255 else raw, coco_stuff(mask))


def coco_object_standard(mask: np.ndarray) -> np.ndarray:
    """Things are 0..90 in the maps, all stuff and 255 are background."""
    known = mapping("coco_stuffthingmaps_to_171")
    return each(lambda raw: known[raw] if raw <= 90 else 80, mask)


def coco27(mask: np.ndarray) -> np.ndarray:
    known = mapping("coco182_to_27")
    return each(lambda raw: known.get(raw, 255), mask)


def ade150(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) - np.uint8(1)  # 0 wraps to 255


def pc459(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint16) - np.uint16(1)


def pc59(mask: np.ndarray) -> np.ndarray:
    known = mapping("pc459_to_59")
    return each(lambda raw: known.get(raw, 255), mask)


def pc60(mask: np.ndarray) -> np.ndarray:
    return each(lambda raw: 59 if raw == 255 else raw, pc59(mask))


def ade847(mask: np.ndarray) -> np.ndarray:
    known = mapping("ade_full_to_847")
    return each(lambda raw: known.get(raw, 65535), mask)


CONVERSIONS = {
    one.__name__: one
    for one in (
        *(voc20, voc21, voc21_standard, coco_stuff, coco_object, coco_object_standard, coco27),
        *(ade150, pc459, pc59, pc60, ade847),
    )
}


def read(folder: Path, pattern: str, inside: str) -> dict[str, bytes]:
    files = sorted(folder.glob(pattern))
    assert files, f"{folder} holds no {pattern}"
    return {f"{inside}/{file.name}": file.read_bytes() for file in files}


def stems(held: dict[str, bytes], suffix: str) -> list[str]:
    return sorted({Path(name).name.removesuffix(suffix) for name in held if name.endswith(suffix)})


def voc_archives() -> tuple[dict[str, bytes], list[str]]:
    root = "VOCdevkit/VOC2012"
    held = read(VOC / "JPEGImages", "*.jpg", f"{root}/JPEGImages")
    ids = stems(held, ".jpg")
    held |= read(VOC / "SegmentationClassAug", "*.png", f"{root}/SegmentationClass")
    held[f"{root}/ImageSets/Segmentation/val.txt"] = "\n".join(ids).encode()
    return {"VOCtrainval_11-May-2012.tar": tarred(held)}, ids


def coco_archives() -> tuple[dict[str, bytes], list[str]]:
    images = read(COCO / "val2017", "*.jpg", "val2017")
    masks = read(COCO / "stuffthingmaps/val2017", "*.png", "val2017")
    both = {"val2017.zip": zipped(images), "stuffthingmaps_trainval2017.zip": zipped(masks)}
    return both, stems(images, ".jpg")


def ade_archives() -> tuple[dict[str, bytes], list[str]]:
    root = "ADEChallengeData2016"
    held = read(ADE / "images/validation", "*.jpg", f"{root}/images/validation")
    held |= read(ADE / "annotations/validation", "*.png", f"{root}/annotations/validation")
    return {"ADEChallengeData2016.zip": zipped(held)}, stems(held, ".jpg")


def context_archives() -> tuple[dict[str, bytes], list[str]]:
    images = read(CONTEXT / "JPEGImages", "*.jpg", "VOCdevkit/VOC2010/JPEGImages")
    masks = read(CONTEXT / "trainval", "*.mat", "trainval")
    both = {"VOCtrainval_03-May-2010.tar": tarred(images)}
    return both | {"trainval.tar.gz": tarred(masks, compressed=True)}, stems(images, ".jpg")


def full_archives() -> tuple[dict[str, bytes], list[str]]:
    """The sample is of the training part; it stands in the validation's place and name."""
    inside = "ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_00000001"
    held = {
        f"{inside}{end}": (FULL / f"{FULL_ID}{end}").read_bytes()
        for end in (".jpg", "_seg.png", ".json")
    }
    return {"ADE20K_2021_17_01.zip": zipped(held)}, ["ADE_val_00000001"]


ARCHIVES = {
    "voc2012": voc_archives,
    "coco": coco_archives,
    "ade2016": ade_archives,
    "pcontext": context_archives,
    "ade2021": full_archives,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples packed as their sources pack them, and all of them prepared."""
    folder = tmp_path_factory.mktemp("conversions")
    (folder / "raw").mkdir()
    sources = yaml.safe_load((ROOT / "conf" / "sources.yaml").read_text(encoding="utf-8"))
    for dataset, make in ARCHIVES.items():
        archives, ids = make()
        for name, content in archives.items():
            (folder / "raw" / name).write_bytes(content)
            sources["archives"][name] |= {"bytes": len(content), "checksum": None}
        values = sources["datasets"][dataset]["expected"].get("label_values")
        kept = {"ids": ids} | ({"label_values": values} if values else {})
        sources["datasets"][dataset] |= {"count": len(ids), "expected": kept, "optional": {}}
    (folder / "sources.yaml").write_text(yaml.safe_dump(sources), encoding="utf-8")
    for dataset in ARCHIVES:
        prepare.prepare(dataset, folder)
    return folder


def source_masks(dataset: str) -> dict[str, np.ndarray]:
    """id → raw values, read with Pillow and SciPy alone from the sample files."""
    if dataset == "pcontext":
        return {
            file.stem: scipy.io.loadmat(file)["LabelMap"]
            for file in (CONTEXT / "trainval").glob("*.mat")
        }
    if dataset == "ade2021":
        colours = np.array(Image.open(FULL / f"{FULL_ID}_seg.png")).astype(int)
        return {"ADE_val_00000001": (colours[..., 0] / 10).astype(int) * 256 + colours[..., 1]}
    folder = {
        "voc2012": VOC / "SegmentationClassAug",
        "coco": COCO / "stuffthingmaps/val2017",
        "ade2016": ADE / "annotations/validation",
    }[dataset]
    return {file.stem: np.array(Image.open(file)) for file in folder.glob("*.png")}


@pytest.mark.parametrize("benchmark", CONVERSIONS)
def test_every_pixel_is_scored_as_the_sources_scripts_have_it(benchmark: str, data: Path) -> None:
    config = yaml.safe_load((ROOT / f"conf/benchmark/{benchmark}.yaml").read_text())
    count = len(read_names(vocabulary_path(config["classes"])))
    lookup = labels.lookup(rules(**config["labels"]), count)
    masks = source_masks(config["dataset"])
    samples = open_prepared(config["dataset"], data)
    assert samples.ids == sorted(masks)
    seen: set[int] = set()
    for sample in samples:
        raw = masks[sample.id]
        if config["dataset"] == "ade2021":  # short side 1536 → 512, row i is the old row 3 · i
            raw = raw[::3][:, np.arange(683) * 2048 // 683]
        want = CONVERSIONS[benchmark](raw)
        ours = labels.apply(lookup, sample.label)
        if config["labels"]["background"] == "ignored":
            ours = labels.background_from_ignored(lookup, ours)
        assert ours.shape == want.shape and np.array_equal(ours, want)
        seen.update(np.unique(want).tolist())
    assert len(seen) > 2


@pytest.mark.parametrize("dataset", [one for one in ARCHIVES if one != "ade2021"])
def test_photographs_are_stored_to_the_byte(dataset: str, data: Path) -> None:
    from datasets import Dataset

    table = Dataset.from_file(str(data / "prepared" / dataset / "samples.arrow"))
    folder = {
        "voc2012": VOC / "JPEGImages",
        "coco": COCO / "val2017",
        "ade2016": ADE / "images/validation",
        "pcontext": CONTEXT / "JPEGImages",
    }[dataset]
    for row in table:
        assert row["image"] == (folder / f"{row['id']}.jpg").read_bytes()


def test_the_classes_of_ade_full_are_those_that_its_own_annotation_names(data: Path) -> None:
    """The ids (name_ndx) of the objects of the JSON have pixels, and nothing else has."""
    text = (FULL / f"{FULL_ID}.json").read_bytes().decode("latin-1")
    objects = json.loads(text)["annotation"]["object"]
    named = {int(one["name_ndx"]) for one in objects if not int(one["parts"]["part_level"])}
    found = set(np.unique(classes((FULL / f"{FULL_ID}_seg.png").read_bytes(), "mask")).tolist())
    assert found - {0} <= named and len(found) > 10
    assert len(named - found) <= len(named) // 4, "objects wholly covered by others are few"


def test_the_photograph_of_ade_full_is_512_high_and_near_the_original(data: Path) -> None:
    (sample,) = open_prepared("ade2021", data)
    assert sample.image.size == (683, 512)
    area = Image.open(FULL / f"{FULL_ID}.jpg").convert("RGB").resize((683, 512), Image.BILINEAR)
    difference = np.asarray(sample.image).astype(int) - np.asarray(area)
    assert np.abs(difference.mean()) < 1 and np.abs(difference).mean() < 12


def test_the_manifest_states_the_values_that_are_prepared(data: Path) -> None:
    with open(SAMPLES / "MANIFEST.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "values=" in row["pil_info"]]
    held = {s.id: s.label for d in ("voc2012", "coco", "ade2016") for s in open_prepared(d, data)}
    checked = 0
    for row in rows:
        stated = row["pil_info"].split("values=")[1]
        if stated != "rgb":
            label = held[Path(row["file"]).stem]
            assert np.unique(label).tolist() == [int(value) for value in stated.split()]
            checked += 1
    assert checked == len(held)


def test_the_ids_that_the_sources_expect_are_the_lists_of_others() -> None:
    datasets = yaml.safe_load((ROOT / "conf" / "sources.yaml").read_text())["datasets"]
    lists = {
        "coco": "coco_val2017_5000",
        "voc2012": "voc2012_val_1449",
        "pcontext": "pascalcontext_val_5104",
        "ade2016": "ade20k_val_2000",
    }
    for dataset, name in lists.items():
        ids = sorted((SHARED / f"datasets/val_ids/{name}.txt").read_text().split())
        shipped = ROOT / "src/cliptrase/data/ids" / datasets[dataset]["expected"]["ids"]
        assert shipped.read_text().split("\n") == [*ids, ""]
        assert datasets[dataset]["count"] == len(ids)


def test_context_label_maps_keep_16_bits(data: Path) -> None:
    from datasets import Dataset

    table = Dataset.from_file(str(data / "prepared" / "pcontext" / "samples.arrow"))
    assert {Image.open(io.BytesIO(row["label"])).mode for row in table} == {"I;16"}
