"""A training repeats, resumes and compares; what it cannot do is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from cliptrase.errors import UserError
from cliptrase.files import read_json
from cliptrase.san import cost, settings, store
from cliptrase.san.figure import read_runs
from cliptrase.san.store import check_room, make_store, open_store, scene_of
from cliptrase.san.train import Training, begun, rows_of, run_arm, train, write_run
from cliptrase.shapes.scenes import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS

from .conftest import small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tiny, clip, text, data, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("whole") / "plain-0.pt"
    return train(tiny, "plain", 0, clip, text, data, checkpoint), checkpoint


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    tiny, clip, text, data, trained, tmp_path
):
    for stop in (1, 3, None):
        again = train(tiny, "plain", 0, clip, text, data, tmp_path / "parts.pt", stop=stop)
    for name, value in trained[0].model.state_dict().items():
        assert value.equal(again.model.state_dict()[name]), name
    files = []
    for place, each in enumerate((trained[0], again)):
        files.append(tmp_path / f"{place}.npz")
        write_run(tiny, files[-1], each, {})
    assert files[0].read_bytes() == files[1].read_bytes()
    counts = np.load(files[0])
    assert counts["tp"].shape == (3, 2, 27) and counts["iterations"].tolist() == [0, 2, 5]
    assert (counts["gt"].sum(axis=2) == 224 * 224).all()
    assert (counts["pred"].sum(axis=2) == 224 * 224).all()
    assert (counts["tp"] <= np.minimum(counts["gt"], counts["pred"])).all()


def test_arms_differ_in_the_initial_queries_alone(tiny, clip, text, data):
    models = {arm: begun(tiny, arm, 0, clip, text, data).state_dict() for arm in tiny.arms}
    for name, value in models["plain"].items():
        same = [value.equal(models[arm][name]) for arm in ("cliptrase", "shuffled")]
        assert same == [name != "side.query"] * 2, name
    queries = [each["side.query"] for each in models.values()]
    assert not queries[1].equal(queries[2])
    assert all(float(each.std()) == pytest.approx(0.02, rel=0.2) for each in queries)
    other = begun(tiny, "plain", 1, clip, text, data).state_dict()
    assert not other["side.blocks.0.qkv.weight"].equal(models["plain"]["side.blocks.0.qkv.weight"])


def test_every_picture_is_seen_once_an_epoch(tiny):
    wanted = small(tiny, pictures=10, batch=5)
    epochs = [[*rows_of(wanted, 0, 2 * each), *rows_of(wanted, 0, 2 * each + 1)] for each in (0, 1)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs) and epochs[0] != epochs[1]
    assert rows_of(wanted, 1, 0) != epochs[0][:5]


def test_scenes_that_teach_are_none_of_those_that_score(tiny):
    assert {*map(len, (TRAIN_SEEDS, VALIDATION_SEEDS))} == {100_000_000}
    assert TRAIN_SEEDS.stop <= VALIDATION_SEEDS.start and VALIDATION_SEEDS.stop <= TEST_SEEDS.start
    last = settings.load("shapes")
    seed = VALIDATION_SEEDS[store.FIRST_VALIDATION + last.validation - 1]
    scored = scene_of(last, last.pictures + last.validation - 1)
    assert np.array_equal(scored.image, store.scenes.scene(seed).image)


def test_the_learning_rate_falls_by_the_polynomial(tiny, clip, text, data):
    training = Training(tiny, open_store(tiny, data), begun(tiny, "plain", 0, clip, text, data), 0)
    training.step(1)
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(
        tiny.learning_rate * (1 - 1 / 5) ** 0.9
    )


def test_a_checkpoint_of_another_experiment_is_refused(tiny, clip, text, data, trained):
    for san, arm, seed in ((small(tiny, points=16), "plain", 0), (tiny, "cliptrase", 0)):
        with pytest.raises(UserError, match=r"plain-0.pt belongs to another .*delete it"):
            train(san, arm, seed, clip, text, data, trained[1])


def test_a_damaged_checkpoint_is_refused(tiny, clip, text, data, trained, tmp_path):
    """Cut off, empty, or with one bit of a weight turned over, which torch would read."""
    written, file = trained[1].read_bytes(), tmp_path / "bad.pt"
    weights = trained[0].model.side.patch.weight.detach().numpy().tobytes()
    place = written.index(weights[:64])
    turned = written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :]
    for content in (turned, written[:-100], b""):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"bad.pt: a damaged checkpoint; delete it"):
            train(tiny, "plain", 0, clip, text, data, file)


def test_a_finished_run_is_what_the_figure_reads_and_leaves_no_checkpoint(tiny, data, empty):
    """A checkpoint would be in the way of the same run of other code."""
    san = small(tiny, arms=("plain",), seeds=(0,))
    file = run_arm(san, "plain", 0, data)
    assert [run["tp"].shape for run in read_runs(san)["plain"]] == [(3, 2, 27)]
    assert read_json(file.with_suffix(".json"))["code"] == settings.code_of("train")
    assert not [*(san.folder / "checkpoints").iterdir()]


def test_what_is_missing_is_named_with_its_cure(tiny, clip, text, data, tmp_path):
    with pytest.raises(UserError, match=r"python -m cliptrase.san.store tiny"):
        open_store(tiny, tmp_path)
    with pytest.raises(UserError, match=r"python -m cliptrase.san.store tiny"):
        open_store(small(tiny, pictures=4), data)  # the store is of five
    with pytest.raises(UserError, match=r"python -m cliptrase.san.regions tiny"):
        begun(tiny, "cliptrase", 0, clip, text, tmp_path)
    with pytest.raises(UserError, match=r"unknown arm 'cliptrace'; did you mean 'cliptrase'"):
        begun(tiny, "cliptrace", 0, clip, text, data)


def test_what_other_code_made_is_refused(tiny, clip, text, data, trained, monkeypatch):
    usual = settings.code_of
    monkeypatch.setattr(settings, "code_of", lambda module: f"another {module}")
    with pytest.raises(UserError, match=r"this code; make them with .*cliptrase.san.store tiny"):
        open_store(tiny, data)
    with pytest.raises(UserError, match=r"other code; make them with .*cliptrase.san.regions tiny"):
        begun(tiny, "cliptrase", 0, clip, text, data)
    monkeypatch.setattr(settings, "code_of", lambda module: usual("store"))
    with pytest.raises(UserError, match=r"plain-0.pt belongs to another .*delete it"):
        train(tiny, "plain", 0, clip, text, data, trained[1])


def test_a_disk_without_room_is_refused_before_anything_is_written(tiny, clip, tmp_path):
    with pytest.raises(UserError, match=r"take 1000.0 PB|take .* TB, and .* are free"):
        check_room(tmp_path / "tiny", 10**18)
    usage = shutil.disk_usage(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(UserError, match=r"tiny: pictures and CLIP's tokens of them take .* MB"):
            make_store(tiny, clip, tmp_path)
    assert not [*(tmp_path / "san").iterdir()]


def test_more_classes_than_queries_are_refused(tiny, clip, tmp_path):
    with pytest.raises(UserError, match=r"queries=1: scene 0 has 2 classes"):
        make_store(small(tiny, queries=1), clip, tmp_path)
    assert not [*(tmp_path / "san").iterdir()]  # nothing half-written


def test_a_finished_store_of_more_classes_than_queries_is_refused(tiny, data):
    """Its key has no queries: other numbers of them read the same pictures."""
    most = max(len(np.unique(each)) for each in open_store(tiny, data).classes)
    open_store(small(tiny, queries=most), data)
    with pytest.raises(UserError, match=rf"queries={most - 1}: a picture of .*{most} classes"):
        open_store(small(tiny, queries=most - 1), data)


def test_no_class_takes_no_query(tiny):
    classes = np.array([[0, 1], [1, store.NO_CLASS]], dtype=np.uint8)
    assert store.check_queries(small(tiny, queries=2), classes, "it") == 2


def test_full_scale_without_a_gpu_is_refused_with_what_it_takes(monkeypatch):
    monkeypatch.setattr(cost, "may_have_gpu", lambda: False)
    with pytest.raises(UserError, match=r"coco: a run takes about \d+ hours of a GPU \(there are"):
        cost.refuse_without_gpu(settings.load("coco"))
    cost.refuse_without_gpu(settings.load("shapes"))


def test_a_batch_in_parts_is_the_batch(tiny, clip, text, data):
    """Where a GPU has no room for it: the same points too."""
    found = []
    for at_once in (2, 1):
        model = begun(tiny, "plain", 0, clip, text, data)
        training = Training(tiny, open_store(tiny, data), model, 0)
        training.at_once = at_once
        found.append((training.step(1), model.side.query.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_a_lack_of_memory_halves_what_is_computed_at_once(tiny, clip, text, data, monkeypatch):
    training = Training(tiny, open_store(tiny, data), begun(tiny, "plain", 0, clip, text, data), 0)
    answers, asked = training.answers, []

    def scarce(batch, some):
        asked.append(len(range(*some.indices(len(batch.pixels)))))
        if asked[-1] > 1:
            raise torch.OutOfMemoryError
        return answers(batch, some)

    monkeypatch.setattr(training, "answers", scarce)
    training.step(1)
    assert asked == [2, 1, 1]
