"""Which pixels of an image are scored, and as what: skipping, ignoring, background."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.objects import changed

from cliptrase import config
from cliptrase.data.read.selfcheck import SELFCHECK
from cliptrase.errors import UserError
from cliptrase.evaluate.targets import Target, target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.files import write_json


def truth(benchmark, raw, protocol="crop"):
    """Ground-truth class by pixel of `raw` values; -1 left out; None: the image is skipped."""
    chosen = [f"benchmark={benchmark}", "model=shapes_clip", f"protocol={protocol}"]
    target = Target.of(config.resolve(chosen))
    found = target.truth(np.array(raw), "image 1")
    if found is None:
        return None
    classes = np.full(len(raw), -1)
    classes[slice(None) if found.scored is None else found.scored] = found.rows // found.classes
    return classes.tolist()


@pytest.mark.parametrize(
    ("benchmark", "raw", "expected"),
    [
        # 20 classes: 0 is the archive's background, 255 its void border
        ("voc20", [0, 1, 20, 255], [-1, 0, 19, -1]),
        ("voc20", [0, 0, 255], None),
        # the paper's background: everything else, void too; a crop of nothing else is skipped
        ("voc21", [0, 1, 20, 255], [20, 0, 19, 20]),
        ("voc21", [0, 0, 255], None),
        # the usual one: void stays out of it
        ("voc21_standard", [0, 1, 20, 255], [20, 0, 19, -1]),
        # what has no label is background
        ("coco_object", [0, 255, 0], [0, 80, 0]),
        # 16 bits: 255 is a class, and a crop of it alone is skipped, as the released code does
        ("pc459", [0, 1, 256, 65535], [-1, 0, 255, -1]),
        ("pc459", [256, 256], None),
        ("pc459", [0, 0], [-1, -1]),
        ("pc459", [256, 0], [255, -1]),
    ],
)
def test_scored_pixels(benchmark, raw, expected):
    assert truth(benchmark, raw) == expected


@pytest.mark.parametrize(
    ("benchmark", "raw", "expected"),
    [
        ("voc20", [0, 1, 20, 255], [-1, 0, 19, -1]),
        # the background comes first, and every class is one further
        ("voc21", [0, 1, 20, 255], [0, 1, 20, 0]),
        ("voc21_standard", [0, 1, 20, 255], [0, 1, 20, -1]),
        # of 171 classes 80 have names; the stuff after banner (raw 91) is neither
        ("coco_object", [0, 255, 91, 92, 181], [1, 0, 0, -1, -1]),
        ("coco_object_standard", [0, 255, 91, 92, 181], [1, 0, 0, 0, 0]),
        # no image is skipped: one without a scored pixel adds nothing
        ("voc20", [0, 0, 255], [-1, -1, -1]),
        ("voc21", [0, 0, 255], [0, 0, 0]),
    ],
)
def test_scored_pixels_of_whole_pictures(benchmark, raw, expected):
    assert truth(benchmark, raw, "slide") == expected


@pytest.mark.parametrize(
    "benchmark", ["shapes_bg", "voc21", "pc60", "coco_object", "coco_object_standard"]
)
def test_a_vocabulary_of_another_length_is_refused(benchmark, tmp_path):
    """Fewer names must not turn the classes left over into background."""
    (tmp_path / "few.txt").write_text("\n".join(f"name {n}" for n in range(10)))
    few = [f"benchmark={benchmark}", "model=shapes_clip", f"vocabulary={tmp_path / 'few.txt'}"]
    with pytest.raises(
        UserError, match=r"few\.txt: .*\d+ scored classes, but the vocabulary has 10 lines"
    ):
        Target.of(config.resolve(few))


def test_an_unknown_table_is_the_fault_of_the_benchmark():
    run = config.resolve(["benchmark=voc20", "model=shapes_clip"])
    run = changed(run, {"benchmark.labels.map": "voc_to_21"})
    with pytest.raises(UserError, match=r"^benchmark voc20 .*voc20\.yaml\): unknown labels\.map"):
        Target.of(run)


def test_the_paper_s_coco_object_leaves_stuff_unscored():
    paper, usual = (
        truth(name, list(range(182))) for name in ("coco_object", "coco_object_standard")
    )
    assert [paper.count(c) for c in range(80)] == [1] * 80 == [usual.count(c) for c in range(80)]
    assert usual.count(-1) == 0 and usual.count(80) == 182 - 80
    assert paper.count(-1) == 90  # 91 kinds of stuff, less banner, whose number is 80


def test_runs_with_the_same_labels_share_a_target():
    keys = [
        target_key(config.resolve([f"benchmark={name}", f"method={method}", "model=shapes_clip"]))
        for name, method in (("voc20", "clip"), ("voc20", "cliptrase"), ("voc21", "clip"))
    ]
    assert keys[0] == keys[1] != keys[2]


def sample(label, name="photo_7"):
    picture = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    return SimpleNamespace(id=name, image=picture, label=np.full((32, 32), label, np.int32))


class Broken:
    """A dataset whose image cannot be decoded."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, position):
        raise self.error


def test_an_image_is_cropped_and_a_fault_names_it(tmp_path):
    run = config.resolve(["benchmark=voc20", "model=shapes_clip", "image_size=16"])
    loaded = Loader.of([sample(3)], [run])(0)
    assert loaded.shown.pixels.shape == (16, 16, 3)
    assert (loaded.truths[target_key(run)].rows == 2 * 20).all()
    with pytest.raises(UserError, match="dataset voc2012, image photo_7: label 70000"):
        Loader.of([sample(70000)], [run])(0)
    with pytest.raises(UserError, match=r"dataset voc2012, image 4: cannot be read \(cut off"):
        Loader.of(Broken(OSError("cut off")), [run])(4)
    with pytest.raises(UserError, match=r"dataset voc2012, image 4: a\.png: truncated"):
        Loader.of(Broken(UserError("a.png: truncated")), [run])(4)
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is no fault of the image
        Loader.of(Broken(ZeroDivisionError()), [run])(4)


def test_a_fault_in_a_folder_names_the_file_and_what_to_do(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        Image.new("L", (20, 20)).save(tmp_path / name / "a.png")
    (tmp_path / "classes.txt").write_text("grass\n", encoding="utf-8")
    where = [f"benchmark.{name}={tmp_path / name}" for name in ("images", "labels")]
    where += [f"benchmark.classes={tmp_path / 'classes.txt'}", "benchmark.templates=shapes"]
    run = config.resolve(["benchmark=folder", *where, "model=shapes_clip", "image_size=16"])
    with pytest.raises(UserError, match=r"^b/a\.png: truncated$"):
        Loader.of(Broken(UserError("b/a.png: truncated")), [run])(4)
    message = r"^dataset folder, image 4: cannot be read \(cut off\); repair the picture and"
    with pytest.raises(UserError, match=message):  # there is nothing to prepare
        Loader.of(Broken(OSError("cut off")), [run])(4)
    strip = SimpleNamespace(id="strip", image=Image.new("RGB", (2000, 1)), label=None)
    with pytest.raises(UserError, match=r"^dataset folder, image strip: a picture of 2000 × 1"):
        Loader.of([strip], [run])(0)


def test_images_outside_a_subset_are_left_out_of_its_run_alone(tmp_path):
    folder = tmp_path / "prepared" / "coco" / "subsets"
    folder.mkdir(parents=True)
    (folder / "coco27.txt").write_text("photo_7\n", encoding="utf-8")
    digest = hashlib.sha256(b"photo_7\n").hexdigest()
    write_json(folder.parent / SELFCHECK, {"subsets": {"coco27": digest}})
    part, whole = (
        config.resolve(["benchmark=coco27", "model=shapes_clip", "image_size=16", *more])
        for more in ([], ["benchmark.subset=null"])
    )
    assert part.name != whole.name
    loader = Loader.of([sample(3), sample(3, "photo_8")], [part, whole], tmp_path)
    found = [loader(position).truths for position in (0, 1)]
    assert [truths[target_key(part)] is None for truths in found] == [False, True]
    assert [truths[target_key(whole)] is None for truths in found] == [False, False]
    with pytest.raises(UserError, match=r"coco27\.txt: not there.*COCOStuff164kCurated\.tar\.gz"):
        Loader.of([sample(3)], [part], tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("benchmark", "raw", "seen"),
    [
        ("voc20", [0, 1, 20, 255], [-1, 0, 19, -1]),
        # what is ignored is not yet background, which it is where it is scored
        ("voc21", [0, 1, 20, 255], [-1, 0, 19, -1]),
        ("voc21_standard", [0, 1, 20, 255], [20, 0, 19, -1]),
        # stuff that COCO-Object does not score is seen: raw 92 is the stuff after 'banner'
        ("coco_object", [0, 255, 91, 92], [0, -1, 80, 81]),
        # 16 bits: 255 is a class, and 65535 is ignored
        ("pc459", [0, 1, 256, 65535], [-1, 0, 255, -1]),
        ("pc459", [65535, 65535], [-1, -1]),
    ],
)
def test_what_an_oracle_sees(benchmark, raw, seen):
    run = config.resolve([f"benchmark={benchmark}", "model=shapes_clip"])
    found = Target.of(run).seen(np.array(raw), "image 1")
    assert found.tolist() == seen and found.dtype == np.int32


def test_an_oracle_sees_the_cropped_labels_of_its_own_benchmark():
    chosen = ["model=shapes_clip", "image_size=16"]
    oracle = ["method.attention.within=truth", "method.regions.vote=none"]
    runs = [
        config.resolve(["benchmark=voc20", *chosen]),
        config.resolve(["benchmark=voc21_standard", *chosen, *oracle]),
    ]
    wide = sample(3)
    wide.image, wide.label = wide.image.resize((64, 32)), np.full((32, 64), 3, np.int32)
    wide.label[:, 40:] = 0
    wide.label[:, 60:] = 5  # outside the centre crop
    loaded = Loader.of([wide], runs)(0)
    assert list(loaded.shown.truths) == [target_key(runs[1])]
    (seen,) = loaded.shown.truths.values()
    assert seen.shape == (16, 16) and set(np.unique(seen)) == {2, 20}
    assert (seen.ravel() * 21 == loaded.truths[target_key(runs[1])].rows).all()
    assert not Loader.of([wide], runs[:1])(0).shown.truths


def test_more_classes_than_label_maps_hold_are_refused():
    run = config.resolve(["benchmark=ade150"])
    run = changed(run, {"vocabulary.classes.name": "everything", "vocabulary.classes.count": 32768})
    with pytest.raises(UserError, match="everything: 32768 classes; at most 32767 can be scored"):
        target_key(run)
    assert target_key(changed(run, {"vocabulary.classes.count": 32767}))
