"""`cliptrase score`: label maps from files are counted like a run's own, and faults are named."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import confusion_matrix

from cliptrase import cli, config, plan
from cliptrase.data import open_dataset
from cliptrase.data.read.predictions import predictions_digest
from cliptrase.errors import UserError
from cliptrase.evaluate import passes, planned, saved_maps
from cliptrase.evaluate.targets import target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.pipeline.estimate import estimate
from cliptrase.publish.tables import command as tables
from cliptrase.runs import finished
from cliptrase.runs.finished import MAPS, PREDICTED

SLIDE = ["protocol=slide", "protocol.stride=56", "protocol.short_side=160"]
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "score.md").read_text(encoding="utf-8")


def of_files(path, *overrides):
    """A run of label maps, under the settings of `runs_of`."""
    more = ["method=predictions", f"method.path='{path}'", "image_size=112", *overrides]
    run = config.resolve(more)
    return {run.name: run}


def counts(folder):
    """What a run counted, by array."""
    return {
        f"{name} {key}": array
        for name in PREDICTED
        for key, array in np.load(folder / name, allow_pickle=False).items()
    }


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark=shapes", "method=clip"],
        ["benchmark=shapes_bg", "method=cliptrase"],
        ["benchmark=shapes", "method=sclip", *SLIDE],
        ["benchmark=shapes_bg", "method=sclip", *SLIDE],
    ],
    ids=["crop", "background", "slide", "slide, background"],
)
def test_exported_maps_of_a_run_have_its_counts(words, runs_of, make, data, tmp_path, monkeypatch):
    runs = runs_of([*words, "save_maps=9"])
    (made,) = make(runs, tmp_path).values()
    saved_maps.save_maps(runs, out=tmp_path, data=data, device="cpu", workers=1)
    monkeypatch.setattr(passes, "load_clip", None)  # no model is loaded
    monkeypatch.setattr(saved_maps, "load_clip", None)
    settings = [word for word in words if not word.startswith("method")]
    again = of_files(made / MAPS, *settings, "save_maps=9")
    (scored,) = make(again, tmp_path, workers=2).values()
    expected, given = counts(made), counts(scored)
    assert expected.keys() == given.keys() and expected["confusion.npz confusion"].sum() > 60_000
    for key, array in expected.items():
        np.testing.assert_array_equal(given[key], array, err_msg=key)

    saved_maps.save_maps(again, out=tmp_path, data=data, device="cpu", workers=1)
    files = sorted((made / MAPS).iterdir())
    assert [file.read_bytes() for file in sorted((scored / MAPS).iterdir())] == [
        file.read_bytes() for file in files
    ]


@pytest.fixture(scope="session")
def maps(data):
    """Sample id → a label map (224, 224) in 21 classes, for protocol slide of shapes_bg."""
    ids = open_dataset(config.resolve(["benchmark=shapes_bg"]), data).ids
    random = np.random.default_rng(0)
    coarse = random.integers(0, 21, (len(ids), 14, 14))
    return dict(zip(ids, coarse.repeat(16, axis=1).repeat(16, axis=2), strict=True))


def save(folder, maps, kind="png"):
    """Write maps in one of the forms that are read; returns what names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for id, labels in maps.items():
        if kind == "npy":
            np.save(folder / f"{id}.npy", labels.astype(np.int32))
            continue
        image = Image.fromarray(labels.astype(np.uint16 if "16" in kind else np.uint8))
        if kind == "palette":
            image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
        image.save(folder / f"{id}.{'tif' if 'tif' in kind else 'png'}")
    if kind == "npz":
        np.savez_compressed(folder.with_suffix(".npz"), **maps)
        return folder.with_suffix(".npz")
    return folder


KINDS = ["png", "png16", "palette", "tif", "tif16", "npy", "npz"]


def test_every_form_of_file_gives_the_same_counts_as_scikit_learn(maps, make, data, tmp_path):
    words = ["benchmark=shapes_bg", "protocol=slide"]
    runs = [of_files(save(tmp_path / kind, maps, kind), *words) for kind in KINDS]
    names = [next(iter(run)) for run in runs]
    assert len(set(names)) == len(KINDS), "another export is another run"
    matrices = [
        np.load(next(iter(make(run, tmp_path / "out").values())) / "confusion.npz")["confusion"]
        for run in runs
    ]
    (run,) = runs[0].values()
    loader = Loader.of(open_dataset(run, data), [run], data)
    truths = [loader.scored(position).truths[target_key(run)] for position in range(len(maps))]
    assert all(truth.scored is None for truth in truths), "all pixels: flat maps fit"
    expected = confusion_matrix(
        np.concatenate([truth.labels for truth in truths]),
        np.concatenate([labels.ravel() for labels in maps.values()]),
        labels=range(21),
    )
    for matrix in matrices:
        np.testing.assert_array_equal(matrix, expected)


def test_the_identity_is_the_digest_of_the_files(maps, tmp_path):
    folder = save(tmp_path / "mine", maps)
    (run,) = of_files(folder).values()
    assert run.identity["method"] == {
        "name": "predictions",
        "digest": predictions_digest(folder),
    }
    assert "model" not in run.identity and str(tmp_path) not in run.text
    assert re.fullmatch(r"shapes\.predictions\.none\.112\.[0-9a-f]{10}", run.name)
    (other_model,) = of_files(folder, "model=vit_b16").values()
    assert other_model.name == run.name
    moved = folder.rename(tmp_path / "moved")
    assert [*of_files(moved)] == [run.name]
    file = next(moved.iterdir())
    file.rename(moved / "other.png")
    assert [*of_files(moved)] != [run.name]
    for each in config.names("method"):
        if each not in ("outside", "predictions"):
            method = config.resolve([f"method={each}", "model=shapes_clip"]).identity["method"]
            assert not {"path", "digest"} & method.keys()


def test_a_method_of_a_name_of_its_own(maps, tmp_path, monkeypatch):
    (tmp_path / "conf" / "method").mkdir(parents=True)
    file = tmp_path / "conf" / "method" / "theirs.yaml"
    file.write_text(f"name: theirs\npath: {save(tmp_path / 'maps', maps)}\n")
    monkeypatch.setenv(config.files.OWN, str(tmp_path / "conf"))
    run = config.resolve(["method=theirs", "image_size=112"])
    assert re.fullmatch(r"shapes\.theirs\.none\.112\.[0-9a-f]{10}", run.name)
    file.write_text(file.read_text() + "regions: null\n")
    with pytest.raises(UserError, match=r"method\.regions=null: with method\.path no network"):
        config.resolve(["method=theirs"])
    with pytest.raises(UserError, match="`cliptrase score` takes them"):
        config.resolve_settings(["method=predictions", f"method.path={tmp_path / 'maps'}"])


def test_a_row_of_a_table(maps, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, labels in (("ours", maps), ("theirs", {id: maps[id].T for id in maps})):
        save(tmp_path / name, labels)
    for group in ("suite", "table"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    row = {"run": ["method=predictions"], "per_benchmark": {}}
    rows = [
        {**row, "row": name, "run": ["method=predictions", f"method.path={name}"]}
        for name in ("ours", "theirs")
    ]
    table = yaml.safe_load((config.files.CONF / "table" / "table6_metrics_224.yaml").read_text())
    table |= {"title": "Exports", "groups": [{"name": "exports", "rows": rows, "flops": True}]}
    table |= {"quoted": None, "protocol": "slide"}
    suite = yaml.safe_load((config.files.CONF / "suite" / "smoke.yaml").read_text())
    suite |= {"tables": ["exports"], "roles": {"main": ["shapes_bg"]}, "overrides": []}
    suite |= {"pictures": None, "data": str(data)}
    (tmp_path / "conf" / "table" / "exports.yaml").write_text(yaml.safe_dump(table))
    (tmp_path / "conf" / "suite" / "exports.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setenv(config.files.OWN, str(tmp_path / "conf"))

    suite = plan.load("exports")
    names = [*suite.passes]
    cost = estimate(suite, [*suite.passes.values()], 1, "cpu", frozen=False, again=False)
    assert [each.windows for each in cost.passes] == [0, 0]
    assert len(names) == 2, "a bad export costs no other"
    assert all(re.fullmatch(r"shapes\.none\.224\.slide\.[0-9a-f]{10}", name) for name in names)
    for name in names:
        planned.make_pass("exports", name, device="cpu", workers=1)
    tables.main(["exports"])
    frame = pd.read_csv(tmp_path / "results/exports/tables/exports.csv")
    miou = frame[(frame.metric == "mIoU") & (frame.benchmark == "shapes_bg")].set_index("row")
    assert miou.value.notna().all() and miou.ci_low.notna().all()
    assert miou.versus["theirs"] == "ours" and pd.notna(miou.diff_low["theirs"])
    operations = frame[frame.metric == "flops"]
    assert len(operations) and operations.value.isna().all()


# --- faults ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: three pictures, masks of 459 classes, label maps in pred/."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for kind in ("images", "masks", "pred"):
        (tmp_path / kind).mkdir()
    (tmp_path / "words.txt").write_text("".join(f"thing {i}\n" for i in range(459)))
    for name in ("a", "b", "c"):
        picture = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(picture).save(f"images/{name}.png")
        labels = random.integers(0, 459, (40, 60)).astype(np.uint16)
        labels[0, 0], labels[0, 1] = 255, 458
        labels[1] = 65535
        Image.fromarray(labels).save(f"masks/{name}.png")
        Image.fromarray(np.where(labels == 65535, 7, labels)).save(f"pred/{name}.png")
    return tmp_path


SCORE = "score pred --benchmark folder --protocol slide --set benchmark.images=images "
SCORE += "benchmark.labels=masks benchmark.classes=words.txt benchmark.templates=shapes"


def test_255_is_a_class_among_459(folder, capsys):
    cli.main([*shlex.split(SCORE), "limit=2"])
    printed = capsys.readouterr().out
    assert "2 images, rule mmseg" in printed and "mIoU   100.00" in printed
    (run,) = Path("results/runs").iterdir()
    assert np.load(run / "confusion.npz")["confusion"][255, 255] >= 2
    assert finished.damage_of(run) == ""


def spoiled(fault):
    """Spoil pred/b.png; what names the file and the cure."""
    file = Path("pred/b.png")
    labels = np.asarray(Image.open(file))
    bad = "pred/b.png: "
    match fault:
        case "another size":
            Image.fromarray(labels[:20]).save(file)
            return bad + "60 × 20 pixels, but 60 × 40 are scored; resize the logits"
        case "missing":
            file.unlink()
            return "pred: no label map for image b; add pred/b.png"
        case "extra":
            file.with_name("bb.png").write_bytes(file.read_bytes())
            return "pred: bb.png is named by no image of the dataset; did you mean"
        case "twice":
            np.save("pred/b.npy", labels)
            return "pred/b.png: pred/b.npy is a label map of image b too; keep one"
        case "unreadable":
            file.write_bytes(file.read_bytes()[:60])
            return bad + "truncated or damaged"
        case "colours":
            Image.new("RGB", (60, 40)).save(file)
            return bad + "a mask must hold one label a pixel, and this is a picture of mode RGB"
        case "beyond the classes":
            Image.fromarray(labels + np.uint16(1)).save(file)
            return bad + "a scored pixel holds 459; classes are 0 (thing 0) to 458 (thing 458)"
        case "8 bits":
            Image.fromarray(labels.astype(np.uint8)).save(file)
            return bad + "8 bits a pixel cannot hold 459 classes; save it with 16"
        case "floating-point numbers":
            file.unlink()
            np.save("pred/b.npy", labels.astype(np.float32))
            return "pred/b.npy: an array of shape (40, 60) and type float32; give class indices"
        case "pickle":
            file.unlink()
            np.save("pred/b.npy", np.array([[{}]]), allow_pickle=True)
            return "pred/b.npy: truncated or damaged"
        case "negative":
            file.unlink()
            np.save("pred/b.npy", labels.astype(np.int32) - 1)
            return "pred/b.npy: a scored pixel holds -1; classes are"
        case "empty folder":
            for each in Path("pred").iterdir():
                each.unlink()
            return "method.path=pred: no label map in it (.png, .tif, .tiff, .npy)"
        case "no folder":
            Path("pred").rename("elsewhere")
            return "method.path=pred: no such file or folder; give a folder of label maps"
    raise ValueError(fault)


FAULTS = [
    "another size", "missing", "extra", "twice", "unreadable", "colours", "beyond the classes",
    "8 bits", "floating-point numbers", "pickle", "negative", "empty folder", "no folder",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_one_message_names_the_file_and_nothing_is_written(fault, folder, capsys):
    message = spoiled(fault)
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(SCORE))
    printed = capsys.readouterr()
    assert ended.value.code == 1 and not printed.out
    error = printed.err.strip().splitlines()[-1].replace(f"{folder}/", "")
    assert error.startswith("error: ") and message in error, error
    assert "Traceback" not in printed.err
    assert not [file for file in Path("results").rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pred --benchmark shapes", "shapes: not prepared; run `cliptrase prepare shapes"),
        ("pred --benchmark shape", "unknown benchmark 'shape'; did you mean 'shapes'"),
        ("words.txt --benchmark shapes", "words.txt: a file, but no .npz; give a folder"),
        ("bad.npz --benchmark folder " + SCORE.partition("folder ")[2], "bad.npz: "),
        (SCORE.removeprefix("score ").replace("slide", "crop"), "take protocol=slide"),
    ],
)
def test_what_else_is_refused(words, message, folder, capsys):
    Path("bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(SystemExit) as ended:
        cli.main(["score", *shlex.split(words)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and message in error, error


def test_of_a_crop_that_is_not_scored_no_map_is_needed(folder):
    mask = np.full((40, 60), 65535, np.uint16)
    mask[:, :2] = 3  # cut off by the crop
    Image.fromarray(mask).save("masks/b.png")
    for file in Path("pred").iterdir():
        labels = np.asarray(Image.open(file))
        Image.fromarray(labels[:, 10:50]).save(file)
    Path("pred/b.png").unlink()
    crop = SCORE.replace("--protocol slide", "--protocol crop --image-size 40")
    cli.main(shlex.split(crop))
    (run,) = Path("results/runs").iterdir()
    assert np.load(run / "per_image.npz")["skipped"].tolist() == [False, True, False]


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_executed(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "score.md", "exec"), {})
    lines = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    for line in lines:
        words = shlex.split(line.removeprefix("python -m cliptrase.").removeprefix("cliptrase "))
        cli.main(words)
    printed = capsys.readouterr().out
    assert len(lines) == 4 and printed.count("images, rule mmseg") == 4
    assert "minus shapes.predictions.none.224.slide" in printed and "(6 images" in printed
    assert printed.count("was there already") == 1
