"""`cliptrase show` and `compare`: what they say of runs, computed again another way."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score
from tests.provenance import change_provenance

from cliptrase import cli
from cliptrase.config.metric_names import METRICS
from cliptrase.files import sha256_file
from cliptrase.publish.compare import paired_difference
from cliptrase.publish.results import FinishedRun
from cliptrase.publish.run_folders import Folder, find_run, found_folders, run_folders
from cliptrase.publish.run_pairs import compare
from cliptrase.publish.run_report import report
from cliptrase.runs import bootstrap, store

WORDS = {
    "clip": ["method=clip"],
    "sclip": ["method=sclip"],
    "mmseg": ["method=sclip", "protocol.rule=mmseg"],
    "background": ["benchmark=shapes_bg", "method=clip"],
    "clusters": [
        "method=cliptrase_unsupervised",
        "method.unsupervised.clusters=30",
        "method.regions.eps=0.5",
        "method.regions.min_samples=1",
    ],
    "slide": ["method=clip", "protocol=slide", "protocol.stride=56"],
    "fewer": ["method=clip", "limit=3"],
    "larger": ["method=clip", "image_size=128"],
}


@pytest.fixture(scope="module")
def results(runs_of, make, tmp_path_factory):
    """A results folder with a run of each of WORDS."""
    folder = tmp_path_factory.mktemp("results")
    for overrides in WORDS.values():
        make(runs_of(overrides), folder / "runs")
    return folder


@pytest.fixture(scope="module")
def runs(runs_of, results):
    """word → the run's folder."""
    return {
        word: Folder(results / "runs" / name)
        for word, overrides in WORDS.items()
        for name in runs_of(overrides)
    }


@pytest.fixture
def copies(results, tmp_path):
    """A copy of the results, for a test that spoils them."""
    return Path(shutil.copytree(results, tmp_path / "results"))


def pixels(folder):
    """The true and the predicted class of each scored pixel, from confusion.npz."""
    with np.load(folder.path / "confusion.npz") as file:
        matrix = file["confusion"]
    pairs = np.argwhere(matrix)
    often = matrix[matrix > 0]
    return matrix, *(np.repeat(pairs[:, place], often) for place in (0, 1))


@pytest.mark.parametrize("word", ["clip", "mmseg", "background", "clusters", "slide"])
def test_scores_are_those_of_scikit_learn(word, runs):
    matrix, truth, predicted = pixels(runs[word])
    classes = len(matrix)
    labels = np.arange(classes)
    has_truth = np.isin(labels, truth)
    either = has_truth | np.isin(labels, predicted)
    square = confusion_matrix(truth, predicted, labels=np.arange(matrix.shape[1]))[:classes]
    np.testing.assert_array_equal(square, matrix)
    iou = 100 * jaccard_score(truth, predicted, labels=labels, average=None, zero_division=0)
    recall = 100 * recall_score(truth, predicted, labels=labels, average=None, zero_division=0)
    share = np.bincount(truth, minlength=classes) / len(truth)
    accuracy = 100 * accuracy_score(truth, predicted)
    smooth_iou, smooth_recall = [], []
    for each in labels:
        hit = int(((truth == each) & (predicted == each)).sum())
        in_truth, found = int((truth == each).sum()), int((predicted == each).sum())
        smooth_iou.append(100 * hit / (in_truth + found - hit + 0.01))
        smooth_recall.append(100 * hit / (in_truth + 0.01))
    smooth = np.where(has_truth, smooth_iou, 0)
    expected = {
        "cliptrase": [
            accuracy,
            np.mean(smooth_recall),
            (share * smooth).sum(),
            smooth[has_truth].mean(),
        ],
        "mmseg": [accuracy, recall[has_truth].mean(), share @ iou, iou[either].mean()],
        "detectron2": [accuracy, recall[has_truth].mean(), share @ iou, iou[has_truth].mean()],
        "detectron2_v06": [
            accuracy,
            recall[has_truth].mean(),
            share @ iou,
            iou[has_truth].sum() / either.sum(),
        ],
    }
    facts = report(runs[word])
    assert facts["scores"].keys() == expected.keys()
    for rule, values in expected.items():
        shown = [facts["scores"][rule][metric][0] for metric in ("pAcc", "mAcc", "fwIoU", "mIoU")]
        assert shown == pytest.approx(values, abs=1e-9), rule
    own = facts["scores"][facts["rule"]]
    metrics = store.read_metrics(runs[word].path)
    for metric in METRICS:
        assert own[metric] == pytest.approx([metrics[metric], *metrics["ci"][metric]], abs=1e-6)


def resampled_by_hand(run, rule, metric):
    """A metric of 1,000 resamples of the images, one after the other, in per cent."""
    with np.load(run.path / "per_image.npz") as file:
        hit, truth, predicted = (file[key].astype(float) for key in ("tp", "gt", "pred"))
    values = []
    for often in bootstrap.weights(len(hit)):
        h, t, p = (
            sum(count * row for count, row in zip(often, rows, strict=True))
            for rows in (hit, truth, predicted)
        )
        if metric == "pAcc":
            values.append(100 * h.sum() / t.sum())
            continue
        counted = t + p > 0 if rule == "mmseg" else t > 0
        smooth = 0.01 if rule == "cliptrase" else 0.0
        values.append(100 * np.mean((h / np.maximum(t + p - h + smooth, 1e-9))[counted]))
    return np.array(values)


@pytest.mark.parametrize("rule", ["mmseg", "detectron2", "cliptrase"])
def test_the_interval_of_each_rule_is_its_own(rule, runs):
    values = resampled_by_hand(runs["clip"], rule, "mIoU")
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    point, *span = report(runs["clip"])["scores"][rule]["mIoU"]
    assert span == pytest.approx([max(0, point + low - middle), point + high - middle], abs=1e-9)


@pytest.mark.parametrize("word", ["clip", "background", "clusters"])
def test_the_worst_confusions(word, runs):
    matrix, *_ = pixels(runs[word])
    names = [*runs[word].names, "no class"]
    pairs = [
        (int(matrix[row, column]), names[row], names[column], 100 * matrix[row, column] / total)
        for row, total in enumerate(matrix.sum(axis=1))
        for column in range(matrix.shape[1])
        if row != column and matrix[row, column]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    shown = report(runs[word])["confusions"]
    assert [each["pixels"] for each in shown] == [pair[0] for pair in pairs[:10]]
    for each in shown:
        told = (each["pixels"], each["truth"], each["predicted"], pytest.approx(each["share"]))
        assert told in pairs


def test_show_prints_scores_classes_and_command(runs, results, capsys):
    cli.main(["show", runs["clip"].path.name, "--results", str(results)])
    lines = capsys.readouterr().out.splitlines()
    metrics = store.read_metrics(runs["clip"].path)
    low, high = metrics["ci"]["mIoU"]
    (own,) = (line for line in lines if line.startswith("cliptrase *"))
    assert own.endswith(f"{metrics['mIoU']:.2f} [{low:.2f}, {high:.2f}]")
    start = next(place for place, line in enumerate(lines) if line.startswith("class "))
    table = lines[start + 1 : start + 1 + len(metrics["iou"])]
    values = [line.split()[-5] for line in table]
    numbers = [float(value) for value in values if value != "–"]
    assert numbers == sorted(numbers, reverse=True) and values[len(numbers) :].count("–") > 0
    assert len(numbers) + values.count("–") == len(metrics["iou"])
    assert float(table[0].split()[-5]) == pytest.approx(
        max(each["value"] or 0 for each in metrics["iou"]), abs=0.05
    )
    assert "words: classes shapes (27), templates shapes (7)" in lines
    assert lines[-1].strip().startswith("python -m cliptrase.evaluate model=local ")


def test_show_json_is_all_of_it(runs, results, capsys):
    cli.main(["show", str(runs["slide"].path), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(json.dumps(report(runs["slide"])))
    assert facts["words"]["classes"][:3] == ["zebra", "tiger", "cow"]
    assert facts["config"]["protocol"]["name"] == "slide"


def finished(folder):
    return FinishedRun(
        folder.path.name,
        folder.path,
        store.read_metrics(folder.path),
        sha256_file(folder.path / "metrics.json"),
        "",
        "",
        {},
    )


@pytest.mark.parametrize(
    "pair", [("sclip", "clip"), ("clip", "sclip"), ("clusters", "clip"), ("mmseg", "sclip")]
)
def test_differences_are_those_of_the_tables_and_of_a_bootstrap_by_hand(pair, runs):
    run, other = (runs[word] for word in pair)
    facts = compare(run, other)
    alike = run.metrics["rule"] == other.metrics["rule"]
    for metric in METRICS if alike else ():
        expected = paired_difference([finished(run)], [finished(other)], metric)
        value, theirs, *gap = facts["metrics"][metric]
        assert gap == pytest.approx(expected, abs=2e-6)  # metrics.json has six digits
        assert value - theirs == pytest.approx(gap[0], abs=1e-12)
    rule = run.metrics["rule"]
    for metric in ("pAcc", "mIoU"):
        values = [resampled_by_hand(each, rule, metric) for each in (run, other)]
        low, middle, high = np.quantile(values[0] - values[1], [0.025, 0.5, 0.975])
        gap, *span = facts["metrics"][metric][2:]
        assert span == pytest.approx([gap + low - middle, gap + high - middle], abs=1e-9)


def test_images_and_classes_that_move_most(runs):
    run, other = runs["sclip"], runs["clip"]
    facts = compare(run, other)
    own: dict[str, list[float]] = {}
    for each in (run, other):
        with np.load(each.path / "per_image.npz") as file:
            for name, hits, truth, predicted in zip(
                *(file[key].tolist() for key in ("ids", "tp", "gt", "pred")), strict=True
            ):
                ious = [
                    100 * h / (t + p - h + 0.01)
                    for h, t, p in zip(hits, truth, predicted, strict=True)
                    if t
                ]
                own.setdefault(name, []).append(sum(ious) / len(ious))
    images = facts["by_image"]
    assert {each["name"] for each in images} == own.keys()
    for each in images:
        value, theirs = own[each["name"]]
        assert each["value"] == pytest.approx(value) and each["other"] == pytest.approx(theirs)
        assert each["difference"] == pytest.approx(value - theirs)
    gaps = [abs(each["difference"]) for each in images]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0
    ious = [{each["name"]: each["value"] for each in run.metrics["iou"]} for run in (run, other)]
    for each in facts["classes"]:
        for key, values in zip(("value", "other"), ious, strict=True):
            expected = values[each["name"]]
            assert each[key] == (None if expected is None else pytest.approx(expected, abs=1e-6))
    moves = [each["difference"] for each in facts["classes"]]
    known = [abs(move) for move in moves if move is not None]
    assert known == sorted(known, reverse=True) and None not in moves[: len(known)]


def test_compare_prints_what_is_significant(runs, results, capsys):
    words = ["compare", str(runs["sclip"].path), str(runs["clip"].path)]
    cli.main(words)
    out = capsys.readouterr().out
    facts = compare(runs["sclip"], runs["clip"])
    for metric, (value, other, gap, low, high) in facts["metrics"].items():
        (line,) = (line for line in out.splitlines() if line.startswith(f"{metric} "))
        assert line.split()[1:4] == [f"{value:.2f}", f"{other:.2f}", f"{gap:+.2f}"]
        assert line.endswith("significant") == (not low <= 0 <= high)
    cli.main([*words, "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(facts))


def test_a_run_is_no_better_than_itself(runs, results, capsys):
    same = compare(runs["clip"], runs["clip"])
    assert all(gap[2:] == [0, 0, 0] for gap in same["metrics"].values()) and not same["notes"]
    cli.main(["compare", str(runs["clip"].path), str(runs["clip"].path)])
    out = capsys.readouterr().out
    assert "significant" not in out and out.count(": none\n") == 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("fewer", "are of other images"),
        ("background", "have other classes"),
        ("larger", "have another ground truth"),
        ("slide", "have another ground truth"),
    ],
)
def test_runs_that_cannot_be_compared(word, reason, runs, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(runs["clip"].path), str(runs[word].path), "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and not out
    assert reason in err and err.startswith("error: ") and err.count("\n") == 1


def test_notes_of_what_else_differs(runs, copies):
    other = copies / "runs" / runs["sclip"].path.name
    made = json.loads((other / "provenance.json").read_text())
    change_provenance(
        other, code="f" * 64, versions=made["versions"] | {"torch": "1.0"}, data="other"
    )
    notes = compare(runs["clip"], Folder(other))["notes"]
    torch = json.loads((runs["clip"].path / "provenance.json").read_text())["versions"]["torch"]
    assert f"made with torch {torch} and 1.0" in notes
    assert f"made by different code, {made['code'][:10]} and {'f' * 10}" in notes
    assert "made from other pictures or labels" in notes and len(notes) == 3
    assert compare(runs["mmseg"], runs["sclip"])["notes"] == [
        "the second run's own rule is cliptrase"
    ]


def test_another_list_of_names_is_compared_with_a_note(runs, runs_of, make, tmp_path):
    names = list(runs["clip"].names)
    words = tmp_path / "mine.txt"
    words.write_text("\n".join(["striped horse", *names[1:]]) + "\n")
    (folder,) = make(runs_of(["method=clip", f"vocabulary={words}"]), tmp_path / "runs").values()
    facts = compare(runs["clip"], Folder(folder))
    assert facts["notes"] == [
        "the second run has other names of classes: zebra is striped horse",
    ]


def test_a_run_is_found_by_folder_name_and_part(runs, results, monkeypatch):
    path = runs["slide"].path.resolve()
    for word in (str(path), f"{path}/", path.name, path.name[:-11], ".slide.stri", path.name[-10:]):
        assert find_run(results, word).path == path, word
    assert find_run(path.parent, path.name).path == path  # `out=` wrote runs into a folder
    assert found_folders(path.parent) == run_folders(results)
    monkeypatch.chdir(path.parent)
    assert find_run(results, f"./{path.name}").path == path


@pytest.mark.parametrize("command", ["show", "repeat"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("local.112", " runs have it in their names: "),
        ("nothing", "no such run in "),
        (".", "this folder holds no run"),
        ("shapes.clip.local.112.limit-4", "did you mean 'shapes.clip.local.112.limit-3."),
    ],
)
def test_no_run_or_several(command, word, reason, results, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, word, "--results", str(results)])
    err = capsys.readouterr().err
    assert ended.value.code == 1 and reason in err
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1000


def test_no_results_folder(tmp_path, capsys):
    for words in (["show", "x"], ["compare", "x", "y"], ["repeat", "x"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--results", str(tmp_path / "none")])
        assert capsys.readouterr().err.endswith("/none/runs; there is none\n")
    cli.main(["list", "runs", "--results", str(tmp_path / "none")])
    assert capsys.readouterr().out == ""
    cli.main(["list", "runs", "--results", str(tmp_path / "none"), "--json"])
    assert capsys.readouterr().out == "[]\n"


FILES = ["metrics.json", "confusion.npz", "per_image.npz", "config.yaml", "provenance.json"]


@pytest.mark.parametrize(("file", "how"), [*itertools.product(FILES, ["lost", "cut"])])
def test_a_damaged_run_is_named_and_costs_no_other(file, how, runs, copies, capsys):
    folder = copies / "runs" / runs["clip"].path.name
    content = (folder / file).read_bytes()
    if how == "cut":
        (folder / file).write_bytes(content[: len(content) // 2])
    else:
        (folder / file).unlink()
    with pytest.raises(SystemExit):
        cli.main(["show", folder.name, "--results", str(copies)])
    err = capsys.readouterr().err
    assert f"{folder.name}: {file} is " in err and "delete it and make the run again" in err
    cli.main(["list", "runs", "--results", str(copies), "--json"])
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed.keys() == {run.path.name for run in runs.values()}
    assert [name for name, each in listed.items() if "damage" in each] == [folder.name]
    cli.main(["list", "runs", "--results", str(copies)])
    assert f"  damaged: {file} is " in capsys.readouterr().out


def test_names_of_others_cannot_steer_the_terminal(runs, copies, capsys):
    """Class names and ids of images are the user's, and pass through a run's files."""
    evil, shown = "\x1b[31m<script>\u202e\"'$&%", "\\x1b[31m<script>\\u202e\"'$&%"
    pair = [copies / "runs" / runs[word].path.name for word in ("clip", "sclip")]
    for folder in pair:
        metrics = store.read_metrics(folder)
        for each in metrics["iou"]:
            each["name"] = evil
        (folder / "metrics.json").write_text(json.dumps(metrics))
        with np.load(folder / "per_image.npz") as file:
            arrays = dict(file)
        arrays["ids"] = np.array([f"{evil}{number}" for number in range(len(arrays["ids"]))])
        np.savez(folder / "per_image.npz", **arrays)
        files = {name: sha256_file(folder / name) for name in FILES[:-1]}
        change_provenance(folder, files=files, commit=evil, working_folder=f"/{evil}")
    for words in (["show", pair[0]], ["compare", *pair]):
        cli.main([*map(str, words)])
        out = capsys.readouterr().out
        assert shown in out and "\x1b" not in out and "\u202e" not in out
        cli.main([*map(str, words), "--json"])
        out = capsys.readouterr().out
        assert out.isascii() and json.loads(out)["classes"][0]["name"] == evil
