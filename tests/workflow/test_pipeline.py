"""What the Snakefile asks: files of a step, shares of the cores, pass files that are false."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from cliptrase import pipeline, plan
from cliptrase.errors import UserError
from cliptrase.resources import share


@pytest.fixture(scope="module")
def smoke():
    return plan.load("smoke")


@pytest.mark.parametrize(
    ("real", "cores", "threads"),
    [
        (real, cores, threads)
        for real, cores in itertools.product([1, 2, 3, 8, 64], [1, 2, 3, 8, 64, 100])
        for threads in sorted({1, min(2, real, cores), min(real, cores)})
    ],
)
def test_jobs_never_have_more_busy_threads_than_there_are_real_cores(
    monkeypatch, real, cores, threads
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(real)))
    claimed = pipeline.claim(threads, cores)
    at_once = cores // claimed
    assert at_once >= 1, "a job that claims more than there is never starts"
    assert at_once * threads <= min(real, cores)


def test_two_passes_share_two_cores_and_one_has_both(monkeypatch, tmp_path, smoke):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    first, second = smoke.passes
    assert pipeline.workers(smoke, [first, second], gpu=0, cores=8) == 1
    assert pipeline.workers(smoke, [first, second], gpu=1, cores=8) == 2
    write(pipeline.pass_file("smoke", first), "{}")
    assert pipeline.workers(smoke, [first, second], gpu=0, cores=8) == 2


def test_a_pass_reads_its_own_conf_words_and_weights(monkeypatch, smoke):
    monkeypatch.chdir(share())
    files = {Path(file) for file in pipeline.pass_files(next(iter(smoke.passes.values())))}
    assert all(file.is_file() for file in files)
    assert Path("conf/method/cliptrase.yaml") in files
    assert Path("assets/shapes_clip/open_clip_model.safetensors") in files
    assert not any("ade" in file.name or file.name == "vit_b16.yaml" for file in files)


def test_benchmarks_choose_the_passes_that_they_need():
    paper = plan.load("paper")
    chosen = pipeline.chosen_passes(paper, ["voc20"])
    assert chosen and all(name.startswith("voc2012.") for name in chosen)
    assert pipeline.chosen_passes(paper, "voc20,pc59") == pipeline.chosen_passes(
        paper, ["pc59", "voc20"]
    )
    assert pipeline.chosen_passes(paper, None) == list(paper.passes)
    with pytest.raises(UserError, match="voc20"):
        pipeline.chosen_passes(paper, ["voc2O"])


def test_a_pass_file_that_speaks_of_a_lost_or_changed_run_is_forgotten(
    monkeypatch, tmp_path, smoke
):
    monkeypatch.chdir(tmp_path)
    first, second = smoke.passes
    metrics = [pipeline.RUNS / name / "metrics.json" for name in ("a", "b")]
    for file in metrics:
        write(file, file.parent.name)
    digests = {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in metrics}
    kept = pipeline.pass_file("smoke", first)
    write(kept, json.dumps(digests))
    assert pipeline.forget_false_passes(smoke) == []
    assert kept.exists()

    write(metrics[0], "another number")
    assert pipeline.forget_false_passes(smoke) == [first]
    assert not kept.exists()

    write(kept, json.dumps({"gone": digests["b"]}))
    write(pipeline.pass_file("smoke", second), '{"cut off')
    assert pipeline.forget_false_passes(smoke) == [first, second]


def test_a_start_says_what_it_will_read(monkeypatch, tmp_path, smoke):
    monkeypatch.chdir(tmp_path)
    first, second = smoke.passes
    said = pipeline.announcement(smoke, [first, second])
    assert "2 of 2, to read 8 images" in said
    assert f"{first}: {len(smoke.passes[first].runs)} runs from 4 images of shapes" in said
    write(pipeline.pass_file("smoke", first), "{}")
    said = pipeline.announcement(smoke, [first, second])
    assert "1 of 2, to read 4 images" in said and first not in said
    paper = plan.load("paper")
    assert "all images of coco" in pipeline.announcement(paper, list(paper.passes))


def test_a_gpu_is_asked_for_only_where_one_is_used():
    assert pipeline.gpus("cpu") == 0
    assert pipeline.gpus("cuda:1") == 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
