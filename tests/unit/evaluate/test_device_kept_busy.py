"""What a pass does for its device: start once, decode ahead of the encoder, halve large batches.

The batches of a GPU are tried on the CPU. Order is shown by events, not by time.
"""

from __future__ import annotations

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from cliptrase.evaluate import passes, protocols, textcache
from cliptrase.evaluate.tally import Tally
from cliptrase.evaluate.truth import Loader
from cliptrase.model import text

CLIPTRASE = ["method=cliptrase"]
IMAGES = 6
LONG = 60  # seconds until what should have happened has not


class Events:
    """When each image was decoded."""

    def __init__(self) -> None:
        self.decoded = [threading.Event() for _ in range(IMAGES)]
        self.shown: list[int] = []


@pytest.fixture
def events(monkeypatch) -> Events:
    """Events of the next pass. (Image 0 is decoded once before it starts, to count operations.)"""
    seen, load = Events(), Loader.__call__

    def loaded(loader, position):
        image = load(loader, position)
        seen.shown.append(position)
        if position or seen.shown.count(0) > 1:
            seen.decoded[position].set()
        return image

    monkeypatch.setattr(Loader, "__call__", loaded)
    return seen


def test_the_next_batch_is_decoded_while_the_encoder_runs(
    runs_of, make, tmp_path, monkeypatch, events
):
    """A batch that is with the encoder waits there until the one after it has been decoded."""
    encoded: list[int] = []

    class Patient(protocols.Graph):
        def __init__(self, clip, pixels, *more, **beside):
            if events.decoded[0].is_set():
                first = sum(encoded)
                encoded.append(len(pixels))
                for next_one in range(first + len(pixels), min(first + 2 * len(pixels), IMAGES)):
                    assert events.decoded[next_one].wait(LONG), f"image {next_one} is not decoded"
            super().__init__(clip, pixels, *more, **beside)

    monkeypatch.setattr(protocols, "Graph", Patient)
    make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=2, workers=1)
    assert encoded == [2, 2, 2]


def test_only_so_many_images_are_decoded_ahead(runs_of, make, tmp_path, monkeypatch, events):
    """Two batches, as decoded images are what a pass holds most of."""
    ahead = []

    class Counting(protocols.Graph):
        def __init__(self, clip, pixels, *more, **beside):
            ahead.append(len(set(events.shown)))
            super().__init__(clip, pixels, *more, **beside)

    monkeypatch.setattr(protocols, "Graph", Counting)
    make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=1, workers=4)
    assert ahead[0] == 1 and all(
        count <= min(IMAGES, number + 2) for number, count in enumerate(ahead[1:])
    )


def test_on_a_cpu_the_next_images_are_computed_while_one_is_counted(
    runs_of, make, tmp_path, monkeypatch
):
    computed = [threading.Event() for _ in range(IMAGES)]
    results, add = passes.Predictor._results, Tally.add

    def noted(predictor, image, maps):
        found = results(predictor, image, maps)
        computed[image.position].set()
        return found

    def patient(tally, position, found):
        for next_one in range(position + 1, min(position + 4, IMAGES)):
            assert computed[next_one].wait(LONG), f"image {next_one} waits for image {position}"
        add(tally, position, found)

    monkeypatch.setattr(passes.Predictor, "_results", noted)
    monkeypatch.setattr(Tally, "add", patient)
    make(runs_of(CLIPTRASE), tmp_path, workers=2)


def test_nothing_in_a_pass_has_threads_of_its_own(runs_of, make, data, tmp_path, monkeypatch):
    """Opening, encoding words, images: one thread of mathematics in each of the pass's threads."""
    found: list[tuple[str, int]] = []

    def counted(module, name):
        call = getattr(module, name)

        def noted(*arguments, **options):
            threads = [torch.get_num_threads(), *(one["num_threads"] for one in threadpool_info())]
            found.append((name, max(threads)))
            return call(*arguments, **options)

        monkeypatch.setattr(module, name, noted)

    for module, name in (
        (passes, "open_dataset"),
        (passes, "load_clip"),
        (text, "encode_tokens"),
        (Loader, "__call__"),
        (protocols, "Graph"),
        (passes.Predictor, "_results"),
    ):
        counted(module, name)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        make(runs_of(CLIPTRASE), tmp_path, data=without_text_features(data, tmp_path), workers=2)
    finally:
        torch.set_num_threads(before)
    assert {name for name, _ in found} == {
        "open_dataset", "load_clip", "encode_tokens", "__call__", "Graph", "_results",
    }  # fmt: skip
    assert {most for _, most in found} == {1}


def without_text_features(data, folder):
    """A data folder with the same datasets."""
    root = folder / "data"
    root.mkdir()
    (root / "prepared").symlink_to(data / "prepared")
    return root


def test_a_pass_starts_once_for_all_its_runs(runs_of, make, data, tmp_path, monkeypatch):
    """One model, one look at the dataset, each list of words encoded once, each image read once."""
    calls: list[str] = []

    def counted(module, name):
        call = getattr(module, name)

        def noted(*arguments, **options):
            calls.append(name)
            return call(*arguments, **options)

        monkeypatch.setattr(module, name, noted)

    for module, name in (
        (passes, "load_clip"),
        (passes, "open_dataset"),
        (textcache, "text_features"),
        (Loader, "__call__"),
        (passes, "computing_on"),
        (passes, "single_threaded_pool"),
    ):
        counted(module, name)
    eps = [["method=cliptrase", f"method.regions.eps={value}"] for value in (0.3, 0.5, 0.7, 0.9)]
    words = ["benchmark=shapes_fine"]
    runs = runs_of(*eps, ["method=clip"], ["method=sclip"], ["method=clip", *words])
    root = without_text_features(data, tmp_path)
    assert len(make(runs, tmp_path, data=root)) == 7
    assert {name: calls.count(name) for name in calls} == {
        "load_clip": 1,
        "open_dataset": 1,
        "text_features": 2,
        "__call__": IMAGES + 1,  # the first counts operations
        "computing_on": 1,
        "single_threaded_pool": 1,
    }
    calls.clear()
    assert len(make(runs, tmp_path, data=root)) == 7
    assert calls == [], "nothing is left to do: neither model nor dataset is opened"


def outcome(folder):
    return [
        (folder / name).read_bytes() for name in ("metrics.json", "confusion.npz", "per_image.npz")
    ]


class Memory:
    """A GPU's, in images: `room` for so many, and after `shrinks` batches for one less each."""

    def __init__(self, room: int, shrinks: int = 99) -> None:
        self.room, self.shrinks = room, shrinks
        self.tried: list[int] = []
        self.fitted: list[int] = []

    def graph(self):
        memory = self

        class Limited(protocols.Graph):
            def __init__(self, clip, pixels, *more, **beside):
                room = memory.room - max(0, len(memory.fitted) - memory.shrinks)
                memory.tried.append(len(pixels))
                if len(pixels) > room:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                memory.fitted.append(len(pixels))
                super().__init__(clip, pixels, *more, **beside)

        return Limited


@pytest.mark.parametrize(("room", "asked", "then"), [(2, 4, 2), (3, 6, 3), (1, 6, 1), (2, 16, 1)])
def test_after_a_halving_the_numbers_are_those_of_that_batch_size(
    room, asked, then, runs_of, make, tmp_path, monkeypatch
):
    runs = runs_of(CLIPTRASE)
    (expected,) = make(runs, tmp_path / "then", batched=True, batch_size=then).values()
    memory = Memory(room)
    monkeypatch.setattr(protocols, "Graph", memory.graph())
    (folder,) = make(runs, tmp_path / "asked", batched=True, batch_size=asked).values()
    assert outcome(folder) == outcome(expected)
    assert memory.fitted[1:] == [then] * (IMAGES // then)


def test_a_batch_size_never_grows_back(runs_of, make, tmp_path, monkeypatch):
    """Memory that shrinks under way costs one try a halving, no more."""
    memory = Memory(room=4, shrinks=1)
    monkeypatch.setattr(protocols, "Graph", memory.graph())
    (folder,) = make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=6).values()
    sizes = memory.tried[1:]
    assert sizes == sorted(sizes, reverse=True) and sum(memory.fitted[1:]) == IMAGES
    assert len(memory.tried) - len(memory.fitted) <= 2
    assert (folder / "metrics.json").is_file()
