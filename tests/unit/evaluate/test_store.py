"""Run folders: whole or absent, the same bytes again, never another run's."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cliptrase import config, files
from cliptrase.errors import UserError
from cliptrase.runs import finished, scoring, store
from cliptrase.runs.counts import ImageCounts
from cliptrase.runs.finished import status

RUN = config.resolve(["benchmark=voc20", "method=clip", "model=shapes_clip"])
PROVENANCE = {"code": "0" * 64, "scoring": "1" * 64, "data": None}


def result(skipped=(2,)):
    """Four images of three classes, the third never in the ground truth."""
    gt = np.array([[50, 0, 0], [20, 30, 0], [0, 0, 0], [0, 40, 0]], np.int32)
    tp = np.array([[40, 0, 0], [20, 10, 0], [0, 0, 0], [0, 5, 0]], np.int32)
    matrix = np.array([[60, 10, 0], [0, 15, 55], [0, 0, 0]], np.int64)
    pred = np.array([[40, 10, 0], [20, 0, 30], [0, 0, 0], [0, 15, 25]], np.int32)
    flags = np.isin(np.arange(4), skipped)
    ids = np.array(["a", "bb", "c", "dd/é"])
    counts = ImageCounts(ids, flags, tp, gt, pred)
    return scoring.Result(["sky", "cow", "sky"], matrix, counts, 123)


def test_a_folder_has_its_five_files_and_the_same_bytes_again(tmp_path):
    folder = store.write(tmp_path, RUN, result(), PROVENANCE)
    assert folder == tmp_path / RUN.name
    assert sorted(path.name for path in folder.iterdir()) == sorted(finished.FILES)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert store.write(tmp_path, RUN, result(), PROVENANCE) == folder
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_metrics_json_has_no_number_where_there_is_none(tmp_path):
    folder = store.write(tmp_path, RUN, result(), PROVENANCE)
    found = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert found == store.read_metrics(folder)
    assert [entry["name"] for entry in found["iou"]] == ["sky", "cow", "sky"]
    assert found["iou"][0]["value"] == pytest.approx(100 * 60 / 70.01, abs=1e-6)
    assert found["iou"][2]["value"] is None
    assert (found["images"], found["skipped"], found["classes"], found["flops"]) == (3, 1, 3, 123)
    assert found["vocabulary"] == scoring.vocabulary_digest(RUN) and len(found["vocabulary"]) == 64
    nothing = ImageCounts(np.array(["a"]), np.ones(1, bool), *np.zeros((3, 1, 3), np.int32))
    found = scoring.metrics(
        RUN, scoring.Result(["a", "b", "c"], np.zeros((3, 3), np.int64), nothing, 0)
    )
    assert found["mIoU"] is None and found["ci"]["mIoU"] == [None, None] and found["images"] == 0


def test_the_vocabulary_is_known_by_its_words_not_by_its_path(tmp_path):
    words = tmp_path / "mine.txt"
    other = config.resolve(["benchmark=voc20", "model=shapes_clip", f"vocabulary={copied(words)}"])
    assert scoring.vocabulary_digest(other) == scoring.vocabulary_digest(RUN)
    words.write_text(words.read_text().replace("aeroplane", "airplane").replace("plane", "jet"))
    changed = config.resolve(["benchmark=voc20", "model=shapes_clip", f"vocabulary={words}"])
    assert scoring.vocabulary_digest(changed) != scoring.vocabulary_digest(RUN)


def copied(path):
    shipped = RUN.vocabulary.classes.path
    return shutil.copy(shipped, path)


def test_counts_come_back(tmp_path):
    counts = scoring.read_counts(store.write(tmp_path, RUN, result(), PROVENANCE))
    assert counts.ids.tolist() == ["a", "bb", "c", "dd/é"]
    assert counts.skipped.tolist() == [False, False, True, False]
    assert counts.tp.dtype == np.int32 and counts.tp.tolist() == result().counts.tp.tolist()


def another_run(folder):
    other = config.resolve(
        ["benchmark=voc20", "method=clip", "model=shapes_clip", "image_size=336"]
    )
    shutil.rmtree(folder)
    shutil.move(store.write(folder.parent, other, result(), PROVENANCE), folder)


def somebodys_notes(folder):
    for name in finished.FILES:
        (folder / name).unlink()
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (another_run, "holds another configuration than this run"),
        (somebodys_notes, "config.yaml is missing, and notes.txt is no file of a run"),
    ],
)
def test_a_foreign_folder_is_named_and_left_alone(spoil, fault, tmp_path):
    folder = store.write(tmp_path, RUN, result(), PROVENANCE)
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for act in (
        lambda: status(RUN, tmp_path),
        lambda: store.write(tmp_path, RUN, result(), PROVENANCE),
    ):
        with pytest.raises(UserError, match=rf"{fault}; delete it.*out="):
            act()
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_file_in_the_place_of_a_run_is_named_and_left_alone(tmp_path):
    (tmp_path / RUN.name).write_text("mine")
    for act in (
        lambda: status(RUN, tmp_path),
        lambda: store.write(tmp_path, RUN, result(), PROVENANCE),
    ):
        with pytest.raises(UserError, match=f"{RUN.name}: is a file; delete it.*out="):
            act()
    assert (tmp_path / RUN.name).read_text() == "mine"


def in_the_place_of(name, tmp_path, folder):
    """A folder in the place of a file, a file in the place of the run's folder."""
    if name:
        (folder / name).unlink()
        (folder / name).mkdir()
    else:
        shutil.rmtree(folder)
        folder.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "an empty file stands where its folder belongs"),
        ("metrics.json", "metrics.json is missing"),
        ("config.yaml", "config.yaml is missing"),
        ("provenance.json", "provenance.json is missing"),
        ("confusion.npz", "confusion.npz is missing"),
    ],
)
def test_what_stands_in_the_way_of_a_run_or_its_file_is_replaced(name, reason, tmp_path):
    folder = store.write(tmp_path, RUN, result(), PROVENANCE)
    in_the_place_of(name, tmp_path, folder)
    assert status(RUN, tmp_path, freeze_code=True) == finished.Status("predict", reason)
    store.write(tmp_path, RUN, result(), PROVENANCE)
    assert status(RUN, tmp_path, freeze_code=True).finished
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_link_in_the_place_of_a_run_is_replaced_and_its_target_left_alone(tmp_path):
    folder = store.write(tmp_path / "elsewhere", RUN, result(), PROVENANCE)
    (folder / "metrics.json").unlink()
    (tmp_path / RUN.name).symlink_to(folder)
    store.write(tmp_path, RUN, result(), PROVENANCE)
    assert not (tmp_path / RUN.name).is_symlink() and len([*folder.iterdir()]) == 4


def test_an_empty_folder_is_nobody_s(tmp_path):
    (tmp_path / RUN.name).mkdir()
    assert status(RUN, tmp_path).reason == "not run yet"
    store.write(tmp_path, RUN, result(), PROVENANCE)
    assert status(RUN, tmp_path, freeze_code=True).finished


WRITING = """
import signal, sys
from cliptrase.files import claimed, new_folder
from pathlib import Path
folder, handle = claimed(Path(sys.argv[1]), new_folder)
(folder / ".confusion.npz.0123abcd").write_bytes(b"half")
print(folder, flush=True)
signal.pause()
"""


def test_what_a_killed_process_left_is_swept_up_and_what_a_living_one_writes_is_not(tmp_path):
    """By the next start, whichever runs it makes; what is no run's stays."""
    others = [tmp_path / name for name in (".settings.0123abcd", ".tool.1a2b3c4d")]
    for folder, name in zip(others, ("notes.txt", "config.yaml"), strict=True):
        folder.mkdir()
        (folder / name).touch()
    command = [sys.executable, "-c", WRITING, str(tmp_path / "another.run.0123456789")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writing:
        folder = Path(writing.stdout.readline().strip())
        os.utime(folder, (0, 0))  # however slow it is
        store.rescore({}, tmp_path, "data")
        assert (folder / ".confusion.npz.0123abcd").exists()
        writing.kill()
    store.rescore({}, tmp_path, "data")
    assert sorted(tmp_path.iterdir()) == others


def test_on_a_disk_without_locks_a_folder_that_was_just_made_stays(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    left, just_made = (tmp_path / f".{RUN.name}.{end}" for end in ("01234567", "89abcdef"))
    for path in (left, just_made):
        path.mkdir()
    os.utime(left, (time.time() - 2 * files.STALE_SECONDS,) * 2)
    store.write(tmp_path, RUN, result(), PROVENANCE)
    assert not left.exists() and just_made.exists()


def test_a_damaged_folder_is_named(tmp_path):
    folder = store.write(tmp_path, RUN, result(), PROVENANCE)
    (folder / "per_image.npz").write_bytes(b"PK")
    (folder / "metrics.json").write_text("[1]")
    with pytest.raises(UserError, match=r"per_image.npz: missing or damaged; delete"):
        scoring.read_counts(folder)
    with pytest.raises(UserError, match=r"metrics.json: missing or damaged; delete"):
        store.read_metrics(folder)
