"""A pass cut into shards: the same bytes, whatever their number, order and interruptions."""

import itertools
import json
import random

import numpy as np
import pytest

from cliptrase.errors import UserError
from cliptrase.evaluate import kept, passes
from cliptrase.runs import finished
from cliptrase.runs.shards import Shard, shards_of

SOME = (
    ["benchmark=shapes_bg", "method=cliptrase"],
    ["benchmark=shapes", "method=clip"],
    [
        "benchmark=shapes",
        "method=cliptrase_unsupervised",
        "method.regions.eps=0.5",
        "method.regions.min_samples=1",
    ],
)


def contents(folder):
    """What must be equal between two makings of a run."""
    names = {each.name for each in folder.iterdir()} - {finished.PROVENANCE}
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def runs(runs_of):
    return runs_of(*SOME)


@pytest.fixture(scope="module")
def whole(runs, make, tmp_path_factory):
    """The contents of the runs of a pass that was not cut, and what their provenance says."""
    folders = make(runs, tmp_path_factory.mktemp("whole"))
    made = {name: json.loads((at / "provenance.json").read_text()) for name, at in folders.items()}
    return {name: contents(folder) for name, folder in folders.items()}, made


@pytest.fixture(scope="module")
def count(runs, data):
    """count(shard, folder): the file of a shard's counts."""

    def counted(shard, folder, some=runs):
        file, partial = shard.file(folder / "pass.json"), folder / f".{shard.number}.partial.npz"
        options = {"partial": partial, "data": data, "device": "cpu", "workers": 1}
        passes.count_shard(some, shard, file, **options)
        return file

    return counted


@pytest.fixture(scope="module")
def two(count, tmp_path_factory):
    """The files of both halves of the pass."""
    folder = tmp_path_factory.mktemp("two")
    return [count(shard, folder) for shard in shards_of(2)]


def changed(file, folder, **changes):
    """A copy of a shard's file that says something else of its counts."""
    saved = kept.read(file, "")
    about = json.loads(str(saved["about"]))
    about["basis"] |= changes
    copy = folder / file.name
    kept.write(copy, saved | {"about": np.array(json.dumps(about))})
    return copy


@pytest.mark.parametrize("total", [0, 1, 6, 7, 1000])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_each_image_is_in_one_shard(total, count):
    images = [shard.images(total) for shard in shards_of(count)]
    assert list(itertools.chain(*images)) == list(range(total))
    assert max(map(len, images)) - min(map(len, images)) <= 1


@pytest.mark.parametrize("number", [1, 2, 7])  # of 6 images: with 7 a shard has none
def test_the_runs_are_those_of_a_pass_that_is_not_cut(number, whole, runs, make, count, tmp_path):
    order = random.Random(number).sample(shards_of(number), number)
    files = [count(each, tmp_path) for each in order]
    files.sort(key=lambda file: int(file.stem.split("-")[1]))
    folders = make(runs, tmp_path / "runs", counted_shards=files)
    before, made_before = whole
    for name, folder in folders.items():
        assert contents(folder) == before[name]
        made = json.loads((folder / "provenance.json").read_text())
        for same in ("code", "data", "flops", "versions"):
            assert made[same] == made_before[name][same]
        assert made["shards"] == number and made["seconds"]["encode"] > 0


def test_a_shard_that_was_killed_goes_on_where_it_was(runs, count, two, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "SAVE_EVERY", 1)
    seen, add = [], passes.Progress.save

    def killed(progress, path, basis):
        add(progress, path, basis)
        seen.append(progress.position)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(passes.Progress, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        count(Shard(2, 2), tmp_path)
    file = count(Shard(2, 2), tmp_path)
    assert seen == [1, 2, 3]  # the last is the file itself
    again, before = (kept.read(each, "") for each in (file, two[1]))
    assert again.keys() == before.keys()
    assert all(np.array_equal(again[key], before[key]) for key in again.keys() - {"about"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "0"}, "another prediction code"),
        ({"versions": {"torch": "0"}}, "another version of a library"),
        ({"data": "0"}, "another dataset"),
        ({"images": [2, 4]}, "another part of the images"),
        ({"device": "cuda"}, "another kind of device"),
    ],
)
def test_counts_of_something_else_are_refused(changes, said, runs, make, two, tmp_path):
    other = changed(two[1], tmp_path, **changes)
    with pytest.raises(UserError, match=f"{other.name}: counted with {said}; delete it and start"):
        make(runs, tmp_path / "runs", counted_shards=[two[0], other])
    assert not any((tmp_path / "runs").glob("[!.]*"))


def test_a_shard_that_is_lost_damaged_or_lacks_a_run_is_refused(
    runs, make, two, count, runs_of, tmp_path
):
    lost = tmp_path / two[1].name
    with pytest.raises(UserError, match=f"{lost.name}: missing; count this shard first"):
        make(runs, tmp_path / "runs", counted_shards=[two[0], lost])
    lost.write_bytes(two[1].read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{lost.name}: damaged; delete it and start"):
        make(runs, tmp_path / "runs", counted_shards=[two[0], lost])
    fewer = count(Shard(2, 2), tmp_path, runs_of(SOME[0]))
    with pytest.raises(UserError, match=f"{fewer.name}: lacks 2 runs, as "):
        make(runs, tmp_path / "runs", counted_shards=[two[0], fewer])
    assert not any((tmp_path / "runs").glob("[!.]*"))


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UserError, match="must be a shard such as 2/7"):
        Shard.of(text)
    assert Shard.of("2/7") == Shard(2, 7)
