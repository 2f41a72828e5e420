"""Many vocabularies in one pass: distractors counted pixel by pixel, each run as alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptrase import cli
from cliptrase.data import open_dataset
from cliptrase.evaluate import saved_maps, sweep, textcache
from cliptrase.evaluate.counting import labels_of
from cliptrase.evaluate.targets import target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.model.load import load_clip
from cliptrase.model.text import text_features
from cliptrase.publish.run_folders import Folder
from cliptrase.publish.run_report import report
from cliptrase.runs import scoring

PAGE = (Path(__file__).resolve().parents[3] / "docs/vocabularies.md").read_text(encoding="utf-8")
IMAGES = 6
WORDS = {
    "released": [],
    "synonyms": ["vocabulary=shapes_objects_synonyms"],
    "one template": ["benchmark.templates=photo"],
    "50": ["distractors=50"],
    "200": ["distractors=200", "protocol.rule=mmseg"],
}
SLIDE = ["protocol=slide", "protocol.stride=56", "protocol.short_side=160", "limit=2"]


@pytest.fixture(scope="module")
def made(runs_of, make, data, tmp_path_factory):
    """name → run and its folder, of all WORDS in one pass; each keeps its label maps."""
    out = tmp_path_factory.mktemp("words")
    found = {}
    for name, words in WORDS.items():
        asked = ["benchmark=shapes_bg", "method=cliptrase", f"save_maps={IMAGES}", *words]
        (found[name],) = runs_of(asked).values()
    runs = {run.name: run for run in found.values()}
    folders = make(runs, out)
    saved_maps.save_maps(runs, out=out, data=data, device="cpu", workers=1)
    return {name: (run, folders[run.name]) for name, run in found.items()}


def by_pixel(run, folder, data):
    """The matrix (K, K + 1) of the kept label maps, one pixel after the other."""
    dataset = open_dataset(run, data)
    loader = Loader.of(dataset, [run], data)
    k = run.vocabulary.classes.count + 1
    matrix = np.zeros((k, k + 1), np.int64)
    for position in range(run.limit or IMAGES):
        loaded = loader(position)
        size = loaded.shown.out_size
        truth = labels_of(loaded.truths[target_key(run)], size).reshape(size)
        labels = np.asarray(Image.open(folder / "maps" / f"{dataset.ids[position]}.png"))
        for true, label in zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if true >= 0:
                matrix[true, label] += 1
    return matrix


@pytest.mark.parametrize("name", ["50", "200"])
def test_a_pixel_that_a_distractor_gets_is_wrong_and_counted_as_lost(name, made, data):
    run, folder = made[name]
    matrix = by_pixel(run, folder, data)
    assert np.array_equal(np.load(folder / "confusion.npz")["confusion"], matrix)
    share = 100 * matrix[:, -1].sum() / matrix.sum()
    assert 0 < share < 100
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["lost"] == pytest.approx(share, abs=1e-6)
    low, high = metrics["ci"]["lost"]
    assert low <= share <= high
    hits, truth, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)[:-1]
    assert metrics["pAcc"] == pytest.approx(100 * hits.sum() / matrix.sum(), abs=1e-6)
    union = truth + predicted - hits
    counted = union > 0 if run.protocol.rule == "mmseg" else truth > 0
    smooth = 0.01 * (run.protocol.rule == "cliptrase")
    iou = 100 * hits[counted] / (union[counted] + smooth)
    assert metrics["mIoU"] == pytest.approx(iou.mean(), abs=1e-6)
    assert metrics["classes"] == len(matrix)
    assert scoring.read_counts(folder).pred.sum() == matrix[:, :-1].sum()


def test_the_legend_and_the_report_name_what_is_no_class(made):
    run, folder = made["50"]
    names = json.loads((folder / "legend.json").read_text())["classes"]
    assert names == [*scoring.class_names(run), "a distractor"]
    facts = report(Folder(folder))
    assert len(facts["classes"]) == len(names) - 1
    assert "no class" in {each["predicted"] for each in facts["confusions"]}


def test_other_words_have_no_share_of_lost_pixels(made):
    for name in ("released", "synonyms", "one template"):
        metrics = json.loads((made[name][1] / "metrics.json").read_text())
        assert "lost" not in metrics and "lost" not in metrics["ci"]


@pytest.mark.parametrize("name", WORDS)
def test_a_run_is_the_same_alone_as_among_other_words(name, made, make, tmp_path):
    run, folder = made[name]
    (alone,) = make({run.name: run}, tmp_path).values()
    for file in ("confusion.npz", "per_image.npz", "metrics.json", "config.yaml"):
        assert (alone / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("batched", [False, True])
def test_under_slide_distractors_come_last_too(batched, runs_of, make, data, tmp_path):
    asked = ["benchmark=shapes_bg", "method=clip", "save_maps=2", "distractors=50", *SLIDE]
    runs = runs_of(asked)
    ((name, run),) = runs.items()
    (folder,) = make(runs, tmp_path, batched=batched, batch_size=3).values()
    saved_maps.save_maps(runs, out=tmp_path, data=data, device="cpu", workers=1)
    matrix = by_pixel(run, folder, data)
    assert matrix[:, -1].any() and not np.load(folder / "per_image.npz")["skipped"].any()
    assert np.array_equal(np.load(folder / "confusion.npz")["confusion"], matrix), name


def test_a_sweep_over_words_is_one_pass(data, tmp_path):
    words = "vocabulary=shapes,shapes_synonyms distractors=0,50 distractor_seed=0,1"
    where = f"data={data} out={tmp_path}"
    points = sweep.listed(shlex.split(f"benchmark=shapes {where} {words}"), multirun=True)
    runs = sweep.wanted(points)
    assert len(points) == 8 and sweep.together(runs, points) == [points]
    assert len({run.name for run in runs}) == 2 * 3  # without distractors a seed is nothing


def test_a_name_is_encoded_once_for_all_vocabularies_of_a_pass(runs_of, tmp_path, monkeypatch):
    asked: list[str] = []

    def counted(clip, names, templates, workers):
        asked.extend(names)
        return text_features(clip, names, templates, workers)

    monkeypatch.setattr(textcache, "text_features", counted)
    lists = [["benchmark=shapes", *words] for words in ([], ["distractors=3"], ["distractors=5"])]
    runs = list(runs_of(*lists).values())
    clip, encoded = load_clip(runs[0].model), {}
    texts = [textcache.text_of(run, clip, tmp_path / "data", 1, encoded) for run in runs]
    assert len(asked) == len(set(asked)) == 27 + 5
    for run, (key, text) in zip(runs, texts, strict=True):
        alone_key, alone = textcache.text_of(run, clip, tmp_path / "alone")
        assert key == alone_key
        assert np.array_equal(text.features.numpy(), alone.features.numpy())
        count = run.vocabulary.distractors.count if run.vocabulary.distractors else 0
        assert text.owner.tolist() == [*range(27), *[27] * count]


def test_the_page_is_executed(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    own, drawn = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(own, "vocabularies.md", "exec"), {})
    for line in commands.splitlines():
        cli.main(shlex.split(line.removeprefix("cliptrase ")))
    printed = capsys.readouterr().out
    assert len(list(Path("results/runs").iterdir())) == 12
    assert printed.count("(6 images") == 13 and printed.count("was there already") == 1
    assert printed.count("  lost  ") == 6 + 1
    assert {each["runs_in_pass"] for each in map(made_by, Path("results/runs").iterdir())} == {12}
    exec(compile(drawn, "vocabularies.md", "exec"), {})
    assert capsys.readouterr().out.count("'") == 2 * 5


def made_by(folder):
    return json.loads((folder / "provenance.json").read_text())
