"""The ledger of errors: each wrong pixel once, as a loop over pixels counts it, in every pass."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score
from tests.unit.evaluate.test_from_files import of_files

from cliptrase import cli, config
from cliptrase.config.error_names import CATEGORIES, OF_LOGITS
from cliptrase.data import open_dataset
from cliptrase.errors import UserError
from cliptrase.evaluate import passes, saved_maps
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.slide import averaged, covered
from cliptrase.evaluate.tally import ImageResult
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.files import SEAL
from cliptrase.model.load import load_clip
from cliptrase.publish.ledger import auroc, errors_of, read_ledger, reliability, risk
from cliptrase.runs import bootstrap, finished, scoring, store
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.finished import LEDGER, MAPS, PROVENANCE
from cliptrase.runs.ledger import BINS, BORDER, COLUMNS, HALVES, Outline, places
from cliptrase.runs.provenance import Stages
from cliptrase.runs.shards import shards_of

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "errors.md").read_text(encoding="utf-8")
IGNORED = 99


def draw(seed, k):
    """A truth and a prediction (H, W) of blocks and single pixels, some blocks of the truth
    ignored; no category is rare."""
    random = np.random.default_rng(seed)
    height, width = random.integers(15, 30, 2)
    block = random.integers(5, 12)
    labels = random.integers(0, k, (3, 30 // block + 1, 30 // block + 1))
    truth, guess, lot = labels.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]
    guess = np.where(random.random(truth.shape) < random.random(), truth, guess)
    guess = random.choice([np.arange(k), random.permutation(k), random.integers(0, k, k)])[guess]
    return np.where(lot == 0, IGNORED, truth), guess.astype(np.int16)


def by_pixel(truth, guess, k, reach, background):
    """COLUMNS of each class (k, 13), pixel by pixel."""
    scored = [at for at in np.ndindex(truth.shape) if truth[at] < k]
    true = {c: {at for at in scored if truth[at] == c} for c in range(k)}
    found = {c: {at for at in scored if guess[at] == c} for c in range(k)}
    table = np.zeros((k, len(COLUMNS)), int)

    def near(at):
        (y, x), low = at, 0
        window = truth[max(low, y - reach) : y + reach + 1, max(low, x - reach) : x + reach + 1]
        return (window != truth[at]).any()

    def category(at):
        t, p = truth[at], guess[at]
        if background not in (t, p) and len(true[t] & found[p]) > len(true[t] | found[p]) / 2:
            return "naming"
        if t != background and not found[t]:
            return "missed"
        if near(at):
            return "boundary"
        if p == background:
            return "object_to_bg"
        return "bg_to_object" if t == background else "fragments"

    for at in scored:
        if truth[at] != guess[at]:
            table[truth[at], CATEGORIES.index(category(at))] += 1
    thick = max(1, round(BORDER * np.hypot(*truth.shape)))
    inner = {}
    for of, labels in (("gt", truth), ("pred", guess)):
        for c in range(k):  # Cheng et al.: the mask less its erosion, outside the image is no mask
            mask = labels == c
            eroded = binary_erosion(mask, np.ones((3, 3)), thick, border_value=0)
            inner[of, c] = {at for at in scored if mask[at] and not eroded[at]}
    for c in range(k):
        borders = inner["gt", c] & inner["pred", c], inner["gt", c], inner["pred", c]
        table[c, 6:9] = [len(each) for each in borders]
        if true[c]:
            votes = Counter(guess[at] for at in true[c])
            winner = min(votes, key=lambda each: (-votes[each], each))
            table[c, 9] = len(true[c]) * (winner == c)
            table[winner, 10] += len(true[c])
        if found[c]:
            names = Counter(truth[at] for at in found[c])
            name = min(names, key=lambda each: (-names[each], each))
            table[name, 11] += names[name]
            table[name, 12] += len(found[c])
    return table


@pytest.mark.parametrize("background", [None, 0, 4])
def test_each_number_is_that_of_a_loop_over_pixels(background):
    k, total = 5, np.zeros(len(COLUMNS), int)
    for seed in range(25):
        truth, guess = draw([seed, k], k)
        reach = 1 + seed % 3
        ground = GroundTruth.of(truth, k)
        outline = Outline.of(ground, truth.shape, reach, background)
        counted = ImageResult.of(ground, guess, outline=outline)
        table = np.zeros((k, len(COLUMNS)), int)
        table[counted.entries[:, 0]] = counted.ledger
        np.testing.assert_array_equal(table, by_pixel(truth, guess, k, reach, background))
        matrix = ground.confusion(guess)
        np.testing.assert_array_equal(table[:, :6].sum(axis=1), matrix.sum(1) - matrix.diagonal())
        total += table.sum(axis=0)
    possible = total if background is not None else np.delete(total, [3, 4])
    assert possible.min() > 50, "every category is tried"


# --- certainty ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """Probabilities at the middles of bins, whether each is right; scores that tie when rounded to
    16 bits, and whether each is of the background."""
    random = np.random.default_rng(5)
    bins = random.integers(0, BINS, 4000)
    right = random.random(4000) < 0.8 * bins / BINS + 0.1
    background = random.random(4000) < 0.3
    best = random.normal(-0.1, 0.3, 4000) - 0.2 * background
    return (bins + 0.5) / BINS, right, best.astype(np.float32), background


def counted(groups, places, size):
    """(2, size) of places in two groups."""
    return np.bincount(groups * size + places, minlength=2 * size).reshape(2, size)


def test_calibration_and_auroc_are_those_of_scikit_learn(drawn):
    confidence, right, best, background = drawn
    table = counted(right, np.floor(confidence * BINS).astype(int), BINS)
    groups = reliability(table)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose(groups.right, 100 * accuracy)
    np.testing.assert_allclose(groups.confidence, 100 * mean)
    found = auroc(counted(background, places(best), HALVES))
    score = -best.astype(np.float16).astype(float)
    assert len(np.unique(score)) < 4000, "there are ties"
    assert found == pytest.approx(100 * roc_auc_score(background, score), abs=1e-9)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, 4001)
    np.testing.assert_allclose(risk(table)[-1], 100 * (~right).mean())
    assert risk(table).mean() == pytest.approx(100 * wrong.mean(), abs=0.3)
    empty = np.zeros_like(table)
    assert np.isnan(risk(empty)).all() and np.isnan(auroc(np.zeros((2, HALVES), int)))


def test_places_are_in_the_order_of_the_numbers():
    every = np.arange(HALVES, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)]).astype(np.float32)
    steps = np.diff(places(finite))
    assert ((steps == 1) | ((np.diff(finite) == 0) & (steps == 0))).mean() > 0.9999
    assert (steps >= 0).all() and places(np.float32([-0.0]))[0] == places(np.float32([0.0]))[0]


@pytest.mark.parametrize("protocol", ["crop", "slide"])
def test_certainty_is_that_of_all_logits_at_every_eleventh_pixel(protocol, runs_of, data):
    more = [] if protocol == "crop" else ["protocol=slide", "protocol.stride=56"]
    (run,) = runs_of(["benchmark=shapes_bg", "method=sclip", "ledger=true", *more]).values()
    loader = Loader.of(open_dataset(run, data), [run], data)
    clip, image = load_clip(run.model, "cpu"), loader(2)
    job = Job.of(run, *text_of(run, clip, data, 1))
    with torch.inference_mode():
        (made,) = loader.protocol.predictions(clip, [image.shown], {"": job}, 1, Stages())
        if protocol == "crop":
            graph = loader.protocol.graph(clip, [image.shown], {"": job})
            logits = graph.logits(job.method, job.text, job.text_key, 1.0)
            logits = torch.nn.functional.interpolate(logits, graph.out_size, mode="bilinear")
        else:
            pixels = loader.protocol._padded(clip, image.shown)
            windows = loader.protocol._windows(clip, pixels, {"": job}, 1, Stages())[""]
            seen = image.shown.pixels.shape[:2]
            logits = torch.cat([*averaged(windows, covered(windows), seen, seen)], dim=1)
            logits = torch.nn.functional.interpolate(logits, image.shown.out_size, mode="bilinear")
    probability = (job.logit_scale * logits[0]).softmax(dim=0)[:, 5::11, 5::11].flatten(1)
    classes = made.classes[0, 5::11, 5::11].flatten()
    mine = job.text.owner[:, None] == classes
    expected = (probability * mine).sum(dim=0)
    torch.testing.assert_close(made.certainty.confidence[0], expected, atol=1e-4, rtol=1e-3)
    best = logits[0, job.text.owner != job.text.background][:, 5::11, 5::11].flatten(1).amax(dim=0)
    scale = job.logit_scale if protocol == "crop" else 1
    torch.testing.assert_close(made.certainty.best[0], scale * best, atol=1e-4, rtol=1e-4)


# --- in a pass ------------------------------------------------------------------------------------

WORDS = (
    ["benchmark=shapes_bg", "method=cliptrase"],
    ["benchmark=shapes", "method=clip"],
    ["benchmark=shapes_bg", "method=sclip"],
)


def contents(folder):
    """What must be equal between two makings of a run."""
    files = (each for each in folder.iterdir() if each.is_file() and each.name != PROVENANCE)
    return {each.name: each.read_bytes() for each in files}


@pytest.fixture(scope="module")
def runs(runs_of):
    """Two runs that keep a ledger, and one that does not."""
    return runs_of(*([*words, "ledger=true"] for words in WORDS[:2]), WORDS[2])


@pytest.fixture(scope="module")
def whole(runs, make, tmp_path_factory):
    """The folders of a pass, by run."""
    return make(runs, tmp_path_factory.mktemp("whole"))


def test_the_ledger_of_a_run_adds_up_to_its_matrix_and_changes_no_other_byte(
    runs, whole, runs_of, make, tmp_path
):
    bare = make(runs_of(*WORDS), tmp_path)
    assert bare.keys() == whole.keys()
    for name, folder in whole.items():
        made = contents(folder)
        assert (LEDGER in made) == runs[name].ledger
        made.pop(LEDGER, None)
        assert made == contents(bare[name])
        if runs[name].ledger:
            matrix = np.load(folder / "confusion.npz")["confusion"]
            by_class = sum(read_ledger(folder).by_class(len(matrix)).values())
            np.testing.assert_array_equal(by_class, matrix.sum(axis=1) - matrix.diagonal())


@pytest.mark.parametrize("how", ["shards", "killed", "batched", "threads"])
def test_the_ledger_is_the_same_however_the_images_are_counted(
    how, runs, whole, make, data, tmp_path, monkeypatch
):
    options = {"batched": {"batched": True, "batch_size": 1}, "threads": {"workers": 3}}
    if how == "shards":
        shared = {"data": data, "device": "cpu", "workers": 1}
        files = []
        for shard in shards_of(2):
            files.append(shard.file(tmp_path / "pass.json"))
            passes.count_shard(runs, shard, files[-1], partial=tmp_path / ".p.npz", **shared)
        options["shards"] = {"counted_shards": files}
    if how == "killed":
        save, options["killed"] = passes.Progress.save, {"save_every": 1}

        def killed(progress, path, basis):
            save(progress, path, basis)
            if progress.position == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(passes.Progress, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            make(runs, tmp_path, save_every=1)
    for name, folder in make(runs, tmp_path, **options[how]).items():
        assert contents(folder) == contents(whole[name])


def test_counts_that_were_saved_without_a_ledger_are_not_gone_on_with(
    runs, whole, runs_of, make, tmp_path, monkeypatch
):
    save = passes.Progress.save

    def killed(progress, path, basis):
        save(progress, path, basis)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(passes.Progress, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            make(runs_of(*WORDS), tmp_path, save_every=1)
    for name, folder in make(runs, tmp_path).items():
        assert contents(folder) == contents(whole[name])


def test_a_finished_run_gains_a_ledger_that_is_asked_for(
    runs, whole, runs_of, make, data, tmp_path, monkeypatch
):
    (name, *_), asked = runs, {name: run for name, run in runs.items() if run.ledger}
    (bare,) = make(kept := runs_of([*WORDS[0], "save_maps=1"]), tmp_path).values()
    saved_maps.save_maps(kept, out=tmp_path, data=data, device="cpu", workers=1)
    before = (bare / PROVENANCE).read_bytes()
    state = finished.status(runs[name], tmp_path, data)
    assert state.state == "ledger" and state.scored and "ledger=true" in state.reason
    assert finished.status(runs_of(WORDS[0])[name], tmp_path, data).finished
    folders = make(asked, tmp_path)
    assert contents(folders[name]) | contents(whole[name]) == contents(folders[name])
    assert finished.status(kept[name], tmp_path, data).finished, "with its maps"
    made, earlier = (json.loads(each) for each in ((bare / PROVENANCE).read_bytes(), before))
    assert made.pop(SEAL) != earlier.pop(SEAL)  # of the rest of the file
    assert made.pop("files").pop(LEDGER) and earlier.pop("files") and made == earlier

    file = bare / LEDGER
    file.write_bytes(file.read_bytes()[:-1])
    assert finished.status(runs[name], tmp_path, data).reason == f"{LEDGER} is not what was written"
    (bare / "metrics.json").unlink()  # scoring it again would not mend the ledger
    assert finished.status(runs[name], tmp_path, data).state == "predict"
    make(asked, tmp_path)
    content = bytearray(file.read_bytes())
    for place in range(60, len(content), len(content) // 40):
        content[place] ^= 4
        file.write_bytes(content)
        with contextlib.suppress(UserError):  # one message, or numbers that are not the run's
            read_ledger(bare)
    (bare / "metrics.json").unlink()
    assert store.rescore(runs_of(WORDS[0]), tmp_path, data) == {}
    assert not file.exists(), "a new digest would hide that it is damaged"
    assert finished.damage_of(bare) == ""
    monkeypatch.setattr(finished.code, "prediction_digest", lambda: "0" * 64)
    assert finished.status(runs[name], tmp_path, data, freeze_code=True).finished


@pytest.mark.parametrize("words", [WORDS[0], [*WORDS[2], "protocol=slide", "protocol.stride=56"]])
def test_exported_maps_of_a_run_have_its_ledger(words, runs_of, make, data, tmp_path):
    run = runs_of([*words, "ledger=true", "save_maps=9"])
    (made,) = make(run, tmp_path).values()
    saved_maps.save_maps(run, out=tmp_path, data=data, device="cpu", workers=1)
    settings = [word for word in words if not word.startswith("method")]
    (scored,) = make(of_files(made / MAPS, *settings, "ledger=true"), tmp_path).values()
    ours, theirs = (read_ledger(folder) for folder in (made, scored))
    for key in ("image", "label", "numbers"):
        np.testing.assert_array_equal(getattr(theirs, key), getattr(ours, key), err_msg=key)
    assert not len(theirs.confidence) and not len(theirs.best), "files have no logits"
    assert len(ours.image) and (ours.numbers[:, :6].sum(axis=0)[[1, 2]] > 0).all()


def test_what_it_says_in_per_cent(whole):
    """Shares and pAcc are 100 together, in each resample too; the interval of each holds it."""
    for folder in whole.values():
        ledger, counts = read_ledger(folder), scoring.read_counts(folder)
        if ledger is None:
            continue
        errors = errors_of(ledger, counts, "mmseg")
        right = 100 * counts.tp.sum() / counts.gt.sum()
        assert sum(errors.points[name] for name in CATEGORIES) == pytest.approx(100 - right)
        for name, point in errors.points.items():
            low, high = errors.interval(name)
            assert (low is None) if name in OF_LOGITS else (low <= point <= high)
        shares = sum(errors.resampled[name] for name in CATEGORIES)
        hits = bootstrap.resampled("mmseg", counts.tp, counts.gt, counts.pred)["pAcc"]
        np.testing.assert_allclose(shares + hits, 100)


def test_where_classes_are_decided_last_there_is_none():
    with pytest.raises(UserError, match=r"ledger=true: with method\.unsupervised the classes"):
        config.resolve(["method=cliptrase_unsupervised", "ledger=true"])


def test_the_page_is_executed(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    (lines,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in lines.splitlines():
        words = shlex.split(line.removeprefix("python -m cliptrase.").removeprefix("cliptrase "))
        cli.main(words)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "errors.md", "exec"), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    (example,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    shown = [line.split() for line in example.splitlines() if "…" not in line]
    assert len(shown) > 12 and all(line in printed for line in shown)
