"""A pass over a few scenes: the same numbers alone, in company, in threads, in batches."""

import contextlib
import dataclasses
import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch

from cliptrase.config.metric_names import METRICS
from cliptrase.data import open_dataset
from cliptrase.data.make.records import png
from cliptrase.data.read import labels as label_tables
from cliptrase.data.read import prepared
from cliptrase.data.read.crop import crop_image, crop_label
from cliptrase.data.read.ordered import in_order_by
from cliptrase.evaluate import jobs, passes, protocols
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.model import vision
from cliptrase.model.load import load_clip
from cliptrase.runs import code, finished, scoring
from cliptrase.runs.finished import status
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.runs.provenance import Stages
from cliptrase.segment import ways

IMAGES, SIZE = 6, 112
CLIPTRASE = ["benchmark=shapes_bg", "method=cliptrase"]


def unfinished(runs, out, data, **options):
    """The names of the runs that are not finished."""
    return [name for name in runs if not status(runs[name], out, data, **options).finished]


def contents(folder):
    """What must be equal between two makings of a run."""
    return {
        name: (folder / name).read_bytes() for name in finished.FILES if name != "provenance.json"
    }


@pytest.fixture(scope="module")
def alone(runs_of, make, tmp_path_factory):
    """The folder of one run that was made by itself."""
    (folder,) = make(runs_of(CLIPTRASE), tmp_path_factory.mktemp("alone")).values()
    return folder


def test_a_run_is_the_same_alone_and_in_company(alone, runs_of, make, tmp_path):
    company = runs_of(
        ["benchmark=shapes", "method=clip"],
        ["benchmark=shapes_bg", "method=clip"],
        [*CLIPTRASE, "method.regions.eps=0.9"],
        CLIPTRASE,
        [*CLIPTRASE, "method.regions.vote=none"],
        [*CLIPTRASE, "method.attention.first_block=10"],
        ["benchmark=shapes", "method=cliptrase"],
    )
    folders = make(company, tmp_path, workers=2)
    assert len(folders) == 7
    assert contents(folders[alone.name]) == contents(alone)
    others = [contents(folder)["confusion.npz"] for folder in folders.values()]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("workers", [2, 5])
def test_a_run_is_the_same_with_any_number_of_threads(workers, alone, runs_of, make, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (folder,) = make(runs_of(CLIPTRASE), tmp_path, workers=workers).values()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert contents(folder) == contents(alone)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_a_gpu_s_batches_give_what_single_images_give(
    batch_size, together, alone, runs_of, make, tmp_path, monkeypatch
):
    """The path that a GPU takes, on the CPU: at most one pixel in 100,000 may differ."""
    if together:
        monkeypatch.setattr(ways, "one_by_one", lambda device: False)
    runs = runs_of(CLIPTRASE)
    (folder,) = make(runs, tmp_path, batched=True, batch_size=batch_size).values()
    one, other = (np.load(at / "confusion.npz")["confusion"] for at in (alone, folder))
    assert np.abs(one - other).sum() / 2 <= 1e-5 * one.sum()
    assert np.array_equal(scoring.read_counts(folder).ids, scoring.read_counts(alone).ids)
    if batch_size == 1 and not together:
        assert contents(folder) == contents(alone)


def test_a_batch_that_does_not_fit_is_halved(alone, runs_of, make, tmp_path, monkeypatch):
    sizes = []

    class Small(protocols.Graph):
        def __init__(self, clip, pixels, *more, **beside):
            sizes.append(len(pixels))
            if len(pixels) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(clip, pixels, *more, **beside)

    monkeypatch.setattr(protocols, "Graph", Small)
    (folder,) = make(runs_of(CLIPTRASE), tmp_path, batched=True, batch_size=5).values()
    assert sizes == [1, 5, 2, 1, 1, 1, 1, 1, 1]  # the first counts operations
    assert contents(folder) == contents(alone)


def test_a_batch_is_as_large_as_the_run_says(runs_of, make, tmp_path, monkeypatch):
    sizes, graph = [], protocols.Graph
    monkeypatch.setattr(
        protocols,
        "Graph",
        lambda clip, pixels, *rest, **beside: (
            sizes.append(len(pixels)) or graph(clip, pixels, *rest, **beside)
        ),
    )
    make(runs_of(["method=clip", "batch_size=4"]), tmp_path, batched=True)
    assert sizes == [1, 4, 2]  # the first counts operations


WITHIN = ["method=cliptrase", "method.attention.within=truth", "method.regions.vote=none"]
ORACLES = [["benchmark=shapes", *WITHIN], ["benchmark=shapes_bg", *WITHIN]]


@pytest.fixture(scope="module")
def oracles(runs_of, make, tmp_path_factory):
    """The folders of an oracle on two benchmarks over the same images, each made by itself."""
    folders = [make(runs_of(one), tmp_path_factory.mktemp("oracle")) for one in ORACLES]
    return {name: folder for made in folders for name, folder in made.items()}


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_an_oracle_sees_the_truth_of_its_own_benchmark_in_any_company(
    batch_size, oracles, runs_of, make, tmp_path
):
    """One image a thread, as on a CPU, and in batches, as on a GPU; the last one is smaller."""
    more = [CLIPTRASE, ["benchmark=shapes", *WITHIN, "method.attention.within_cls=kept"]]
    options = {"workers": 2} if batch_size is None else {"batched": True, "batch_size": batch_size}
    folders = make(runs_of(*more, *ORACLES), tmp_path, **options)
    for name, alone in oracles.items():
        one, other = (np.load(at / "confusion.npz")["confusion"] for at in (alone, folders[name]))
        assert np.abs(one - other).sum() / 2 <= 1e-5 * one.sum()
        if batch_size != 4:
            assert contents(folders[name]) == contents(alone)


def test_an_image_of_ignored_pixels_alone_is_not_computed(runs_of, data, monkeypatch):
    (run,) = runs_of(["benchmark=shapes", *WITHIN]).values()
    clip, sample = load_clip(run.model), open_dataset(run, data)[0]
    empty = dataclasses.replace(sample, label=np.full_like(sample.label, 255))
    loader = Loader.of([empty], [run])
    monkeypatch.setattr(vision, "embed_tokens", pytest.fail)
    job = jobs.Job.of(run, "words", None)
    predictor = passes.Predictor(clip, loader, {"run": job}, Stages(), 1)
    with single_threaded_pool(1) as pool:
        assert list(predictor.singly(pool, [0], ahead=1)) == [(0, {"run": None})]


def test_what_counts_operations_leaves_no_position_embedding_behind(runs_of, data):
    """Where torch counts, it resizes it in another order, and the last bits differ."""
    (run,) = runs_of(CLIPTRASE).values()
    clip = load_clip(run.model)
    samples = open_dataset(run, data)
    job = jobs.Job.of(run, *text_of(run, clip, data))
    predictor = passes.Predictor(clip, Loader.of(samples, [run]), {"run": job}, Stages(), 1)
    with torch.inference_mode():
        side = SIZE // clip.patch
        plain = vision.position_embedding(clip, side, side).clone()
        clip.positions.clear()
        predictor.flops(0)
        assert torch.equal(vision.position_embedding(clip, side, side), plain)


NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"
)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("at", [1, 2])  # counting operations, the first image
def test_an_image_that_does_not_fit_alone(at, batched, runs_of, make, tmp_path, monkeypatch):
    made = []

    class Large(protocols.Graph):
        def __init__(self, clip, pixels, *more, **beside):
            made.append(len(pixels))
            if len(made) >= at:
                raise RuntimeError(NO_MEMORY)
            super().__init__(clip, pixels, *more, **beside)

    monkeypatch.setattr(protocols, "Graph", Large)
    message = "one image of 112 pixels does not fit .* take a smaller image_size"
    with pytest.raises(passes.UserError, match=message):
        make(runs_of(CLIPTRASE), tmp_path, batched=batched, batch_size=2)
    assert made[-1] == 1


def test_counts_are_those_of_the_predicted_maps(alone, runs_of, data):
    """One image from the model to its row of per_image.npz, step by step."""
    (run,) = runs_of(CLIPTRASE).values()
    sample = open_dataset(run, data)[3]
    clip = load_clip(run.model)
    _, text = text_of(run, clip, data)
    raw = crop_label(sample.label, SIZE)
    table = label_tables.read_table(run.benchmark.labels.map)
    classes = run.vocabulary.classes.count
    truth = np.vectorize(lambda value: table.get(value, classes))(raw)
    pixels = clip.normalise(crop_image(sample.image, SIZE)[None])
    with single_threaded_pool(1), torch.inference_mode():
        job = jobs.Job.of(run, "words", text)
        predicted = job.predict(protocols.Graph(clip, pixels, (SIZE, SIZE)))[0].numpy()
    counts = scoring.read_counts(alone)
    assert counts.ids[3] == sample.id
    for index in range(classes + 1):
        assert counts.gt[3, index] == (truth == index).sum()
        assert counts.pred[3, index] == (predicted == index).sum()
        assert counts.tp[3, index] == ((predicted == index) & (truth == index)).sum()


def test_metrics_follow_from_the_matrix(alone):
    found = json.loads((alone / "metrics.json").read_text(), parse_constant=pytest.fail)
    matrix = np.load(alone / "confusion.npz")["confusion"]
    counts = scoring.read_counts(alone)
    assert matrix.dtype == np.int64 and matrix.sum() == IMAGES * SIZE * SIZE
    for part, total in zip((counts.tp, counts.gt, counts.pred), class_counts(matrix), strict=True):
        assert np.array_equal(part.sum(axis=0), total)
    for metric, value in scores("cliptrase", *class_counts(matrix)).items():
        assert found[metric] == round(float(value), 6) == found["rules"]["cliptrase"][metric]
        low, high = found["ci"][metric]
        assert 0 <= low <= found[metric] <= high <= 100
    assert list(found)[:4] == list(METRICS)
    assert found["images"] == IMAGES and found["skipped"] == 0
    assert found["iou"][-1]["name"] == "background"
    assert len(found["iou"]) == found["classes"] == len(matrix)
    absent = [entry["value"] is None for entry in found["iou"]]
    assert absent == (class_counts(matrix)[1] == 0).tolist() and any(absent)


def test_operations_are_counted_as_on_paper(alone, runs_of):
    """clip's products by hand: patches, six blocks, projection, words; then what CLIPtrase adds."""
    (run,) = runs_of(CLIPTRASE).values()
    clip = load_clip(run.model)
    n, width, joint = 49, clip.blocks[0].attn.embed_dim, clip.embed_dim
    words = run.vocabulary.classes.count + run.vocabulary.background.count
    tokens = n + 1
    attention = 2 * 2 * tokens**2 * width
    block = 2 * tokens * width * 12 * width + attention
    patches = 2 * n * width * 3 * clip.patch**2
    plain = patches + clip.depth * block + 2 * tokens * width * joint + 2 * n * joint * words
    correlation, distances = 2 * tokens**2 * 3 * width, 2 * n**3
    expected = plain + 2 * attention + correlation + distances
    assert json.loads((alone / "metrics.json").read_text())["flops"] == expected


def test_a_finished_run_is_made_again_for_other_code_only(
    runs_of, make, data, tmp_path, monkeypatch
):
    runs = runs_of(["benchmark=shapes", "method=clip"])

    def made():
        (folder,) = make(runs, tmp_path).values()
        return json.loads((folder / "provenance.json").read_text()) | {"at": folder.stat().st_ino}

    first = made()
    assert made() == first
    assert first["code"] == code.prediction_digest() and first["data"]
    assert {"open", "text", "flops", "images", "decode", "encode"} <= first["seconds"].keys()
    assert min(first["peak_memory_bytes"].values()) > 10**8

    with monkeypatch.context() as patched:
        patched.setattr(code, "prediction_digest", lambda: "other code")
        assert unfinished(runs, tmp_path, data)
        assert not unfinished(runs, tmp_path, data, freeze_code=True)
        assert made()["at"] != first["at"]
        assert not unfinished(runs, tmp_path, data)
    assert unfinished(runs, tmp_path, data)


def test_a_run_that_another_process_has_finished_meanwhile_stays(
    runs_of, make, tmp_path, monkeypatch
):
    runs, write, folders = runs_of(["benchmark=shapes", "method=clip"]), passes.write_runs, []

    def twice(runs, progress, ids, out, *more):
        for _ in range(2):
            write(runs, progress, ids, out, *more)
            folders.extend((out / name).stat().st_ino for name in runs)

    monkeypatch.setattr(passes, "write_runs", twice)
    make(runs, tmp_path)
    assert len(folders) == 2 and folders[0] == folders[1]


def test_a_run_of_another_label_table_is_made_again(runs_of, make, data, tmp_path, monkeypatch):
    runs = runs_of(["benchmark=shapes", "method=clip"])
    tables = tmp_path / "labels"
    shutil.copytree(label_tables.TABLES, tables)
    monkeypatch.setattr(finished, "TABLES", tables)
    make(runs, tmp_path)
    assert not unfinished(runs, tmp_path, data)
    table = tables / f"{next(iter(runs.values())).benchmark.labels.map}.csv"
    content = table.read_bytes()
    table.write_bytes(content.rstrip(b"\n0123456789") + b"0\n")
    assert table.read_bytes() != content
    assert unfinished(runs, tmp_path, data, freeze_code=True) == list(runs)
    table.write_bytes(content)
    assert not unfinished(runs, tmp_path, data)


def test_a_run_of_other_pixels_is_made_again(runs_of, make, data, tmp_path):
    """The dataset prepared once more, one pixel of one image changed."""
    runs = runs_of(["benchmark=shapes", "method=clip"])
    make(runs, tmp_path)
    assert not unfinished(runs, tmp_path, data)
    samples = prepared.PreparedSamples(prepared.prepared_folder("shapes", data))
    for changed in (False, True):
        folder = prepared.prepared_folder("shapes", tmp_path / f"data-{changed}")
        folder.mkdir(parents=True)
        records = []
        for index in range(len(samples)):
            sample = samples[index]
            pixels, label = np.array(sample.image), sample.label.astype(np.uint8)
            pixels[0, 0, 0] ^= changed and index == 2
            records.append(prepared.Record(sample.id, png(pixels), png(label)))
        prepared.write_arrow(folder / prepared.ARROW, records)
        check = prepared.self_check(prepared.PreparedSamples(folder))
        (folder / "selfcheck.json").write_text(json.dumps(check))
        left = unfinished(runs, tmp_path, tmp_path / f"data-{changed}", freeze_code=True)
        assert left == list(runs) * changed


@pytest.mark.parametrize("which", ["out", "partial"])
@pytest.mark.parametrize("above", ["file", "file/below", "/proc/no-folder"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_pass(
    which, above, runs_of, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(passes, "_Pass", pytest.fail)
    (tmp_path / "file").write_text("in the way")
    bad = tmp_path / above
    places = {"out": tmp_path / "runs", "partial": tmp_path / "partial.npz"}
    places[which] = bad if which == "out" else bad / "partial.npz"
    with pytest.raises(passes.UserError, match=f"^{bad}: .*(stands in the way|cannot be)"):
        passes.run_pass(runs_of(["method=clip"]), **places, data=data, device="cpu", workers=1)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_run_that_was_made_while_the_pass_waited_is_not_made_again(
    runs_of, make, tmp_path, monkeypatch
):
    runs, computing_on = runs_of(["method=clip"]), passes.computing_on

    @contextlib.contextmanager
    def waiting(device, *, alone):
        monkeypatch.setattr(passes, "computing_on", computing_on)
        make(runs, tmp_path)  # by the pass that has the GPU
        monkeypatch.setattr(passes, "_Pass", pytest.fail)
        with computing_on(device, alone=alone) as chosen:
            yield chosen

    monkeypatch.setattr(passes, "computing_on", waiting)
    (folder,) = make(runs, tmp_path).values()
    assert (folder / "metrics.json").is_file()


def test_counts_are_saved_by_the_clock_too(runs_of, make, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(passes.Progress, "save", lambda one, *_: saved.append(one.position))
    make(runs_of(["method=clip"]), tmp_path / "quick")
    assert saved == []
    monkeypatch.setattr(passes, "SAVE_AFTER", -1.0)
    make(runs_of(["method=clip"]), tmp_path / "slow")
    assert saved == [1, 2, 3, 4, 5]


def test_runs_that_share_no_images_are_refused(runs_of, make, tmp_path):
    runs = runs_of(["benchmark=shapes"], ["benchmark=shapes", "image_size=336"])
    with pytest.raises(passes.UserError, match=r"must share image_size: 112, 336"):
        make(runs, tmp_path)


def test_every_worker_computes_with_one_thread():
    """torch's number of threads is each thread's own; a product must wake no helpers."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    barrier = threading.Barrier(3, timeout=20)

    def work(_):
        barrier.wait()
        product = torch.randn(700, 700) @ torch.randn(700, 700)
        torch.nn.functional.softmax(product, dim=-1).sort()
        return threading.get_ident(), torch.get_num_threads()

    try:
        with single_threaded_pool(3) as pool:
            threads_before = len(os.listdir("/proc/self/task"))
            found = list(pool.map(work, range(3)))
            started = len(os.listdir("/proc/self/task")) - threads_before
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert len({thread for thread, _ in found}) == 3
    assert {count for _, count in found} == {1}
    assert started <= 3  # the pool's own


def test_few_images_are_under_way_at_once():
    """Memory does not grow with the number of images: reading waits for what is taken."""
    started = []

    def load(position):
        started.append(position)
        return position

    with single_threaded_pool(2) as pool:
        stream = in_order_by(pool, load, range(1000), ahead=4)
        for position in range(10):
            assert next(stream) == position
            assert max(started) <= position + 4
        stream.close()
    assert len(started) <= 14
