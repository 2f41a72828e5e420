"""A folder of pictures and masks as a benchmark of its own name: what a suite plans of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cliptrase import config, plan
from cliptrase.data import open_dataset
from cliptrase.data.read.labels import read_table
from cliptrase.errors import UserError
from cliptrase.evaluate.protocols import protocol_of
from cliptrase.evaluate.targets import Target
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.announcement import images

BENCHMARK = {
    "dataset": "folder",
    "background": None,
    "templates": "shapes",
    "cls_logits": False,
    "model": "shapes_clip",
}


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """A conf/ to write into, beside the folders one (3 pictures) and two (5)."""
    shutil.copytree(config.files.CONF, tmp_path / "conf")
    monkeypatch.setattr(config.files, "CONF", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("apple\ngrass\n", encoding="utf-8")
    for name, count in (("one", 3), ("two", 5)):
        for kind in ("photos", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 30), (index, 90, 0)).save(f"{name}/photos/{index}.png")
            Image.new("L", (40, 30), index % 2).save(f"{name}/masks/{index}.png")
    return tmp_path / "conf"


def benchmark(conf: Path, name: str, folder: str, **more: object) -> None:
    paths = {"images": f"{folder}/photos", "labels": f"{folder}/masks", "classes": "words.txt"}
    content = {"name": name, **BENCHMARK, **paths, **more}
    (conf / "benchmark" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def suite(conf: Path, *benchmarks: str) -> plan.Plan:
    spec = yaml.safe_load((conf / "suite" / "smoke.yaml").read_text(encoding="utf-8"))
    spec |= {"roles": {"main": [*benchmarks]}, "tables": ["table6_metrics_224"], "overrides": []}
    (conf / "suite" / "own.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return plan.load("own")


def test_a_pass_for_each_folder_however_many_benchmarks_score_it(conf):
    benchmark(conf, "first", "one")
    (conf.parent / "rest.txt").write_text("sky\n", encoding="utf-8")
    benchmark(conf, "again", "one", background="rest.txt")
    benchmark(conf, "second", "two")
    planned = suite(conf, "first", "again", "second", "shapes")
    one, two, shapes = planned.passes.values()
    assert one.name == "folder-first.shapes_clip.224.crop"
    assert two.name == "folder-second.shapes_clip.224.crop"
    scored = {run.benchmark.name for run in one.runs.values()}
    assert scored == {"first", "again"}
    assert [images(each, "data") for each in (one, two, shapes)] == [3, 5, 200]
    assert pipeline_data.prepared(one, "data") == []
    assert pipeline_data.prepared(shapes, "data") == ["data/prepared/shapes/selfcheck.json"]
    assert pipeline_data.lacking(planned, planned.passes) == {}


def test_a_benchmark_of_patterns_is_planned_and_counted(conf):
    for index in range(3):
        Path(f"one/masks/{index}.png").rename(f"one/masks/{index}_gt.png")
    benchmark(conf, "first", "one", mask="{stem}_gt.png", ignore=9, orientation="stored")
    benchmark(conf, "again", "one", mask="{stem}_gt.png", ignore=8, orientation="stored")
    benchmark(conf, "turned", "one", mask="{stem}_gt.png")
    planned = suite(conf, "first", "again", "turned")
    stored, turned = planned.passes.values()
    assert {run.benchmark.name for run in stored.runs.values()} == {"first", "again"}
    assert turned.name == "folder-turned.shapes_clip.224.crop"
    assert images(stored, "data") == images(turned, "data") == 3


def test_a_key_that_a_benchmark_does_not_write_is_named(conf):
    benchmark(conf, "first", "one")
    with pytest.raises(UserError, match=r"benchmark.ignore is not written in this benchmark's fi"):
        config.resolve(["benchmark=first", "benchmark.ignore=9"])


def test_a_changed_mask_is_another_run_and_a_moved_folder_the_same(conf):
    benchmark(conf, "first", "one")
    before = suite(conf, "first").runs.keys()
    shutil.move("one", "elsewhere")
    benchmark(conf, "first", "elsewhere")
    assert suite(conf, "first").runs.keys() == before
    Image.new("L", (40, 30), 255).save("elsewhere/masks/0.png")
    after = suite(conf, "first")
    assert not after.runs.keys() & before and len(after.runs) == len(before)
    assert list(after.passes) == ["folder-first.shapes_clip.224.crop"]


def test_masks_of_other_values_than_class_indices_by_a_table(conf):
    mask = np.zeros((30, 40), np.uint8)
    mask[:10], mask[10:20], mask[20:25] = 4, 7, 40
    for index in range(3):
        Image.fromarray(mask).save(f"one/masks/{index}.png")
    names = 27
    (conf.parent / "many.txt").write_text("".join(f"name {i}\n" for i in range(names)))
    benchmark(conf, "first", "one", classes="many.txt", map="shapes_to_all")
    run = config.resolve(["benchmark=first"])
    assert run.benchmark.labels.map == "shapes_to_all"
    label = open_dataset(run)[0].label
    table = read_table("shapes_to_all")
    truth = Target.of(run).truth(protocol_of(run).label(label), "here")
    assert truth.classes == names
    scored = {table[raw] for raw in (0, 4, 7, 40)}
    assert {int(row) for row in np.unique(truth.rows // names)} == scored and len(scored) == 4

    benchmark(conf, "first", "one")  # without: an error that names the mask
    with pytest.raises(UserError, match=r"masks/0\.png: label 4 is neither one of the 2 classes"):
        open_dataset(config.resolve(["benchmark=first"]))[0]
    benchmark(conf, "first", "one", map=["a"])
    with pytest.raises(UserError, match=r"benchmark\.map=\['a'\]: must be a name"):
        config.resolve(["benchmark=first"])


def test_a_copied_file_must_say_its_own_name(conf):
    shutil.copy(conf / "benchmark" / "shapes.yaml", conf / "benchmark" / "circles.yaml")
    with pytest.raises(UserError, match=r"circles\.yaml: name: shapes; write name: circles"):
        config.resolve(["benchmark=circles"])
