"""model.precision is part of what a run is, and fp32 runs are named and written as ever."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from cliptrase import config, plan
from cliptrase.errors import UserError
from cliptrase.publish.figures.shown_runs import shown_runs
from cliptrase.publish.tables.cells import model_of
from cliptrase.segmenter import Segmenter
from cliptrase.shapes.scenes import evaluation_scene

BASE = ["benchmark=voc20", "method=clip"]


def test_fp32_is_the_default_and_no_part_of_a_name():
    plain = config.resolve(BASE)
    assert plain.model.precision == "fp32"
    assert plain.name == "voc20.clip.vit_b16.224.dcd9e6582b"
    for written in (["model.precision=fp32"], ["model=vit_b16", "model.precision=fp32"]):
        assert config.resolve([*BASE, *written]).text == plain.text
    assert "precision" not in plain.text
    assert model_of(plain) == "vit_b16"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_another_precision_is_another_run_with_another_name(precision):
    plain = config.resolve(BASE)
    run = config.resolve([*BASE, f"model.precision={precision}"])
    name = run.name
    assert name.startswith(f"voc20.clip.vit_b16.224.precision-{precision}.")
    assert run.sha256 != plain.sha256
    assert yaml.safe_load(run.text)["model"]["precision"] == precision
    assert model_of(run) == f"vit_b16(precision={precision})"
    named = config.resolve([*BASE, "model=vit_b16", f"model.precision={precision}"])
    assert named.name == name


def test_every_model_can_be_asked_for_another_precision():
    for file in sorted((config.files.CONF / "model").glob("*.yaml")):
        composed = config.compose([f"model={file.stem}", "model.precision=bf16"])
        assert composed["model"]["precision"] == "bf16"


def test_a_model_that_does_not_say_is_fp32_and_a_benchmark_s_model_keeps_its_own(
    tmp_path, monkeypatch
):
    conf = tmp_path / "conf"
    for folder in ("model", "benchmark", "method", "protocol"):
        (conf / folder).mkdir(parents=True)
        for file in (config.files.CONF / folder).glob("*.yaml"):
            (conf / folder / file.name).write_text(file.read_text())
    (conf / "evaluate.yaml").write_text((config.files.CONF / "evaluate.yaml").read_text())
    monkeypatch.setattr(config.files, "CONF", conf)
    mine = conf / "model" / "shapes_clip.yaml"
    lines = [line for line in mine.read_text().splitlines() if not line.startswith("precision")]
    mine.write_text("\n".join(lines))
    assert config.resolve(["model=shapes_clip"]).model.precision == "fp32"
    message = (
        "model.precision is not written in this model's file of conf/model, which takes its "
        'default (precision: "fp32"); add the line there, then any value can be set'
    )
    with pytest.raises(UserError) as caught:
        config.resolve(["model=shapes_clip", "model.precision=bf16"])
    assert str(caught.value) == message
    mine.write_text("\n".join([*lines, "precision: bf16"]))
    assert config.resolve([]).model.precision == "bf16"
    assert config.resolve(["model.precision=fp16"]).model.precision == "fp16"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.precision=bf61"], "model.precision=bf61: unknown value; did you mean 'bf16'?"),
        (["model.precision=float16"], "There is: bf16, fp16, fp32"),
        (["model.precision=16"], "model.precision=16: unknown value"),
        (["model=vit_b16", "model.precision=auto"], "model.precision=auto: unknown value"),
        (["model.precision=null"], "model.precision=null: unknown value"),
        (["model.precison=bf16"], "unknown key 'model.precison'; did you mean 'precision'?"),
    ],
)
def test_a_typo_is_named_with_what_there_is(overrides, message):
    with pytest.raises(UserError) as caught:
        config.resolve([*BASE, *overrides])
    assert message in str(caught.value)


def test_runs_of_another_precision_are_another_pass():
    passes = plan.load("precision").passes
    assert len(passes) == 12
    for name, one in passes.items():
        (precision,) = {run.model.precision for run in one.runs.values()}
        own = "" if precision == "fp32" else f".precision-{precision}"
        assert name == f"{one.dataset}.shapes_clip.{one.image_size}.crop{own}"


def test_each_precision_is_compared_with_fp32_and_pictures_show_fp32_only():
    suite = plan.load("precision")
    rows = suite.tables["table_precision"].rows
    assert len(rows) == 2 * 3 * 3
    for row in rows:
        assert row.versus == ("" if row.name == "fp32" else "fp32")
    for shown in shown_runs(suite):
        assert list(shown.runs) == [
            f"fp32, {name}, 224 px" for name in ("CLIP", "SCLIP", "CLIPtrase")
        ]
        assert {run.model.precision for run in shown.runs.values()} == {"fp32"}


def test_a_picture_is_segmented_in_bf16_too():
    """Less than a pixel of a hundred differs: where the two best words are nearly equal."""
    scene = Image.fromarray(np.asarray(evaluation_scene("shapes", 3).image)).resize((300, 180))
    names = ["zebra", "ladybug", "strawberry", "banana", "basketball", "grass", "brick"]
    words = {"classes": names, "templates": "shapes"}
    plain = Segmenter("shapes_clip", **words)
    low = Segmenter("shapes_clip", **words, overrides=["model.precision=bf16"])
    assert low.model.precision == "bf16"
    patches = [each.encode(scene).encoded.patches for each in (plain, low)]
    assert 0 < (patches[0] - patches[1]).norm(dim=-1).max() < 0.05
    labels = [each(scene).labels for each in (plain, low)]
    assert (labels[0] != labels[1]).mean() < 0.01 and len(np.unique(labels[0])) > 1
