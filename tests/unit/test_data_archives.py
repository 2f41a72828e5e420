"""From archives to prepared datasets: images as shipped, raw labels to the pixel, figures held."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import ExifTags, Image
from tests.miniature import edited
from tests.miniature.edited import members, place

from cliptrase.data.fetch import download
from cliptrase.data.fetch.sources import read_sources
from cliptrase.data.make import prepare, recipes
from cliptrase.data.make.archives.ade2021 import stored_size
from cliptrase.data.read import opencv, ordered
from cliptrase.data.read.labels import read_table
from cliptrase.data.read.prepared import open_prepared, read_selfcheck, read_subset
from cliptrase.errors import UserError

AS_SHIPPED = {  # dataset → where the image and the mask of an id lie
    "coco": (r"val2017/{}.jpg", r"val2017/{}.png"),
    "voc2012": (
        r"VOCdevkit/VOC2012/JPEGImages/{}.jpg",
        r"VOCdevkit/VOC2012/SegmentationClass/{}.png",
    ),
    "ade2016": (
        r"ADEChallengeData2016/images/validation/{}.jpg",
        r"ADEChallengeData2016/annotations/validation/{}.png",
    ),
    "cityscapes": (
        r"leftImg8bit/val/{city}/{}_leftImg8bit.png",
        r"gtFine/val/{city}/{}_gtFine_labelIds.png",
    ),
}
every_dataset = pytest.mark.parametrize("dataset", edited.ARCHIVES)


def rows(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """id → the stored bytes of image and label, read by Hugging Face's library."""
    from datasets import Dataset

    table = Dataset.from_file(str(folder / "samples.arrow"))
    return {row["id"]: (row["image"], row["label"]) for row in table}


def pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("dataset", AS_SHIPPED)
def test_images_are_stored_as_shipped_and_labels_are_raw(dataset: str, tmp_path: Path) -> None:
    folder = prepare.prepare(dataset, place(tmp_path, dataset))
    stored = rows(folder)
    assert list(stored) == edited.ids(dataset)
    archives = [members(edited.ARCHIVES[dataset][role][0]) for role in ("images", "labels")]
    for name, (image, label) in stored.items():
        city = name.split("_")[0]
        shown, mask = (
            held[pattern.format(name, city=city)]
            for held, pattern in zip(archives, AS_SHIPPED[dataset], strict=True)
        )
        assert image == shown
        assert np.array_equal(pixels(label), pixels(mask))  # of a palette: the indices
    for sample in open_prepared(dataset, tmp_path):
        assert np.array_equal(sample.label, pixels(stored[sample.id][1]))


def test_context_has_the_listed_images_and_label_maps_of_16_bits(tmp_path: Path) -> None:
    stored = rows(prepare.prepare("pcontext", place(tmp_path, "pcontext")))
    assert list(stored) == edited.ids("pcontext")
    images, masks = (members(name) for name, _ in edited.ARCHIVES["pcontext"].values())
    largest = 0
    for name, (image, label) in stored.items():
        assert image == images[f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg"]
        raw = scipy.io.loadmat(io.BytesIO(masks[f"trainval/{name}.mat"]))["LabelMap"]
        assert Image.open(io.BytesIO(label)).mode == "I;16"
        assert np.array_equal(pixels(label), raw)
        largest = max(largest, raw.max())
    assert largest > 255, "no value that needs 16 bits was tested"


def test_the_shipped_list_of_context_is_that_of_the_sources() -> None:
    listed = (Path(recipes.__file__).parents[1] / "ids" / "pcontext.txt").read_text().split()
    years = {year: sum(one.startswith(year) for one in listed) for year in ("2008", "2009", "2010")}
    assert years == {"2008": 2221, "2009": 1360, "2010": 1523} and listed == sorted(set(listed))
    assert recipes.recipe("pcontext").count == len(listed) == 5104


def test_ade_full_is_what_the_released_preparation_stores(tmp_path: Path) -> None:
    """Short side 512 where it was longer, as OpenCV resizes; JPEG of quality 75 in any case."""
    stored = rows(prepare.prepare("ade2021", place(tmp_path, "ade2021")))
    held = members("ADE20K_2021_17_01.zip")
    assert list(stored) == edited.ids("ade2021")
    shrunk = 0
    for name, (image, label) in stored.items():
        (shown,) = (pixels(c) for n, c in held.items() if n.endswith(f"/{name}.jpg"))
        (mask,) = (pixels(c) for n, c in held.items() if n.endswith(f"/{name}_seg.png"))
        raw = mask[..., 0].astype(int) // 10 * 256 + mask[..., 1]
        height, width = raw.shape
        if min(height, width) > 512:
            shrunk += 1
            factor = 512 / min(height, width)
            height, width = (
                512 if side == min(raw.shape) else round(side * factor) for side in raw.shape
            )
        assert np.array_equal(pixels(label), opencv.nearest(raw, height, width))
        again = io.BytesIO()
        Image.fromarray(opencv.linear(shown, height, width)).save(again, "JPEG", quality=75)
        assert image == again.getvalue()
    assert 0 < shrunk < len(stored)


@pytest.mark.parametrize(
    ("shape", "stored"),
    [
        ((512, 512), (512, 512)),
        ((512, 4000), (512, 4000)),
        ((513, 513), (512, 512)),
        ((513, 700), (512, 699)),  # 698.6
        ((1536, 2048), (512, 683)),  # 682.7
        ((2048, 1536), (683, 512)),
        ((1024, 1025), (512, 512)),  # 512.5 goes to the even one
    ],
)
def test_sizes_that_ade_full_is_stored_at(shape: tuple[int, int], stored: tuple[int, int]) -> None:
    assert stored_size(*shape) == stored


@every_dataset
def test_the_same_bytes_again_and_with_other_threads(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare.prepare(dataset, place(tmp_path / "one", dataset))
    monkeypatch.setattr(ordered, "cores", lambda: 3)
    second = prepare.prepare(dataset, place(tmp_path / "two", dataset))
    for name in ("samples.arrow", "selfcheck.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    check = read_selfcheck(first) or {}
    assert sorted(check["archives"]) == sorted({n for n, _ in edited.ARCHIVES[dataset].values()})
    values = read_sources("nowhere").datasets[dataset].expected.label_values or ()
    assert all(any(a <= int(raw) <= b for a, b in values) for raw in check["label_pixels"])


def test_a_photograph_that_says_it_lies_on_its_side_is_taken_as_stored(tmp_path: Path) -> None:
    """Masks are drawn on the stored pixels: a rotation by EXIF would part the two."""

    def turned(held: dict[str, bytes]) -> dict[str, bytes]:
        name = "ADEChallengeData2016/images/validation/ADE_val_00000002.jpg"
        file, exif = io.BytesIO(), Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.open(io.BytesIO(held[name])).save(file, "JPEG", exif=exif)
        return held | {name: file.getvalue()}

    data = place(tmp_path, "ade2016", {"images": turned})
    stored = rows(prepare.prepare("ade2016", data))
    sample = open_prepared("ade2016", data)[0]
    assert sample.id == "ADE_val_00000002"
    assert np.array_equal(np.asarray(sample.image), pixels(stored[sample.id][0]))


def test_the_values_that_masks_may_hold_are_those_that_the_tables_know() -> None:
    found = {}
    for dataset, source in read_sources("nowhere").datasets.items():
        pairs = source.expected.label_values or ()
        found[dataset] = {raw for low, high in pairs for raw in range(low, high + 1)}
    assert found["coco"] == {*read_table("coco_to_171"), 255}
    assert found["voc2012"] == {0, *read_table("voc_to_20"), 255}
    assert found["pcontext"] == {0, *read_table("pcontext_to_459")}
    assert found["ade2016"] == {0, *read_table("ade2016_to_150")}
    assert found["cityscapes"] == {*range(7), *read_table("cityscapes_to_27")}
    assert found["ade2021"] > {0, *read_table("ade2021_to_847")}


def test_archives_of_another_top_folder_do_too(tmp_path: Path) -> None:
    deeper = {role: lambda held: {f"top/{n}": c for n, c in held.items()} for role in ("labels",)}
    folder = prepare.prepare("coco", place(tmp_path, "coco", deeper))
    assert list(rows(folder)) == edited.ids("coco")


def test_nothing_is_made_again_until_an_archive_changes(tmp_path: Path) -> None:
    data = place(tmp_path, "coco")
    arrow = prepare.prepare("coco", data) / "samples.arrow"
    made = arrow.stat().st_mtime_ns
    prepare.prepare("coco", data)
    for archive in (data / "raw").glob("*"):
        archive.unlink()  # it is prepared: the archives may go, and nothing is fetched again
    prepare.prepare("coco", data)
    assert arrow.stat().st_mtime_ns == made and len(open_prepared("coco", data)) == 3
    place(tmp_path, "coco", {"curated": lambda held: held})
    prepare.prepare("coco", data)  # a list of ids is added
    assert arrow.stat().st_mtime_ns == made and read_subset("coco", "coco27", data)
    masks = data / "raw/stuffthingmaps_trainval2017.zip"
    masks.write_bytes(masks.read_bytes() + bytes(9))  # as good, and another file
    download.fetch(read_sources(data).archive(masks.name), data)
    prepare.prepare("coco", data)
    assert arrow.stat().st_mtime_ns != made and read_subset("coco", "coco27", data)


def test_the_images_of_coco27(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"without it \(COCOS.*raw.*run `cliptrase prepare coco"):
        place(tmp_path / "without", "coco", {"curated": lambda held: held})
        (tmp_path / "without" / "raw" / edited.CURATED).unlink()
        prepare.prepare("coco", tmp_path / "without")
        read_subset("coco", "coco27", tmp_path / "without")
    data = place(tmp_path, "coco", {"curated": lambda held: held})
    prepare.prepare("coco", data)
    assert read_subset("coco", "coco27", data) == set(edited.ids("coco")[::2])
    with pytest.raises(UserError, match=r"coco28\.txt: .*there is coco27"):
        read_subset("coco", "coco28", data)

    def foreign(held: dict[str, bytes]) -> dict[str, bytes]:
        name = "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt"
        return held | {name: held[name] + b"000000999999\n"}

    place(tmp_path, "coco", {"curated": foreign})
    (data / "raw" / f"{edited.CURATED}.first.json").unlink()
    prepare.prepare("coco", data, force=True)
    with pytest.raises(UserError, match=r"Curated.*lists 000000999999, which is no image of coco"):
        read_subset("coco", "coco27", data)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"ids_sha256": "0" * 64}, "voc2012: ids_sha256: [0-9a-f]{64} instead of 0{64}"),
        (
            {"shares": [[[0], 0, 1], [[255], 0.9, 1]]},
            "pixels of label 255: 0.0[0-9]+ instead of 0.9 to 1",
        ),
        (
            {"shares": [[[0, 255], 0, 0.01], [[0], 0, 1]]},
            "pixels of label 0, 255: .* instead of 0.0 to",
        ),
        ({"label_values": [[0, 20]]}, r"2007_000033: its mask holds 255, a value that no mask"),
        ({"label_values": [0, 20]}, "expected.label_values.0=0: must be a list"),
        ({"shares": 0.5}, "expected.shares=0.5: must be a list"),
        ({"ignored": 0.5}, "unknown key 'datasets.voc2012.expected.ignored'"),
    ],
)
def test_figures_of_the_sources_are_held(
    expected: dict[str, object], message: str, tmp_path: Path
) -> None:
    data = place(tmp_path, "voc2012", expected=expected)
    with pytest.raises(UserError, match=message):
        prepare.prepare("voc2012", data)
    assert not list((data / "prepared").glob("voc2012*"))
    place(tmp_path, "voc2012", expected={"shares": [[[255], 0, 0.2]]})
    assert len(rows(prepare.prepare("voc2012", data))) == 3


def test_planning_needs_no_picture_library() -> None:
    code = (
        "import sys\n"
        "from cliptrase.data.fetch.sources import read_sources\n"
        "from cliptrase.data.make.recipes import code_files, recipe\n"
        "all = [recipe(name) for name in read_sources().datasets]\n"
        "assert [one.count for one in all] == [5000, 118287, 1449, 5104, 2000, 2000, 500]\n"
        "assert [one for one in all if one.outdated({}) and one.stated()] == all\n"
        "assert code_files('shapes')\n"
        "assert not {'numpy', 'PIL', 'scipy', 'httpx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gated_archives_are_asked_for_with_their_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLIPTRASE_MIRROR", raising=False)
    with pytest.raises(UserError) as error:
        prepare.prepare("cityscapes", tmp_path)
    message = str(error.value)
    for part in ("https://www.cityscapes-dataset.com", "leftImg8bit_trainvaltest.zip"):
        assert part in message
    assert re.search(rf"put the file gtFine_trainvaltest.zip into {tmp_path}/raw", message)
