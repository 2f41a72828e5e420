"""The keys of a benchmark over a folder: how files are named, turned, coloured and ignored."""

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from cliptrase import config
from cliptrase.config.compose import compose, quoted
from cliptrase.data import open_dataset
from cliptrase.data.read import folder_samples
from cliptrase.data.read import labels as label_tables
from cliptrase.data.read.folder import Pair, contents, pairs
from cliptrase.errors import UserError
from cliptrase.evaluate.__main__ import main
from cliptrase.evaluate.targets import Target

MASK = np.arange(48).reshape(6, 8) // 16  # three classes, 0 to 2
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with words for three classes."""
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("apple\nsand|beach\nsky\n")
    return tmp_path


def write(place: str, pixels: np.ndarray, **options: Any) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place, **options)


def photos(*places: str, photo: np.ndarray = PHOTO, **options: Any) -> None:
    for place in places:
        write(f"photos/{place}", photo, **options)


def masks(*places: str, mask: np.ndarray = MASK, **options: Any) -> None:
    """Masks of 8 bits, or of 16 where the array has them."""
    deep = mask.dtype == np.uint16
    for place in places:
        write(f"masks/{place}", mask if deep else mask.astype(np.uint8), **options)


def run(*overrides: str, images: str = "photos", labels: str = "masks") -> config.Run:
    paths = [f"benchmark.images={images}", f"benchmark.labels={labels}"]
    words = ["benchmark.classes=words.txt", "model=shapes_clip"]
    return config.resolve(["benchmark=folder", *paths, *words, *overrides])


def truth(of: config.Run, index: int = 0) -> np.ndarray:
    """Classes as they are scored, 255 or 65535 for ignored pixels."""
    table = label_tables.lookup(of.benchmark.labels, of.vocabulary.classes.count)
    return label_tables.apply(table, open_dataset(of)[index].label)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "others", "patterns", "ids"),
    [
        (["a.png", "b.png"], ["a_gt.png", "b_gt.png", "a_i.png"], {"mask": "{stem}_gt.png"}, "ab"),
        (["a.jpg"], ["a.jpg.png"], {"mask": "{name}.png"}, ["a.jpg"]),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"], {"mask": "{name}.png"},
         ["a.jpg", "a.png"]),
        (["a.jpg"], ["a.jpg.png"], {"mask": "{stem}.jpg.png"}, "a"),
        (["a.jpg"], ["a.png"], {"mask": "{stem}.*"}, "a"),
        (["a.jpg"], ["gt/a/mask.png", "gt/a/else.png"], {"mask": "gt/{stem}/mask.png"}, "a"),
        (["s[0].jpg"], ["s[0]_gt.png"], {"mask": "{stem}_gt.png"}, ["s[0]"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a_g.png", "y/a_g.png"], {"mask": "**/{stem}_g.png"}, None),
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"], {"image": "**/*"}, None),
        (["x/a.jpg", "x/.h/b.jpg"], ["a.png", ".hidden/b.png"], {"mask": "**/{stem}"}, ["x/a"]),
        (["a.jpg"], ["x/y/a.png"], {"mask": "**/{stem}.png"}, "a"),
        (["1/img/p.jpg", "2/img/p.jpg"], ["1/gt/p.png", "2/gt/p.png"],
         {"image": "**/img/{stem}.jpg", "mask": "**/gt/{stem}.png"}, ["1/img/p", "2/img/p"]),
        (["1/photo.jpg", "2/photo.jpg"], ["1/mask.png", "2/mask.png"],
         {"image": "{stem}/photo.jpg", "mask": "{stem}/mask.png"}, ["1/photo", "2/photo"]),
        (["ulm/f_1_leftImg8bit.png", "bonn/f_1_leftImg8bit.png", "bonn/f_2_leftImg8bit.png"],
         [f"{at}_gtFine_{kind}.png" for at in ("ulm/f_1", "bonn/f_1", "bonn/f_2")
          for kind in ("color", "instanceIds", "labelIds")],
         {"image": "**/{stem}_leftImg8bit.png", "mask": "**/{stem}_gtFine_labelIds.png"},
         ["bonn/f_1_leftImg8bit", "bonn/f_2_leftImg8bit", "ulm/f_1_leftImg8bit"]),
    ],
)  # fmt: skip
def test_pictures_and_masks_are_found(
    pictures: list[str], others: list[str], patterns: dict[str, str], ids: Any
) -> None:
    photos(*pictures)
    masks(*others)
    found = run(*[f"benchmark.{key}={pattern}" for key, pattern in patterns.items()])
    paired = pairs(*found.benchmark.folder.names)
    expected = ["x/a", "y/a"] if ids is None else list(ids)
    assert [pair.id for pair in paired] == open_dataset(found).ids == expected
    for pair in paired:  # each with its own
        folders = {pair.image.parent.name, pair.mask.parent.name}
        assert len(folders - {"photos", "masks", "img", "gt", "x", "y", "a"}) <= 1


def test_pictures_and_masks_may_lie_in_one_folder() -> None:
    photos("a.png", "b.png", "a_mask.png", "b_mask.png", photo=MASK.astype(np.uint8))
    found = run("benchmark.mask={stem}_mask.png", labels="photos")
    assert open_dataset(found).ids == ["a", "b"]
    photos("m/a.png", "m/b.png", photo=MASK.astype(np.uint8))
    os.remove("photos/a_mask.png"), os.remove("photos/b_mask.png")
    paired = pairs("photos", "photos/m", None, "**/{stem}.png")
    assert [(pair.id, pair.mask.as_posix()) for pair in paired] == [
        ("a", "photos/m/a.png"),
        ("b", "photos/m/b.png"),
    ]


def test_links_are_followed_but_in_no_circle() -> None:
    photos("real/a.png")
    masks("real/a.png")
    write("elsewhere/b.png", PHOTO)
    write("masks/more/b.png", MASK.astype(np.uint8))
    Path("photos/more").symlink_to(Path("elsewhere").absolute())
    Path("photos/here").symlink_to(".")
    Path("photos/up").symlink_to("..")
    Path("elsewhere/back").symlink_to(Path("photos").absolute())
    assert open_dataset(run("benchmark.mask=**/{stem}.png")).ids == ["more/b", "real/a"]


NFC, NFD = "é", unicodedata.normalize("NFD", "é")


@pytest.mark.parametrize(
    ("pictures", "others", "mask", "message"),
    [
        (["a.jpg"], ["a.jpg.png"], None, r"no mask for a.jpg; give benchmark.mask={name}.png if a"),
        (["a.jpg"], ["a_gt.png"], None, r"give benchmark.mask={stem}_gt.png if a_gt.png is its"),
        (["1.jpg", "11.jpg"], ["1_1.png", "11_1.png"], None, r"give benchmark.mask={stem}_1.png"),
        (["1.jpg", "10.jpg"], ["1_mask.png", "10_mask.png"], None, r"give .*{stem}_mask.png if 1_"),
        (["a.jpg", "b.jpg"], ["ab.png", "c.png"], None, r"no mask for a.jpg .*; add a.png"),
        (["s[0].png"], ["s0.png"], None, r"no mask for s\[0\].png; add s\[0\].png"),
        (["s[0].png"], ["s0.jpg", "b.png"], None, r"no mask for s\[0\].png; add s\[0\].png"),
        ([f"{NFC}.jpg"], [f"{NFD}.png"], None, r"'\\xe9.jpg'; 'e\\u0301.png' looks like it"),
        (["A.jpg"], ["a.png"], None, r"'A.jpg'; 'a.png' looks like it"),
        (["f_1_leftImg8bit.png"], ["f_1_gt.png"], "{stem}_gt.png",
         r"give benchmark.image={stem}_leftImg8bit.png if f_1_gt.png is its mask"),
        (["a.jpg", "b.jpg"], ["a_gt.png"], "{stem}_gt.png", r"no mask for b.jpg; add b_gt.png"),
        (["a.jpg"], ["a_gt.png", "b_gt.png"], "{stem}_gt.png", r"b_gt.png: a mask without a pict"),
        (["a.jpg"], ["a.png"], "{stem}_gt.png", r"masks: no mask .*benchmark.mask={stem}_gt.png"),
        (["a.jpg"], ["a.jpg"], "{stem}.jpg", r".jpg is no format for masks; save them as PNG"),
        (["a.jpg"], ["x/a.png", "y/a.png"], "**/{stem}.png", r"x/a.png and .*y/a.png are both"),
        (["x/a.jpg", "y/a.jpg"], ["a.png"], "**/{stem}.png", r"the only mask for .*x/a.jpg and"),
        (["a.jpg"], ["a.png"], "mask.png", r"mask.png: needs {stem} or {name}"),
        (["a.jpg"], ["a.png"], "{stm}.png", r"needs {stem} or {name}"),
        (["a.jpg"], ["a.png"], "{stem}{id}.png", r"only {stem} and {name} can stand in braces"),
        (["a.jpg"], ["a.png"], "../{stem}.png", r"must be relative to the folder benchmark.labels"),
        (["a.jpg"], ["a.png"], "/m/{stem}.png", r"must be relative to the folder benchmark.labels"),
        (["x/a.jpg"], ["a.png"], None, r"subfolders are not searched, unless a pattern says so"),
    ],
)  # fmt: skip
def test_what_does_not_pair_is_named_with_its_cure(
    pictures: list[str], others: list[str], mask: str | None, message: str
) -> None:
    photos(*pictures)
    masks(*others)
    with pytest.raises(UserError, match=message) as error:
        run(*([] if mask is None else [f"benchmark.mask={mask}"]))
    assert "\n" not in str(error.value)


def test_subfolders_stay_in_the_pattern_that_is_suggested() -> None:
    photos("x/a.jpg", "y/b.jpg")
    masks("x/a_gt.png", "y/b_gt.png")
    with pytest.raises(UserError, match=r"give benchmark.mask=\*\*/{stem}_gt.png if a_gt"):
        run("benchmark.image=**/{stem}.jpg")


@pytest.mark.parametrize("suffix", [".gif", ".npy"])
def test_masks_that_are_all_of_a_wrong_format_are_named(suffix: str) -> None:
    photos("a.jpg")
    Path("masks").mkdir()
    Path("masks", f"a{suffix}").touch()
    with pytest.raises(UserError, match=rf"masks: no mask .*; {suffix} is no format for masks"):
        run()


@pytest.mark.parametrize("pattern", ["{stem}_g.png", "**/{stem}.png", "{name}.png", "'{stem}.png'"])
def test_a_pattern_reads_alike_everywhere(pattern: str) -> None:
    override, plain = f"benchmark.mask={pattern}", pattern.strip("'")
    assert compose(["benchmark=folder", override])["benchmark"]["mask"] == plain
    (parsed,) = OverridesParser.create().parse_overrides([quoted(override)])
    assert str(parsed.value()).strip("'\"") == plain
    assert quoted("out={a}") == "out={a}"


def test_names_need_not_be_utf8() -> None:
    for folder, suffix in (("photos", b".png"), ("masks", b".png")):
        Path(folder).mkdir()
        place = Path(folder, os.fsdecode(b"caf\xe9" + suffix))
        write(str(place), PHOTO if folder == "photos" else MASK.astype(np.uint8))
    found = run()
    assert open_dataset(found).ids == [os.fsdecode(b"caf\xe9")]
    Path("masks", os.fsdecode(b"caf\xe9.png")).unlink()
    masks("b.png")
    with pytest.raises(UserError, match="no mask for"):
        run()


# --- what pixels mean ---------------------------------------------------------------------------


def test_zero_is_ignored_and_the_others_move_up() -> None:
    photos("a.png")
    values = MASK + 1
    values[0, 0], values[0, 1] = 0, 255
    masks("a.png", mask=values)
    want = MASK.copy()
    want[0, :2] = 255
    assert np.array_equal(truth(run("benchmark.reduce_zero_label=true")), want)
    values[0, 1] = 4
    masks("a.png", mask=values)
    with pytest.raises(UserError, match=r"a.png: label 4 is neither one of the 3 classes \(1 to 3"):
        truth(run("benchmark.reduce_zero_label=true"))


def test_another_value_may_be_ignored() -> None:
    photos("a.png")
    values = MASK.copy()
    values[0, 0] = 9
    masks("a.png", mask=values)
    want = MASK.copy()
    want[0, 0] = 65535
    assert np.array_equal(truth(run("benchmark.ignore=9")), want)
    values[0, 1] = 255
    masks("a.png", mask=values)
    with pytest.raises(UserError, match=r"label 255 .*ignored value 9; ignored pixels are 9 here"):
        truth(run("benchmark.ignore=9"))
    masks("a.png", mask=(MASK + (MASK == 2) * 65533).astype(np.uint16))
    Path("words.txt").write_text("apple\nsand\n")
    assert truth(run("benchmark.ignore=65535")).max() == 65535
    with pytest.raises(UserError, match=r"label 65535 .*ignored value 9"):
        truth(run("benchmark.ignore=9"))


def test_ignored_pixels_are_background_where_there_are_words_for_it() -> None:
    photos("a.png")
    masks("a.png", mask=np.where(MASK == 2, 7, MASK))
    Path("words.txt").write_text("apple\nsand\n")
    Path("back.txt").write_text("sky\n")
    found = run("benchmark.ignore=7", "benchmark.background=back.txt")
    raw = open_dataset(found)[0].label
    confusion = Target.of(found).truth(raw, "a").confusion(raw.clip(max=2))
    assert confusion.sum() == np.trace(confusion) == MASK.size


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["benchmark.ignore=0"], "3 classes, but label 0 means ignored; give benchmark.reduce"),
        (["benchmark.ignore=2"], "3 classes, but label 2 means ignored; take a value that no"),
        (["benchmark.ignore=-1"], "benchmark.ignore=-1: must be a label value"),
        (["benchmark.ignore=none"], "benchmark.ignore=none: must be a label value"),
        (["benchmark.reduce_zero_label=1"], "benchmark.reduce_zero_label=1"),
        (["benchmark.map=farm", "benchmark.ignore=0"], "benchmark.ignore=0: benchmark.map says"),
        (["benchmark.colours=w", "benchmark.reduce_zero_label=true"], "benchmark.colours says"),
        (["benchmark.map=farm", "benchmark.colours=w"], "benchmark.colours=w: benchmark.map says"),
        (["benchmark.colours=nowhere.txt"], "nowhere.txt: cannot be read.*R,G,B,class"),
        (["benchmark.orientation=upright"], "benchmark.orientation=upright: unknown value"),
        (["benchmark.masks=gt.png"], "unknown key 'benchmark.masks'; did you mean"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(overrides: list[str], message: str) -> None:
    photos("a.png")
    masks("a.png")
    with pytest.raises(UserError, match=message):
        truth(run(*overrides))


COLOURS = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128], [0, 0, 0]], np.uint8)
TABLES = {
    "numbers": "128,0,0,0\n0,128,0,1\n0,0,128,2\n0,0,0,ignored\n",
    "names": "128 0 0 apple\n0 128 0\tbeach\n\n0 0 128 sky\n0 0 0 ignored\n",
    "head": "name,r,g,b\napple,128,0,0\nsand,0,128,0\nsky,0,0,128\nignored,0,0,0\n",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_mask_of_colours_is_read_by_its_table(table: str, mode: str) -> None:
    photos("a.png")
    values = np.where(np.arange(8) == 7, 3, MASK)
    mask = Image.fromarray(COLOURS[values])
    mask = mask.quantize(8) if mode == "P" else mask.convert(mode)
    if mode == "RGBA":
        mask.putalpha(7)
    Path("masks").mkdir()
    mask.save("masks/a.png")
    Path("colours.csv").write_text(table)
    found = run("benchmark.colours=colours.csv")
    assert np.array_equal(truth(found), np.where(values == 3, 65535, values))
    Path("colours.csv").write_text(table.replace("ignored", "sky"))
    assert run("benchmark.colours=colours.csv").name != found.name


def test_black_and_white_masks_have_two_colours() -> None:
    photos("a.png")
    masks("a.png", mask=np.uint8(255) * (MASK == 1))
    Path("words.txt").write_text("sand\napple\n")
    Path("colours.csv").write_text("0,0,0,sand\n255,255,255,apple\n")
    assert np.array_equal(truth(run("benchmark.colours=colours.csv")), MASK == 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("128,0,0,0\n", r"a.png: the colour 0,128,0 of pixel \(0, 2\) is not in .*c.csv; add it"),
        ("128,0,0,aple\n", "c.csv, line 1: unknown class 'aple'; did you mean 'apple'"),
        ("128,0,0,3\n", "c.csv, line 1: unknown class '3'"),
        ("128,0,0,0\n128,0,0,1\n", "c.csv, line 2: a colour is three numbers"),
        ("128,0,256,0\n", "c.csv, line 1: a colour is three numbers"),
        ("r,g,b,class\n128,0,apple\n", "c.csv, line 2: '128,0,apple' is not R,G,B,class"),
        ("\n", "c.csv: no colour in this file"),
    ],
)
def test_a_table_of_colours_that_does_not_hold_is_named(table: str, message: str) -> None:
    photos("a.png")
    masks("a.png", mask=COLOURS[MASK])
    Path("c.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        truth(run("benchmark.colours=c.csv"))


@pytest.mark.parametrize("meaning", ["1", "ignored"])
def test_a_class_that_is_named_as_another_meaning_is_ambiguous(meaning: str) -> None:
    photos("a.png")
    masks("a.png", mask=COLOURS[MASK])
    Path("words.txt").write_text(f"{meaning}\nsand\n2\n")
    Path("c.csv").write_text(f"0,128,0,sand\n0,0,128,2\n128,0,0,{meaning}\n")
    with pytest.raises(UserError, match=f"c.csv, line 3: '{meaning}' is .* the name of class 0"):
        truth(run("benchmark.colours=c.csv"))


def test_a_mask_of_colours_without_a_table_names_the_key() -> None:
    photos("a.png")
    masks("a.png", mask=COLOURS[MASK])
    with pytest.raises(UserError, match=r"a.png: a mask must hold one label .*benchmark.colours"):
        open_dataset(run())


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_fit_pictures_as_shown_or_as_stored(
    orientation: int, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    photos(f"a.{suffix}", exif=exif(orientation))
    shown = np.asarray(open_shown(f"photos/a.{suffix}"))
    values = MASK if shown.shape[:2] == MASK.shape else MASK.T
    masks("a.png", mask=values)
    sample = open_dataset(run())[0]
    assert np.array_equal(np.asarray(sample.image), shown)
    assert np.array_equal(sample.label, values)
    turned = [text for text in caplog.messages if f"a.{suffix}: its EXIF data turn it" in text]
    assert len(turned) == (orientation < 5)
    caplog.clear()
    masks("a.png")
    sample = open_dataset(run("benchmark.orientation=stored"))[0]
    assert np.array_equal(np.asarray(sample.image), PHOTO)
    assert np.array_equal(sample.label, MASK) and not caplog.messages
    if orientation >= 5:
        with pytest.raises(UserError, match=r"8 × 6 .* 6 × 8 as shown .*orientation=stored"):
            open_dataset(run())
        masks("a.png", mask=MASK.T)
        with pytest.raises(UserError, match=r"6 × 8 .* 8 × 6 as stored; .*orientation=exif"):
            open_dataset(run("benchmark.orientation=stored"))


def open_shown(place: str) -> Image.Image:
    from PIL import ImageOps

    with Image.open(place) as image:
        image.load()
        return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_turns_like_its_picture(suffix: str) -> None:
    photos("a.png", exif=exif(6))
    masks(f"a.{suffix}", exif=exif(6))
    assert np.array_equal(open_dataset(run())[0].label, np.rot90(MASK, -1))
    assert np.array_equal(open_dataset(run("benchmark.orientation=stored"))[0].label, MASK)


def test_a_square_picture_on_its_side_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    photos("a.png", "b.png", photo=PHOTO[:, :6], exif=exif(6))
    masks("a.png", "b.png", mask=MASK[:, :6])
    open_dataset(run())
    (said,) = caplog.messages
    assert "photos/a.png: its EXIF data turn it (as do 1 more)" in said
    assert "orientation=stored" in said
    caplog.clear()
    photos("a.png", "b.png", photo=PHOTO[:, :6])
    masks("b.png", mask=MASK[:, :6], exif=exif(6))
    open_dataset(run())
    assert "masks/b.png: its EXIF data turn it, and" in caplog.messages[0]


# --- identity, and files that change ------------------------------------------------------------


def test_keys_at_their_defaults_are_no_part_of_a_run() -> None:
    photos("a.png")
    masks("a.png")
    plain = run()
    folder, labels = plain.identity["benchmark"]["folder"], plain.identity["benchmark"]["labels"]
    assert set(folder) == {"digest"} and set(labels) == {"map", "ignore", "background"}
    same = run("benchmark.orientation=exif", "benchmark.mask={stem}.png", "benchmark.ignore=null")
    assert same.name == plain.name
    assert run("benchmark.ignore=255").name == plain.name  # what null means for masks of 8 bits
    others = ["orientation=stored", "reduce_zero_label=true", "ignore=65535", "ignore=9"]
    names = {run(f"benchmark.{other}").name for other in others}
    assert len(names) == 4 and plain.name not in names


def test_the_digest_is_of_the_bytes_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is replaced while the folder is opened does not pass for the first one."""
    photos("a.png")
    masks("a.png")
    resolved = run()

    def replacing(paired: list[Pair]) -> dict[Path, str]:
        shutil.copy2("masks/a.png", "kept.png")
        masks("a.png", mask=MASK[::-1])
        digests = contents(paired)
        shutil.copy2("kept.png", "masks/a.png")
        return digests

    monkeypatch.setattr(folder_samples, "contents", replacing)
    with pytest.raises(UserError, match="changed since the run began"):
        open_dataset(resolved)


def test_a_file_that_changes_while_it_is_scored_ends_the_run() -> None:
    photos("a.png", "b.png")
    masks("a.png", "b.png")
    found = run()
    samples = open_dataset(found)
    assert samples[0].id == "a"
    for place in ("masks/b.png", "photos/b.png"):
        before = Path(place)
        shutil.copy2(before, "kept.png")
        stat = before.stat()
        content = bytearray(before.read_bytes())
        content[-20] ^= 1
        before.write_bytes(content)
        os.utime(before, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size, time and inode
        with pytest.raises(UserError, match=rf"{place}: changed since the run began; start it"):
            samples[1]
        shutil.copy2("kept.png", before)
        assert samples[1].id == "b"
    masks("b.png", mask=MASK[::-1])
    with pytest.raises(UserError, match=r"photos or .*masks: changed since the run began"):
        open_dataset(found)


def test_a_class_without_a_pixel_is_said(capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b"):
        write(f"photos/{name}_img.png", np.tile(PHOTO, (40, 40, 1)))
        both = np.repeat(np.repeat((MASK > 1) * 255, 40, 0), 40, 1)
        write(f"masks/{name}_gtFine_labelIds.png", both.astype(np.uint8))
    places = ["benchmark.images=photos", "benchmark.labels=masks", "benchmark.classes=words.txt"]
    patterns = ["benchmark.image={stem}_img.png", "benchmark.mask={stem}_gtFine_labelIds.png"]
    words = ["model=shapes_clip", "benchmark.templates=shapes", "method=clip", "image_size=224"]
    main(["benchmark=folder", *places, *patterns, *words, "out=runs", "device=cpu"])
    assert "  no mask has a pixel of 2 of 3 classes: sand, sky\n" in capsys.readouterr().out
    (metrics,) = Path("runs").glob("*/metrics.json")
    assert json.loads(metrics.read_text())["without_pixels"] == ["sand", "sky"]
