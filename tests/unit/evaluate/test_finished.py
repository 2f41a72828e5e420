"""Is a run finished? One answer, and what an unfinished run needs: its images, or its scores."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tests.provenance import change_provenance

from cliptrase import config, files
from cliptrase.errors import UserError
from cliptrase.evaluate import planned
from cliptrase.files import claimed
from cliptrase.runs import code, finished, scoring, store
from cliptrase.runs.counts import ImageCounts
from cliptrase.runs.finished import FILES, status

RUN = config.resolve(["benchmark=voc20", "method=clip", "model=shapes_clip"])
NAME = RUN.name
PROVENANCE = {"code": code.prediction_digest(), "scoring": code.scoring_digest(), "data": None}


@pytest.fixture
def folder(tmp_path):
    """The folder of RUN, finished."""
    rng = np.random.default_rng(1)
    gt = rng.integers(0, 50, (4, 20)).astype(np.int32)
    tp = gt // 2
    ids, flags = np.array(["a", "bb", "c", "dd/é"]), np.zeros(4, bool)
    matrix = np.diag(tp.sum(axis=0)).astype(np.int64)
    matrix[:, 0] += (gt - tp).sum(axis=0)
    pred = tp.copy()
    pred[:, 0] += (gt - tp).sum(axis=1)
    names = scoring.class_names(RUN)
    result = scoring.Result(names, matrix, ImageCounts(ids, flags, tp, gt, pred), 123)
    made = store.write(tmp_path / "runs", RUN, result, PROVENANCE)
    assert status(RUN, made.parent).finished and not status(RUN, made.parent).reason
    return made


@pytest.mark.parametrize("name", [name for name in FILES if name != "config.yaml"])
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_lost_or_damaged_file(name, content, folder):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    found = status(RUN, folder.parent)
    assert found.state == ("rescore" if name == "metrics.json" else "predict")
    damaged = "damaged" if name == "provenance.json" else "not what was written"
    assert found.reason == f"{name} is {'missing' if content is None else damaged}"
    assert status(RUN, folder.parent, freeze_code=True) == found


def test_a_config_that_says_the_same_in_other_words_is_written_again(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"# a note\n{text}")
    found = status(RUN, folder.parent)
    assert (found.state, found.reason) == ("rescore", "config.yaml is not what was written")
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    assert (folder / "config.yaml").read_text() == text and status(RUN, folder.parent).finished


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "missing"),
        *((content, "not what was written") for content in (b"", b"\xff: [", b"image_size: 1\n")),
    ],
)
def test_a_lost_config_is_written_again_from_what_provenance_says(content, fault, folder):
    before = (folder / "config.yaml").read_bytes()
    (folder / "config.yaml").unlink()
    if content is not None:
        (folder / "config.yaml").write_bytes(content)
    assert status(RUN, folder.parent) == finished.Status("rescore", f"config.yaml is {fault}")
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    assert (folder / "config.yaml").read_bytes() == before and status(RUN, folder.parent).finished
    (folder / "config.yaml").unlink()
    (folder / "provenance.json").unlink()
    (folder / ".DS_Store").touch()  # nobody's
    assert status(RUN, folder.parent) == finished.Status("predict", "config.yaml is missing")


def test_a_bit_of_a_provenance_that_nothing_else_compares(folder):
    file = folder / "provenance.json"
    file.write_text(file.read_text().replace('"flops": 123', '"flops": 122'))
    damaged = "provenance.json is damaged"
    assert status(RUN, folder.parent) == finished.Status("predict", damaged)
    assert finished.damage_of(folder) == damaged


def test_a_provenance_of_an_earlier_version_has_no_digest(folder):
    file = folder / "provenance.json"
    said = json.loads(file.read_text())
    del said["sha256"]
    file.write_text(json.dumps(said))
    assert finished.read_provenance(folder) == said and status(RUN, folder.parent).finished


@pytest.mark.parametrize("change", [{"files": None}, {"files": {}}])
def test_a_provenance_that_says_nothing_of_the_files(change, folder):
    change_provenance(folder, **change)
    assert status(RUN, folder.parent).state == "predict"


def test_other_prediction_code_needs_the_images(folder):
    change_provenance(folder, code="older")
    found = status(RUN, folder.parent)
    assert (found.state, found.reason) == ("predict", "made by other prediction code")
    assert status(RUN, folder.parent, freeze_code=True).finished


def test_other_scoring_code_needs_the_counts_only(folder):
    before = (folder / "metrics.json").read_bytes()
    change_provenance(folder, scoring="older")
    found = status(RUN, folder.parent)
    assert (found.state, found.reason) == ("rescore", "its scores are of other scoring code")
    assert status(RUN, folder.parent, freeze_code=True).finished
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    assert status(RUN, folder.parent).finished
    assert (folder / "metrics.json").read_bytes() == before


def test_what_a_killed_process_left_of_scoring_is_swept_up(folder):
    left, legend = folder / ".metrics.json.0123abcd", folder / ".legend.png.0123abcd"
    own = folder / ".notes"
    running, handle = claimed(folder / "config.yaml", files._new_file)
    for path in (left, legend, running, own):
        path.write_text("{")
    for path in (running, own):
        os.utime(path, (0, 0))
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    assert not left.exists() and not legend.exists() and running.exists() and own.exists()
    os.close(handle)
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    assert not running.exists()


def test_other_data(folder):
    change_provenance(folder, labels="older")
    found = status(RUN, folder.parent, freeze_code=True)
    assert (found.state, found.reason) == ("predict", "made from other data or labels")


@pytest.mark.parametrize("lost", [True, False])
def test_lost_scores_are_made_again_to_the_byte(lost, folder):
    before = {name: (folder / name).read_bytes() for name in FILES}
    if lost:
        (folder / "metrics.json").unlink()
    else:
        (folder / "metrics.json").write_bytes(before["metrics.json"].replace(b"1", b"2"))
    assert not store.rescore({NAME: RUN}, folder.parent, "data")
    after = {name: (folder / name).read_bytes() for name in FILES}
    said, then = json.loads(after.pop("provenance.json")), json.loads(before["provenance.json"])
    assert after == {name: before[name] for name in after}
    assert said.pop("scored").keys() == {"at", "commit"}
    assert said.pop("sha256") != then.pop("sha256") and said == then


def test_runs_that_need_their_images_are_handed_back(folder):
    (folder / "confusion.npz").unlink()
    assert store.rescore({NAME: RUN}, folder.parent, "data") == {NAME: RUN}


def test_a_run_without_its_count_of_operations_needs_an_image(folder):
    """Runs of earlier versions have that number in metrics.json only."""
    provenance = json.loads((folder / "provenance.json").read_text())
    del provenance["flops"], provenance["sha256"]
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert status(RUN, folder.parent).finished
    (folder / "metrics.json").unlink()
    assert status(RUN, folder.parent).state == "predict"


def test_a_pass_file_remembers_its_runs(folder, tmp_path):
    out, file = folder.parent, tmp_path / "pass.json"

    def stale(runs=None):
        return finished.stale_pass(file, runs or {NAME: RUN}, out)

    assert stale() == "pass.json is missing"
    finished.write_pass(file, [NAME], out)
    assert stale() == ""
    assert stale({NAME: RUN, "another": RUN}) == "pass.json names other runs"
    metrics = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").write_bytes(metrics[:-1])
    assert stale() == f"{NAME}: metrics.json is not what was written"
    change_provenance(folder, files=finished.file_digests(folder))
    assert stale() == f"{NAME}: its metrics.json is not the one that pass.json names"
    (folder / "config.yaml").write_text("image_size: 1\n")
    assert stale() == f"{NAME}: config.yaml is not what was written"
    (folder / "provenance.json").unlink()
    assert "holds another configuration" in stale()
    file.write_text("[")
    assert stale() == "pass.json names other runs"


def test_a_pass_scores_again_without_torch_and_writes_its_file(folder, tmp_path, monkeypatch):
    passes = {"one": SimpleNamespace(runs={NAME: RUN})}
    suite = SimpleNamespace(passes=passes, data=tmp_path / "data")
    monkeypatch.setattr(planned.plan, "load", lambda *_: suite)
    monkeypatch.setitem(sys.modules, "cliptrase.evaluate.passes", None)  # cannot be imported
    change_provenance(folder, scoring="older")
    partial = tmp_path / "passes/suite/.one.partial.npz"
    partial.parent.mkdir(parents=True)
    partial.touch()  # as a kill leaves it when all runs are written
    strays = ("one.shard-1-of-2.npz", "one.shard-3-of-7.npz", ".one.shard-1-of-2.partial.npz")
    for stray in (*strays, "one.more.shard-1-of-2.npz"):
        partial.with_name(stray).touch()  # of starts that cut the pass otherwise, or of another
    file = planned.make_pass("suite", "one", tmp_path)
    assert file == tmp_path / "passes" / "suite" / "one.json"
    assert {each.name for each in file.parent.iterdir()} == {file.name, "one.more.shard-1-of-2.npz"}
    assert finished.stale_pass(file, {NAME: RUN}, folder.parent) == ""
    (folder / "per_image.npz").unlink()
    with pytest.raises(ImportError):
        planned.make_pass("suite", "one", tmp_path)


def another_configuration(place):
    place.mkdir()
    (place / "config.yaml").write_text("image_size: 1\n")


@pytest.mark.parametrize(
    ("take", "fault"),
    [
        (another_configuration, "holds another configuration than this run"),
        (lambda place: place.write_text("mine"), "is a file"),
    ],
)
def test_a_run_whose_place_is_taken_costs_itself_alone(take, fault, folder, tmp_path, monkeypatch):
    other = config.resolve(["benchmark=voc20", "method=sclip", "model=shapes_clip"])
    take(folder.parent / other.name)
    passes = {"one": SimpleNamespace(runs={other.name: other, NAME: RUN})}
    suite = SimpleNamespace(passes=passes, data=tmp_path / "data")
    monkeypatch.setattr(planned.plan, "load", lambda *_: suite)
    (folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=f"^1 of the 2 runs of one .*{other.name}: {fault}; delete"):
        planned.make_pass("suite", "one", tmp_path)
    assert status(RUN, folder.parent).finished


def test_asking_loads_neither_numpy_nor_torch():
    program = "import sys, cliptrase.runs.finished; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not {"numpy", "torch", "hydra"} & set(loaded.stdout.decode().split())
