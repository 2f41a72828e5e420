"""What a pass keeps of every image: little, whatever there are of classes, and nothing is lost."""

import numpy as np
import pytest

from cliptrase.config.metric_names import RULES
from cliptrase.evaluate.tally import ImageResult, Progress, Tally
from cliptrase.runs import bootstrap
from cliptrase.runs.bootstrap import BLOCK
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts

IMAGES = 2 * BLOCK + 5
SKIPPED = (0, 7, BLOCK - 1, IMAGES - 1)


def results(images, classes, used, seed=0):
    """An image's result, None where it is skipped, and its confusion matrix; `used` classes."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for index in range(images):
        if index in SKIPPED:
            yield None, np.zeros((classes, classes), np.int64)
            continue
        known = rng.choice(classes, used, replace=False)
        labels = np.append(known, 65535)[rng.integers(0, used + 1, (8, 8))]
        truth = GroundTruth.of(labels, classes)
        predicted = known[rng.integers(0, used, (8, 8))]
        yield ImageResult.of(truth, predicted), truth.confusion(predicted)


def filled(images, classes, used):
    """A tally, and the dense tables (3, images, classes) that it stands for."""
    kept, dense = Tally(images, classes), np.zeros((3, images, classes), np.int32)
    for position, (result, matrix) in enumerate(results(images, classes, used)):
        kept.add(position, result)
        dense[:, position] = class_counts(matrix)
    return kept, dense


def test_counts_are_those_of_each_image():
    kept, dense = filled(IMAGES, 12, 4)
    counts = kept.counts([f"image {index}" for index in range(IMAGES)])
    assert counts.skipped.nonzero()[0].tolist() == list(SKIPPED)
    for rows, expected in zip((counts.tp, counts.gt, counts.pred), dense, strict=True):
        assert rows.dtype == np.int32 and np.array_equal(rows, expected)


@pytest.mark.parametrize("rule", RULES)
def test_resamples_are_those_of_dense_counts(rule):
    """To the last bit, and those of all images at once."""
    kept, dense = filled(IMAGES, 12, 4)
    counts = kept.counts([str(index) for index in range(IMAGES)])
    found = bootstrap.resampled(rule, counts.tp, counts.gt, counts.pred)
    at_once = bootstrap.weights(IMAGES).astype(np.int64) @ dense.astype(np.int64)
    for metric, values in bootstrap.scores(rule, *at_once).items():
        assert found[metric].tobytes() == np.asarray(values).tobytes()


@pytest.mark.parametrize("classes", [12, 847])
def test_an_image_takes_as_much_as_it_shows(classes):
    """16 bytes for each of its classes and 9 more; nothing is held for the others."""
    kept, _ = filled(50, classes, 4)
    held = kept.entries.nbytes + kept.ends.nbytes + kept.skipped.nbytes
    assert held <= 50 * (4 * 16 + 9)
    assert kept.confusion.nbytes == 8 * classes**2  # once a run


def test_resamples_of_an_image_take_a_byte_each():
    assert bootstrap.weights(300).nbytes == 300 * bootstrap.RESAMPLES


def test_what_was_saved_goes_on_as_if_nothing_had_been(tmp_path):
    whole, _ = filled(30, 12, 4)
    first, second = Tally(30, 12), Tally(30, 12)
    before, after = Progress({"a": first}), Progress({"a": second})
    for position, (result, _) in enumerate(results(30, 12, 4)):
        if position == 11:
            before.position = position
            before.save(tmp_path / "partial.npz", {"code": "1"})
            after.resume(tmp_path / "partial.npz", {"code": "1"})
            assert after.position == 11
        (first if position < 11 else second).add(position, result)
    for key in Tally.ARRAYS:
        assert np.array_equal(getattr(second, key), getattr(whole, key))
    first.add(11, None)  # what was saved is no longer held on to


@pytest.mark.parametrize("place", [0, 30, 200, 700, -60, -40, -1])
def test_counts_with_a_bit_turned_over_are_not_gone_on_with(tmp_path, place, caplog):
    kept, _ = filled(5, 12, 4)
    file = tmp_path / "partial.npz"
    Progress({"a": kept}, position=5).save(file, {"code": "1"})
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)
    after = Progress({"a": Tally(5, 12)})
    after.resume(file, {"code": "1"})
    assert after.position == 0 and not after.tallies["a"].confusion.any()
    assert caplog.messages == [f"{file} is not what was written: starting over"]


def test_an_image_out_of_turn_is_refused():
    kept = Tally(5, 12)
    kept.add(0, None)
    for position in (0, 2):
        with pytest.raises(ValueError, match="not the one after 1 images"):
            kept.add(position, None)


def test_a_run_without_images_has_empty_tables():
    counts = Tally(3, 4).counts([])
    assert counts.tp[:].shape == (0, 4)
