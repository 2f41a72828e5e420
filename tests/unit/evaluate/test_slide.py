"""Sliding windows: where they lie, what they are averaged to, and passes over whole pictures."""

import csv
import json

import numpy as np
import pytest
import torch
from slow_slide import averaged as slow_averaged
from slow_slide import classified, probabilities, upsampled, window_spans

from cliptrase.data import open_dataset
from cliptrase.data.read.labels import TABLES
from cliptrase.data.read.opencv import linear
from cliptrase.data.read.vocabularies import read_classes
from cliptrase.evaluate import passes, protocols, slide
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.slide import LargestProbability, Window, averaged, padded, places, starts
from cliptrase.evaluate.targets import Target, target_key
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.model.load import load_clip
from cliptrase.runs import finished, scoring
from cliptrase.segment import ways

SLIDE = ["protocol=slide", "protocol.short_side=160", "protocol.stride=56", "limit=3"]
RUN = ["benchmark=shapes_bg", "method=sclip", *SLIDE]
WINDOWS = 4  # of 112 pixels, in a square of 160


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (68, [0]),
        (224, [0]),
        (225, [0, 1]),
        (336, [0, 112]),
        (337, [0, 112, 113]),
        (448, [0, 112, 224]),
        (505, [0, 112, 224, 281]),
        (560, [0, 112, 224, 336]),
    ],
)
def test_starts(length, expected):
    assert starts(length, 224, 112) == expected


def test_windows_cover_every_pixel_and_end_at_the_border():
    for length in range(1, 400):
        for window, stride in ((112, 56), (112, 112), (96, 7), (112, 100)):
            found = starts(length, window, stride)
            assert [(at, min(at + window, length)) for at in found] == window_spans(
                length, window, stride
            )
            assert found[0] == 0 and found == sorted(set(found))
            assert found[-1] == max(length - window, 0)
            assert max(np.diff(found), default=0) <= stride <= window
    assert places((225, 337), 224, 112) == [(y, x) for y in (0, 1) for x in (0, 112, 113)]


def test_only_a_side_shorter_than_the_window_is_padded():
    pixels = torch.ones(3, 61, 203)
    found = padded(pixels, 112, 16)
    assert found.shape == (3, 64, 203)
    assert (found[:, :61] == 1).all() and (found[:, 61:] == 0).all()
    assert padded(torch.ones(3, 203, 61), 112, 16).shape == (3, 203, 64)
    assert padded(torch.ones(3, 48, 113), 112, 16).shape == (3, 48, 113)


# ---------------------------------------------------------------- averages and probabilities


def windows_of(names, regions=False):
    """Four windows of 8 × 8 pixels and 2 × 3 logits in a picture of 12 × 11."""
    generator = torch.Generator().manual_seed(names)
    out = []
    for place in places((12, 11), 8, 4):
        logits = torch.randn(names, 2, 3, generator=generator)
        own = torch.randint(0, 3, (8, 8), generator=generator) if regions else None
        out += Window.each([place], (8, 8), logits[None], None if own is None else own[None])
    return out


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("names", [1, slide.CHUNK, 2 * slide.CHUNK + 3])
def test_averaged(names, regions):
    """A few names at a time, each pixel the mean of the windows that see it, cut, then resized."""
    windows = windows_of(names, regions)
    parts = list(averaged(windows, (12, 11), (10, 11), (17, 23)))
    assert [part.shape[1] for part in parts[:-1]] == [slide.CHUNK] * (len(parts) - 1)
    sums, counts = np.zeros((names, 12, 11)), np.zeros((12, 11))
    for window in windows:
        pixels = upsampled(window.logits.double().numpy(), 8, 8)
        for region in range(3 if regions else 0):
            own = (window.regions == region).numpy()
            pixels[:, own] = pixels[:, own].mean(axis=1, keepdims=True)
        top, left = window.place
        sums[:, top : top + 8, left : left + 8] += pixels
        counts[top : top + 8, left : left + 8] += 1
    assert counts.min() == 1 and counts.max() == 4
    expected = upsampled((sums / counts)[:, :10], 17, 23)
    np.testing.assert_allclose(torch.cat(parts, dim=1)[0], expected, atol=1e-5)


def test_a_window_without_a_cluster_keeps_its_logits():
    """Also where another window of its batch has one."""
    logits = torch.randn(2, 5, 2, 2, generator=torch.Generator().manual_seed(1))
    noise, one = torch.full((8, 8), -1), torch.zeros((8, 8), dtype=torch.int64)
    places = [(0, 0), (0, 8)]
    without = Window.each(places, (8, 8), logits, None)
    alone = Window.each(places[:1], (8, 8), logits[:1], noise[None])
    beside = Window.each(places, (8, 8), logits, torch.stack([noise, one]))
    for names in (slice(1, 4), slice(0, 1)):
        expected = without[0].maps(names)
        assert torch.equal(alone[0].maps(names), expected)
        assert torch.equal(beside[0].maps(names), expected)
        assert not torch.equal(beside[1].maps(names), without[1].maps(names))


@pytest.mark.parametrize("sizes", [[1] * 9, [9], [4, 4, 1]])
def test_the_largest_probability_is_that_of_a_softmax_over_all_names(sizes):
    generator = torch.Generator().manual_seed(2)
    logits = torch.rand(1, 9, 5, 7, generator=generator) * 2 - 1
    scales = [0.5, 40.0, 1000.0]  # the last overflows where the largest is not taken off first
    largest = LargestProbability(scales)
    passed = list(largest.watching(logits.split(sizes, dim=1)))
    assert torch.equal(torch.cat(passed, dim=1), logits)
    for scale in scales:
        expected = torch.softmax(scale * logits.double(), dim=1).amax(dim=1)
        torch.testing.assert_close(largest(scale).double(), expected, atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------- a pass


@pytest.fixture(scope="module")
def alone(runs_of, make, tmp_path_factory):
    (folder,) = make(runs_of(RUN), tmp_path_factory.mktemp("alone")).values()
    return folder


def contents(folder):
    return {
        name: (folder / name).read_bytes() for name in finished.FILES if name != "provenance.json"
    }


def test_the_matrix_is_the_reference_s(alone, runs_of, data):
    """From the scene to the matrix: only a window's patch features and the words are ours."""
    (run,) = runs_of(RUN).values()
    clip = load_clip(run.model)
    _, text = text_of(run, clip, data)
    words, owner = text.features.double().numpy(), text.owner.tolist()
    assert owner.count(0) > 1 and owner == sorted(owner) and max(owner) == 20

    def encode(part):
        with torch.inference_mode():
            graph = Graph(clip, torch.from_numpy(part[None].astype(np.float32)))
            patches = graph.patches(run.method)[0].double().numpy()
        return upsampled((words @ patches.T).reshape(-1, 7, 7), 112, 112)

    with open(TABLES / "shapes_to_objects.csv") as file:
        table = {int(row["raw"]): int(row["class"]) for row in csv.DictReader(file)}
    matrix, close = np.zeros((21, 21), np.int64), 0
    for sample in open_dataset(run, data):
        logits = slow_averaged(
            np.asarray(sample.image), encode, window=112, short_side=160, stride=56, patch=16,
            resize=linear,
            mean=clip.mean, std=clip.std,
        )  # fmt: skip
        predicted, unsure = classified(probabilities(logits, owner, 40.0), 0.1)
        close += int(unsure.sum())
        truth = np.vectorize(lambda raw: table.get(raw, -1) + 1)(sample.label)
        np.add.at(matrix, (truth, predicted), 1)
    found = np.load(alone / "confusion.npz")["confusion"]
    assert found.sum() == matrix.sum() == 3 * 224 * 224
    assert np.array_equal(found.sum(axis=1), matrix.sum(axis=1))
    assert close < 0.02 * found.sum()
    assert np.abs(found - matrix).sum() <= 2 * close
    assert np.abs(found - matrix).sum() <= 1e-4 * found.sum()
    assert (matrix.sum(axis=0) > 0).sum() > 3 and matrix[0].sum() > 0
    metrics = json.loads((alone / "metrics.json").read_text())
    names = [own[0] for own in read_classes(run.vocabulary.classes.path)]
    assert [entry["name"] for entry in metrics["iou"]] == ["background", *names]
    assert metrics["rule"] == "mmseg" and metrics["images"] == 3


@pytest.mark.parametrize("options", [{"workers": 2}, {"batched": True, "batch_size": 1}])
def test_a_run_is_the_same_with_any_number_of_threads(options, alone, runs_of, make, tmp_path):
    (folder,) = make(runs_of(RUN), tmp_path, **options).values()
    assert contents(folder) == contents(alone)


def test_a_run_is_the_same_alone_and_in_company(alone, runs_of, make, tmp_path):
    soft = ["benchmark=shapes_bg", "method=cliptrase", "method.regions.vote=soft", *SLIDE]
    other = ["benchmark=shapes", "method=sclip", *SLIDE]  # other words
    company = runs_of(
        soft,
        [*RUN, "protocol.background_threshold=0.05"],
        [*RUN, "protocol.logit_scale=65"],
        [*RUN, "protocol.rule=detectron2"],
        RUN,
        other,
        [*soft, "method.regions.vote=none"],
    )
    folders = make(company, tmp_path, workers=2, batch_size=3)
    assert contents(folders[alone.name]) == contents(alone)
    (second,) = make(runs_of(other), tmp_path / "other").values()
    assert contents(folders[second.name]) == contents(second)
    others = [contents(folder)["confusion.npz"] for folder in folders.values()]
    assert len(set(others)) == len(others) - 1  # another rule reads the same matrix


def test_windows_that_do_not_fit_are_halved(alone, runs_of, make, tmp_path, monkeypatch):
    sizes = []

    class Small(protocols.Graph):
        def __init__(self, clip, pixels, **beside):
            sizes.append(len(pixels))
            if len(pixels) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(clip, pixels, **beside)

    monkeypatch.setattr(protocols, "Graph", Small)
    (folder,) = make(runs_of(RUN), tmp_path, batched=True, batch_size=16).values()
    one_by_one = [1] * WINDOWS
    assert sizes == [*one_by_one, 4, 2, *one_by_one * 3]  # operations are counted first
    assert contents(folder) == contents(alone)


def test_a_cpu_takes_one_window_at_a_time(alone, runs_of, make, tmp_path, monkeypatch):
    """So that no number depends on batch_size, nor on the number of windows."""
    sizes = []

    class Noted(protocols.Graph):
        def __init__(self, clip, pixels, **beside):
            sizes.append(len(pixels))
            super().__init__(clip, pixels, **beside)

    monkeypatch.setattr(protocols, "Graph", Noted)
    (folder,) = make(runs_of(RUN), tmp_path, batch_size=16).values()
    assert sizes == [1] * WINDOWS * 4
    assert contents(folder) == contents(alone)


def test_without_a_background_no_threshold_counts(runs_of, make, tmp_path):
    plain = ["benchmark=shapes", "method=sclip", *SLIDE]
    runs = runs_of(*([*plain, f"protocol.background_threshold={t}"] for t in (0, 0.9)))
    one, other = (contents(folder)["confusion.npz"] for folder in make(runs, tmp_path).values())
    assert one == other


def test_batches_of_windows_give_what_single_windows_give(alone, runs_of, make, tmp_path):
    (folder,) = make(runs_of(RUN), tmp_path, batched=True, batch_size=3).values()
    one, other = (np.load(at / "confusion.npz")["confusion"] for at in (alone, folder))
    assert np.abs(one - other).sum() / 2 <= 1e-5 * one.sum()


def test_windows_that_vote_give_the_same_the_way_of_a_gpu(runs_of, make, tmp_path, monkeypatch):
    soft = ["benchmark=shapes_bg", "method=cliptrase", "method.regions.vote=soft", *SLIDE]
    folders = [make(runs_of(soft), tmp_path / "cpu")]
    monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    folders.append(make(runs_of(soft), tmp_path / "gpu", batched=True, batch_size=3))
    one, other = (
        np.load(folder / "confusion.npz")["confusion"] for (folder,) in map(dict.values, folders)
    )
    assert np.abs(one - other).sum() / 2 <= 1e-5 * one.sum()


@pytest.mark.parametrize("batched", [False, True])
def test_a_window_that_does_not_fit_alone(batched, runs_of, make, tmp_path, monkeypatch):
    class Large(protocols.Graph):
        def __init__(self, clip, pixels, **beside):
            raise MemoryError

    monkeypatch.setattr(protocols, "Graph", Large)
    with pytest.raises(passes.UserError, match="one window of 112 pixels does not fit"):
        make(runs_of(RUN), tmp_path, batched=batched)


def test_operations_are_those_of_all_windows(alone, runs_of, make, tmp_path):
    crop = runs_of(["benchmark=shapes_bg", "method=sclip", "limit=3"])
    (folder,) = make(crop, tmp_path).values()
    one, all_windows = (
        json.loads((at / "metrics.json").read_text())["flops"] for at in (folder, alone)
    )
    assert all_windows == WINDOWS * one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("protocol.short_side=224", r"must share protocol\.short_side: 160, 224"),
        ("protocol.stride=28", r"must share protocol\.stride: 28, 56"),
    ],
)
def test_runs_that_see_other_windows_are_refused(change, message, runs_of, make, tmp_path):
    with pytest.raises(passes.UserError, match=message):
        make(runs_of(RUN, [*RUN, change]), tmp_path)


# ---------------------------------------------------------------- pictures that are not square


class Cut:
    """Scenes of which only a part is there, each of another size."""

    def __init__(self, samples):
        self.samples, self.ids = samples, samples.ids

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, position):
        sample = self.samples[position]
        width, height = 224 - 20 * position, 100 + 31 * position
        image = sample.image.crop((0, 0, width, height))
        return type(sample)(sample.id, image, sample.label[:height, :width])


def test_pictures_of_any_shape_are_scored_at_their_own_size(runs_of, make, data, tmp_path):
    (name, run), *_ = runs_of(RUN).items()
    samples = Cut(open_dataset(run, data))
    loaded = Loader.of(samples, [run])(2)
    assert loaded.shown.pixels.shape == (160, 182, 3) and loaded.shown.out_size == (162, 184)
    assert loaded.truths[target_key(run)].rows.size == 162 * 184
    with pytest.MonkeyPatch.context() as patched, single_threaded_pool(1):
        patched.setattr(passes, "open_dataset", lambda run, data, any_code: samples)
        folder = make({name: run}, tmp_path)[name]
    counts = scoring.read_counts(folder)
    sizes = [(100 + 31 * n) * (224 - 20 * n) for n in range(3)]
    assert counts.gt.sum(axis=1).tolist() == sizes == counts.pred.sum(axis=1).tolist()


def test_no_image_is_skipped(runs_of):
    (run,) = runs_of(["benchmark=voc20", *SLIDE]).values()
    nothing = Target.of(run).truth(np.full((4, 5), 255), "image 1")
    assert nothing is not None and nothing.rows.size == 0


def test_equal_names_stay_equal_however_many_there_are():
    """Resized as channels of one tensor, the last three of eleven are rounded otherwise."""
    one = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    logits = one.expand(2, 11, 6, 6).contiguous()
    windows = Window.each([(0, 0), (0, 48)], (96, 96), logits, None)
    maps = torch.cat(list(averaged(windows, (96, 144), (96, 144), (130, 200))), dim=1)
    assert maps.shape == (1, 11, 130, 200) and (maps == maps[:, :1]).all()
