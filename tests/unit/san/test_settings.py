"""conf/san: what an experiment says fits together, and what does not is refused with its key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cliptrase.config import files
from cliptrase.errors import UserError
from cliptrase.pipeline import markers
from cliptrase.runs import code
from cliptrase.san import cost, settings
from cliptrase.shapes.scenes import SIZE

WRITTEN = files.CONF / "san" / "shapes.yaml"


def loaded(monkeypatch, **changed):
    content = yaml.safe_load(WRITTEN.read_text(encoding="utf-8")) | changed
    monkeypatch.setattr(settings.config, "load", lambda group, name: content)
    return settings.load("shapes")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"querys": 3}, "unknown key 'querys'; did you mean 'queries'"),
        ({"queries": 0}, "queries=0: must be a whole number, 1 or more"),
        ({"arms": ["plain", "clip"]}, "unknown value; .*There is: cliptrase, plain, shuffled"),
        ({"recognition": 6}, "recognition=6: model=shapes_clip has 6 blocks, .*take 5 or less"),
        ({"fusion": {0: 0, 5: 1}}, "block 5 of CLIP is after recognition=4"),
        ({"fusion": {0: 0, 2: 7}}, "there are 5 side blocks"),
        ({"fusion": {3: 0, 2: 1}}, "must ascend"),
        ({"model": "vit_b16", "fusion": {0: 0, 13: 1}}, "block 13 of CLIP is after recognition=4"),
        (
            {"supervised": [3, 4]},
            r"supervised=\[3, 4\]: must ascend and end with the last",
        ),
        ({"checkpoints": [0, 100]}, "must ascend from 0 to iterations=300"),
        ({"image_size": 220}, "image_size=220: must be a multiple of side.patch, 16"),
        ({"clip_size": 112}, "image_size and clip_size: scenes have 224 pixels a side"),
        ({"short_sides": [320]}, "dataset, short_sides and train_positions: give all of them or"),
        ({"arms": ["cliptrase"]}, "arms=.*plain is what others are compared with"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: must differ"),
        ({"init": {"method": "cliptrase", "images": 5000}}, "init.images=5000: there are 2000"),
        ({"model": "vit_b17"}, "unknown model 'vit_b17'"),
        ({"benchmark": "shapes_bg"}, "benchmark=shapes_bg: it scores a background"),
        ({"benchmark": "ade847"}, "benchmark=ade847: 847 classes; at most 255"),
    ],
)
def test_what_does_not_fit_is_refused(monkeypatch, changed, message):
    with pytest.raises(UserError, match=message):
        loaded(monkeypatch, **changed)


def test_a_class_of_two_names_is_refused(monkeypatch):
    """Each name would be scored as a class."""
    monkeypatch.setattr(settings, "read_classes", lambda path: [["cat", "kitten"]] * 27)
    with pytest.raises(UserError, match="benchmark=shapes: 54 names of 27 classes"):
        settings.load("shapes")


def test_scenes_are_as_large_as_scenes_are():
    assert settings.SCENE == SIZE


def test_the_recipe_holds_what_decides_a_run_and_nothing_else(monkeypatch):
    usual = settings.load("shapes").recipe()
    assert loaded(monkeypatch, suite="other", seeds=[5], arms=["plain"]).recipe() == usual
    assert loaded(monkeypatch, power=0.8).recipe() != usual


def test_tokens_are_kept_apart_by_what_they_are_of(monkeypatch):
    usual = settings.load("shapes").store_key
    assert loaded(monkeypatch, iterations=50, checkpoints=[0, 50]).store_key == usual
    assert loaded(monkeypatch, pictures=1000).store_key != usual
    assert loaded(monkeypatch, fusion={0: 0, 1: 1}).store_key != usual


def test_the_code_of_a_run_is_all_that_it_imports(empty):
    wanted = {"san/losses.py", "san/queries.py", "model/vision.py", "shapes/scenes.py"}
    files = {file.relative_to(code.PACKAGE).as_posix() for file in code.closure("san.train")}
    assert wanted <= files and "san/figure.py" not in files
    assert Path(markers.training("train")).read_text() == settings.code_of("train")


def test_the_full_scale_says_what_it_takes(capsys):
    cost.main(["coco"])
    said = capsys.readouterr().out
    assert "9 runs (plain, cliptrase, shuffled; seeds 0, 1, 2), 60000 iterations of 32" in said
    assert "8.37 million parameters learn" in said and "train2017.zip (19.3 GB)" in said


def test_planning_imports_no_torch():
    code = "import sys, cliptrase.san.cost as c; c.lines(c.settings.load('coco')); "
    code += "assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
