"""A pass that dies at any moment: the next one repeats what was unfinished; the numbers agree."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cliptrase import config
from cliptrase.evaluate import basis, passes, tally
from cliptrase.evaluate.truth import Loader
from cliptrase.files import TEMPORARY
from cliptrase.runs import code, finished
from cliptrase.runs.finished import status

IMAGES, SAVE_EVERY = 7, 2

# moment, the how-manyth time, the image at which the next pass must go on
KILLED = [
    ("adding an image", 11, 4),  # of two runs: in the middle of the sixth image
    ("saving", 3, 2),  # text features, first save, second save
    ("having saved", 3, 6),
    ("writing a run", 2, 6),
    ("renaming a run", 2, 6),
]

# Makes the pass once a moment, each in a process and a folder of its own that ends by `kill -9`.
SCRIPT = """
import json, os, signal, sys
from cliptrase import config
from cliptrase.evaluate import passes, tally
from cliptrase.runs import store

MOMENTS = {
    "adding an image": (tally.Tally, "add"),
    "saving": (os, "fsync"),
    "having saved": (tally.Progress, "save"),
    "writing a run": (store, "write_text"),
    "renaming a run": (store, "_replace"),
}

def deadly(function, count, before):
    def wrapped(*args, **kwargs):
        nonlocal count
        count -= 1
        if count == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        made = function(*args, **kwargs)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return made
    return wrapped

def make(moment, count):
    owner, name = MOMENTS[moment]
    before = moment not in ("having saved", "writing a run")
    setattr(owner, name, deadly(getattr(owner, name), count, before))
    os.mkdir(moment)
    os.chdir(moment)
    runs = {run.name: run for run in map(config.resolve, json.loads(sys.argv[2]))}
    passes.run_pass(runs, partial="partial.npz", out="runs", data="data", device="cpu", workers=2,
                    save_every=2)

for moment, count, _ in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        try:
            make(moment, count)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
"""


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Two runs over a folder of pictures with masks, as lists of overrides."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "images").mkdir(), (root / "labels").mkdir()
    rng = np.random.default_rng(5)
    for index in range(IMAGES):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        mask = rng.integers(0, 3, (6, 8), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        Image.fromarray(mask).save(root / "labels" / f"{index}.png")
    (root / "classes.txt").write_text("zebra\ngrass\nwater")
    shared = [
        "benchmark=folder",
        f"benchmark.images={root / 'images'}",
        f"benchmark.labels={root / 'labels'}",
        f"benchmark.classes={root / 'classes.txt'}",
        "benchmark.templates=shapes",
        "model=shapes_clip",
        "image_size=64",
    ]
    return [[*shared, "method=clip"], [*shared, "method=cliptrase"]]


@pytest.fixture(scope="module")
def runs(overrides):
    return {run.name: run for run in map(config.resolve, overrides)}


def finish(runs, root, **options):
    """Make the runs in `root`; what must be equal between two makings."""
    options = {"workers": 1, "save_every": SAVE_EVERY} | options
    folders = passes.run_pass(
        runs,
        partial=root / "partial.npz",
        out=root / "runs",
        data=root / "data",
        device="cpu",
        **options,
    )
    return {
        f"{run}/{name}": (folder / name).read_bytes()
        for run, folder in folders.items()
        for name in finished.FILES
        if name != "provenance.json"
    }


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """The files of an undisturbed pass."""
    root = tmp_path_factory.mktemp("undisturbed")
    made = finish(runs, root)
    assert not (root / "partial.npz").exists()
    return made


@pytest.fixture(scope="module")
def killed(overrides, tmp_path_factory):
    """A folder with what each killed pass left, by moment."""
    root = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", SCRIPT, json.dumps(KILLED), json.dumps(overrides)]
    subprocess.run(command, cwd=root, check=True)
    return root


@pytest.fixture
def read(monkeypatch):
    """Positions of the images that are read, in order."""
    positions = []
    load = Loader.__call__

    def counting(self, position):
        positions.append(position)
        return load(self, position)

    monkeypatch.setattr(Loader, "__call__", counting)
    return positions


@pytest.mark.parametrize(("moment", "count", "resumed_at"), KILLED)
def test_kill_9(moment, count, resumed_at, killed, runs, whole, read):
    root = killed / moment
    made = list((root / "runs").glob("[!.]*"))
    for folder in made:
        assert {path.name for path in folder.iterdir()} == set(finished.FILES)
    assert len(made) == (1 if moment == "renaming a run" else 0)
    assert finish(runs, root) == whole
    counted = [0] * (resumed_at == 0)  # of operations, which are saved, too
    assert read == [*counted, *range(resumed_at, IMAGES)]
    assert not (root / "partial.npz").exists()
    assert not list(root.rglob(f".*.{TEMPORARY}")), "what was half-written is swept up"


@pytest.mark.parametrize("batched", [False, True])
def test_an_interrupt_in_the_middle(batched, runs, whole, read, tmp_path, monkeypatch):
    add = tally.Tally.add

    def interrupted(self, position, result):
        if position == 5:
            raise KeyboardInterrupt
        add(self, position, result)

    with monkeypatch.context() as patched:
        patched.setattr(tally.Tally, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(runs, tmp_path, batched=batched, batch_size=1)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "partial.npz", "runs"}
    assert not list((tmp_path / "runs").iterdir())
    read.clear()
    assert finish(runs, tmp_path, batched=batched, batch_size=1) == whole
    assert read == [4, 5, 6]


def stop_after(images, runs, root, monkeypatch):
    """Leave what a pass has saved after some images."""

    class Stop(Exception):
        pass

    save = tally.Progress.save

    def stopping(self, path, basis):
        save(self, path, basis)
        if self.position == images:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(tally.Progress, "save", stopping)
        with pytest.raises(Stop):
            finish(runs, root)


def test_a_pass_whose_other_runs_are_done_goes_on(runs, whole, read, tmp_path, monkeypatch):
    stop_after(4, runs, tmp_path, monkeypatch)
    saved = (tmp_path / "partial.npz").read_bytes()
    first, second = runs
    finish({first: runs[first]}, tmp_path)
    (tmp_path / "partial.npz").write_bytes(saved)
    read.clear()
    assert finish(runs, tmp_path) == whole
    assert read == [4, 5, 6]
    assert not status(runs[second], tmp_path / "elsewhere").finished


@pytest.mark.parametrize(
    "fault", ["cut off", "no archive", "other code", "other versions", "a run is missing"]
)
def test_saved_counts_that_do_not_fit_are_not_used(fault, runs, whole, read, tmp_path, monkeypatch):
    saved = dict(list(runs.items())[:1]) if fault == "a run is missing" else runs
    with monkeypatch.context() as patched:
        if fault == "other code":
            patched.setattr(code, "prediction_digest", lambda: "older")
        if fault == "other versions":
            older = basis.versions() | {"torch": "1.13"}
            patched.setattr(basis, "versions", lambda: older)
        stop_after(4, saved, tmp_path, monkeypatch)
    partial = tmp_path / "partial.npz"
    if fault == "cut off":
        partial.write_bytes(partial.read_bytes()[:1000])
    elif fault == "no archive":
        partial.write_bytes(b"nothing")
    read.clear()
    assert finish(runs, tmp_path) == whole
    assert read[1:] == list(range(IMAGES))


def test_seconds_of_both_parts_are_added(runs, tmp_path, monkeypatch):
    stop_after(6, runs, tmp_path, monkeypatch)
    with np.load(tmp_path / "partial.npz") as file:
        spent = json.loads(str(file["about"]))["seconds"]
    finish(runs, tmp_path)
    for name in runs:
        provenance = json.loads((tmp_path / "runs" / name / "provenance.json").read_text())
        assert provenance["seconds"]["images"] > spent["images"] > 0


def test_damaged_text_features_are_made_again(runs, whole, tmp_path, monkeypatch):
    def again():
        for name in runs:
            (tmp_path / "runs" / name / "confusion.npz").unlink()
        return finish(runs, tmp_path)

    assert finish(runs, tmp_path) == whole
    (cache,) = (tmp_path / "data" / "text_features").iterdir()
    kept = cache.read_bytes()
    for content in (kept[:100], b""):
        cache.write_bytes(content)
        assert again() == whole
        assert cache.read_bytes() == kept
    monkeypatch.setattr("cliptrase.evaluate.textcache.text_features", pytest.fail)
    assert again() == whole
