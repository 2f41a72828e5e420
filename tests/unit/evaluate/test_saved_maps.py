"""Label maps that runs keep: what their pixels say, when they are made, what they leave alone."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.errors import UserError
from cliptrase.evaluate import __main__ as command
from cliptrase.evaluate import passes, planned, saved_maps
from cliptrase.evaluate.targets import target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.plan import Pass, Plan
from cliptrase.publish.results import Shelf
from cliptrase.runs import finished, label_files, store
from cliptrase.runs.finished import LEGEND, MAPS, status
from cliptrase.runs.label_files import labels_png, legend_png

CLIPTRASE = ["benchmark=shapes_bg", "method=cliptrase"]
SLIDE = ["protocol=slide", "protocol.stride=56", "protocol.short_side=160"]
FINE = ["method.regions.eps=0.5", "method.regions.min_samples=1", "protocol.rule=mmseg"]


@pytest.fixture(scope="session")
def keep(data):
    """keep(runs, out): the label maps of finished runs, on the CPU with one thread."""

    def kept(runs, out, **options):
        saved_maps.save_maps(
            runs, out=out, **({"data": data, "device": "cpu", "workers": 1} | options)
        )

    return kept


def maps_of(folder):
    """Sample id → labels (H, W)."""
    files = (folder / MAPS).rglob("*.png")
    return {file.stem: np.asarray(Image.open(file)) for file in files}


def contents(folder):
    """File → bytes, of all but provenance.json."""
    files = (
        file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json"
    )
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def recounted(run, folder, data):
    """The confusion matrix of the maps, by scikit-learn; another column for what is no class."""
    dataset = open_dataset(run, data)
    loader, maps = Loader.of(dataset, [run], data), maps_of(folder)
    truth, predicted = [], []
    for position, name in enumerate(dataset.ids):
        if name in maps:
            scored = loader(position).truths[target_key(run)]
            here = slice(None) if scored.scored is None else scored.scored
            truth.append(scored.labels)
            predicted.append(maps[name].ravel()[here])
    k = len(json.loads((folder / "legend.json").read_text())["classes"])
    none = 255 if k <= 255 else 65535
    labels = [*range(k), none]
    return confusion_matrix(np.concatenate(truth), np.concatenate(predicted), labels=labels)[:k]


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark=shapes", "method=clip"],
        CLIPTRASE,
        ["benchmark=shapes", "method=sclip", *SLIDE],
        ["benchmark=shapes_bg", "method=sclip", *SLIDE],
        ["method=cliptrase", "method.attention.within=truth", "method.regions.vote=none"],
    ],
    ids=["crop", "background", "slide", "slide, background", "oracle"],
)
def test_maps_have_the_counts_of_a_run_on_their_pictures(
    words, runs_of, make, keep, data, tmp_path
):
    (run,) = (runs := runs_of([*words, "save_maps=3"])).values()
    (folder,) = make(runs, tmp_path, workers=2).values()
    keep(runs, tmp_path, workers=2)
    (first,) = make(runs_of([*words, "limit=3"]), tmp_path).values()
    maps = maps_of(folder)
    assert [*maps] == sorted(maps) or len(maps) == 3
    side = 224 if "protocol=slide" in words else 112
    assert {each.shape for each in maps.values()} == {(side, side)}
    matrix = recounted(run, folder, data)
    assert not matrix[:, -1].any()
    np.testing.assert_array_equal(matrix[:, :-1], np.load(first / "confusion.npz")["confusion"])
    assert len(np.unique(np.stack(list(maps.values())))) > 3


@pytest.mark.parametrize("clusters", [[], ["method.unsupervised.clusters=40"]])
def test_maps_of_an_unsupervised_run_have_the_classes_that_its_clusters_got(
    clusters, runs_of, make, keep, data, tmp_path
):
    words = ["benchmark=shapes", "method=cliptrase_unsupervised", *FINE, *clusters]
    (run,) = (runs := runs_of([*words, "save_maps=9"])).values()
    (folder,) = make(runs, tmp_path).values()
    keep(runs, tmp_path)
    matrix = recounted(run, folder, data)
    expected = np.load(folder / "confusion.npz")["confusion"]
    np.testing.assert_array_equal(matrix[:, : expected.shape[1]], expected)
    assert bool(matrix[:, -1].any()) == bool(clusters)
    (folder / "metrics.json").unlink()
    assert not store.rescore(runs, tmp_path, data)
    assert status(run, tmp_path, data).state == "maps", "classes are of the scores"


def test_maps_are_the_same_in_company(runs_of, make, keep, tmp_path):
    words = [*CLIPTRASE, "save_maps=2"]
    runs = runs_of(
        words,
        ["benchmark=shapes", "method=cliptrase", "save_maps=4"],
        [*CLIPTRASE, "method.regions.vote=none", "save_maps=1"],
        ["benchmark=shapes", "method=clip"],
    )
    folders = make(runs, tmp_path / "all")
    keep(runs, tmp_path / "all", workers=3)
    assert [len(maps_of(folder)) for folder in folders.values()] == [2, 4, 1, 0]
    (name,) = (alone := runs_of(words))
    (folder,) = make(alone, tmp_path).values()
    keep(alone, tmp_path)
    assert contents(folder) == contents(folders[name])


def test_maps_change_nothing_of_the_run(runs_of, make, keep, tmp_path):
    (name, plain), (other, asked) = (
        next(iter(runs_of([*CLIPTRASE, *more]).items())) for more in ([], ["save_maps=2"])
    )
    assert name == other and plain.identity == asked.identity and plain.text == asked.text
    (folder,) = make({name: plain}, tmp_path).values()
    before = contents(folder)
    assert status(plain, tmp_path, "-").finished
    lacking = status(asked, tmp_path, "-")
    assert lacking.state == "maps" and lacking.scored and not lacking.finished
    assert lacking.reason == "it keeps 0 label maps, and save_maps=2 asks for more"
    keep({name: asked}, tmp_path)
    after = contents(folder)
    assert {file: after[file] for file in before} == before
    added = {f"{MAPS}/{file}.png" for file in ("000:scene_0", "001:scene_1")} | {*LEGEND}
    assert after.keys() - before.keys() == added
    assert status(asked, tmp_path, "-").finished and status(plain, tmp_path, "-").finished


@pytest.fixture
def kept(runs_of, make, keep, tmp_path):
    """A run that keeps two label maps, and its folder."""
    (run,) = (runs := runs_of(["benchmark=shapes", "method=clip", "save_maps=2"])).values()
    (folder,) = make(runs, tmp_path).values()
    keep(runs, tmp_path)
    return run, folder


def asking(run, count):
    return run.model_copy(update={"save_maps": count})


@pytest.mark.parametrize("file", [f"{MAPS}/001:scene_1.png", *LEGEND])
@pytest.mark.parametrize("content", [None, b"edited"])
def test_a_lost_or_edited_map_is_made_again_where_it_is_asked_for(
    file, content, kept, keep, tmp_path
):
    run, folder = kept
    before = contents(folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    fault = "is missing" if content is None else "is not what was written"
    assert status(run, tmp_path, "-") == finished.Status("maps", f"{file} {fault}")
    assert status(asking(run, 0), tmp_path, "-").finished, "nobody asks"
    keep({run.name: run}, tmp_path)
    assert contents(folder) == before and status(run, tmp_path, "-").finished


def test_maps_stay_with_the_numbers(kept, keep, make, tmp_path):
    run, folder = kept
    before = contents(folder)
    assert status(asking(run, 1), tmp_path, "-").finished
    assert status(asking(run, 3), tmp_path, "-").state == "maps"
    (folder / "metrics.json").unlink()
    assert not store.rescore({run.name: run}, tmp_path, "-")
    assert contents(folder) == before and status(run, tmp_path, "-").finished

    (folder / "confusion.npz").write_bytes(b"")
    make({run.name: asking(run, 0)}, tmp_path)
    assert not (folder / MAPS).exists(), "new numbers have no maps of old ones"
    assert status(run, tmp_path, "-").state == "maps"


def test_a_folder_that_lost_its_configuration_is_still_a_run_s(kept, tmp_path):
    run, folder = kept
    (folder / "config.yaml").unlink()
    (folder / "provenance.json").unlink()
    assert finished.unwritten(folder, run) == "config.yaml is missing"


def test_more_maps_than_pictures_are_all_of_them(kept, keep, tmp_path):
    run = asking(kept[0], 100)
    keep({run.name: run}, tmp_path)
    assert len(maps_of(kept[1])) == 6
    assert status(run, tmp_path, "-").finished and status(kept[0], tmp_path, "-").finished


def test_maps_that_were_not_all_written_are_not_kept(kept, keep, tmp_path, monkeypatch):
    run, written = asking(kept[0], 4), []

    def full(path):
        written.append(path.name)
        if len(written) == 4:
            raise UserError("no space left on the disk")
        return atomic_write(path)

    atomic_write = saved_maps.atomic_write
    with monkeypatch.context() as patched:
        patched.setattr(saved_maps, "atomic_write", full)
        with pytest.raises(UserError, match="no space"):
            keep({run.name: run}, tmp_path)
    assert status(run, tmp_path, "-").state == "maps"
    assert status(kept[0], tmp_path, "-").finished, "the two that were there"
    keep({run.name: run}, tmp_path)
    assert status(run, tmp_path, "-").finished and len(maps_of(kept[1])) == 4


# --- files ----------------------------------------------------------------------------------------


def opened(content):
    return Image.open(io.BytesIO(content))


def test_the_values_of_a_paletted_png_are_the_labels_and_its_colours_those_of_the_legend(kept):
    _, folder = kept
    said = json.loads((folder / "legend.json").read_text())
    assert said["background"] is None and len(said["classes"]) == 27
    legend = np.asarray(Image.open(folder / "legend.png").convert("RGB")).reshape(-1, 3)
    shown = {tuple(colour) for colour in np.unique(legend, axis=0).tolist()}
    seen = set()
    for file in (folder / MAPS).iterdir():
        with Image.open(file) as image:
            assert image.mode == "P" and file.read_bytes()[24] == 8, "bits a pixel"
            seen |= {tuple(colour) for _, colour in image.convert("RGB").getcolors()}
    assert 3 < len(seen) <= 27 and seen <= shown


@pytest.mark.parametrize(("classes", "kind"), [(255, "uint8"), (256, "uint16"), (847, "uint16")])
def test_no_class_is_lost_among_many(classes, kind):
    labels = np.array([[0, 254, classes - 1]])
    table = label_files.colours(classes)
    for colours in (None, table):
        with opened(labels_png(labels, classes, colours)) as image:
            paletted = colours is not None and kind == "uint8"
            assert image.mode == ("P" if paletted else {"uint8": "L", "uint16": "I;16"}[kind])
            values = np.asarray(image)
            assert values.dtype == kind and values.tolist() == labels.tolist()
            if paletted:
                rgb = np.asarray(image.convert("RGB"))
                np.testing.assert_array_equal(rgb, table[labels])


def test_a_legend_names_what_occurs_and_no_other():
    names = [f"class {number}" for number in range(847)]
    few, all_of_them = (opened(legend_png(some, names, None)) for some in ([3, 255], range(847)))
    assert few.width == all_of_them.width == label_files.WIDTH
    assert few.height < 60 and all_of_them.height > 100 * few.height / 2
    assert opened(legend_png([], names, None)).height < few.height
    wordy = [f"class {number}, which has some more names" * 9 for number in range(847)]
    assert opened(legend_png(range(847), wordy, None)).height < 2 * all_of_them.height


@pytest.fixture
def folder847(tmp_path):
    """Overrides of a benchmark of 847 classes on three pictures, of which the first has no pixel
    that is scored."""
    rng = np.random.default_rng(5)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number, name in enumerate(("legend", "b", "c")):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((112, 112)).save(tmp_path / "images" / f"{name}.png")
        mask = np.repeat(np.repeat(rng.integers(0, 847, (7, 7)), 16, 0), 16, 1).astype(np.uint16)
        mask[:16, :16] = 255
        mask = np.full_like(mask, 65535) if number == 1 else mask
        Image.fromarray(mask).save(tmp_path / "labels" / f"{name}.png")
    lines = "".join(f"thing {number}\n" for number in range(847))
    (tmp_path / "names.txt").write_text(lines)
    places = {"images": "images", "labels": "labels", "classes": "names.txt"}
    where = [f"benchmark.{key}={tmp_path / place}" for key, place in places.items()]
    return ["benchmark=folder", "benchmark.templates=shapes", *where, "method=clip"]


def test_maps_of_847_classes(folder847, runs_of, make, keep, data, tmp_path):
    (run,) = (runs := runs_of([*folder847, "save_maps=2"])).values()
    out = tmp_path / "runs"
    (folder,) = make(runs, out).values()
    keep(runs, out)
    maps = maps_of(folder)
    assert maps.keys() == {"c", "legend"}, "the first two that are scored; no name is taken"
    labels = np.stack(list(maps.values()))
    assert labels.dtype == np.uint16 and labels.max() > 255
    matrix = recounted(run, folder, data)
    assert matrix[255].sum() > 0, "255 is a class"
    np.testing.assert_array_equal(matrix[:, :-1], np.load(folder / "confusion.npz")["confusion"])
    said = json.loads((folder / "legend.json").read_text())
    assert said == {"classes": [f"thing {n}" for n in range(847)], "background": None}


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture
def words(model, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["model=local", f"model.path={model}", "image_size=112", "limit=2"]
    return [*small, f"data={data}", "out=runs", "device=cpu", "workers=1"]


def kept_maps():
    return {path.name.split(".")[1]: len(maps_of(path)) for path in Path("runs").iterdir()}


def test_evaluate_keeps_maps_also_of_runs_that_are_there(words, capsys, monkeypatch):
    command.main(["-m", *words, "method=clip,sclip", "save_maps=1"])
    assert kept_maps() == {"clip": 1, "sclip": 1}
    command.main([*words, "method=clearclip"])
    assert kept_maps()["clearclip"] == 0
    monkeypatch.setattr(passes._Pass, "make", pytest.fail)  # no images for numbers
    command.main(["-m", *words, "method=clip,clearclip", "save_maps=2"])
    assert kept_maps() == {"clip": 2, "sclip": 1, "clearclip": 2}
    monkeypatch.setattr(saved_maps, "load_clip", pytest.fail)
    capsys.readouterr()
    command.main(["-m", *words, "method=clip,clearclip", "save_maps=2"])
    assert capsys.readouterr().out.count("was there already") == 2


@pytest.mark.parametrize("value", ["-1", "abc", "1.5", "true", "null"])
def test_what_is_no_number_of_maps_is_refused(value, words, capsys):
    with pytest.raises(SystemExit):
        command.main([*words, "method=clip", f"save_maps={value}"])
    told = f"error: save_maps={value}: must be a whole number, 0 or more\n"
    assert capsys.readouterr().err == told and not Path("runs").exists()


def test_a_planned_pass_keeps_the_maps_of_its_suite(runs_of, data, tmp_path, monkeypatch):
    """Of runs that are finished too; and it is stale until then."""
    asked = []

    def load(suite, save_maps=None):
        asked.append(save_maps)
        runs = runs_of(
            *([f"method={name}", f"save_maps={save_maps or 0}"] for name in ("clip", "sclip"))
        )
        one = Pass("a.pass", "shapes", "local", 112, "crop", runs)
        return Plan(suite, "Small", False, {one.name: one}, {}, runs)

    monkeypatch.setattr(planned.plan, "load", load)
    words = ["small", "a.pass", "--out", str(tmp_path), "--data", str(data), "--device", "cpu"]
    planned.main([*words, "--workers", "1"])
    file, out = finished.pass_file("small", "a.pass", tmp_path), tmp_path / "runs"
    assert not finished.stale_pass(file, load("small").runs, out, data)
    runs = load("small", 1).runs
    assert "save_maps=1 asks for more" in finished.stale_pass(file, runs, out, data)
    assert len(Shelf(load("small", 1), tmp_path, data).find_all([*runs])[0]) == 2, "numbers stand"
    before = file.read_bytes()
    planned.main([*words, "--workers", "1", "--save-maps", "1"])
    assert not finished.stale_pass(file, runs, out, data) and file.read_bytes() == before
    assert [len(maps_of(out / name)) for name in runs] == [1, 1]
    assert asked == [None, None, 1, 1, 1]


def test_nothing_but_the_maps_asks_for_them():
    plain, asked = (config.resolve(["benchmark=voc20", *more]) for more in ([], ["save_maps=4"]))
    assert plain.save_maps == 0 and asked.save_maps == 4 and plain.name == asked.name
