"""`cliptrase audit` names the faults that are put into clean exports, and finds none in those."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from benchmarks.audits import FAULTS, audited, many_classes, spoiled, truths_of
from PIL import Image
from tests.few_scenes import write_scenes

from cliptrase import cli, config
from cliptrase.audit.label_maps import steps_and_borders, without_steps
from cliptrase.evaluate.targets import scored_classes

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
SCENES = 24
SETTINGS = {
    "crop": ["benchmark=shapes", "image_size=112"],
    "slide, background": ["benchmark=shapes_bg", "protocol=slide"],
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A data folder of more scenes: a class is in several."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), range(SCENES))


@pytest.fixture(scope="session")
def truths(scenes):
    """Setting → image id → ground truth (H, W)."""
    return {name: truths_of(overrides, scenes) for name, overrides in SETTINGS.items()}


def predicted(truths, classes, seed):
    """What a method might predict: borders that are off, classes confused, wrong patches."""
    random, maps = np.random.default_rng(seed), {}
    confused = random.permutation(classes)[:4].reshape(2, 2)
    for id, truth in truths.items():
        side = len(truth) // 14
        labels = np.roll(truth, random.integers(-6, 7, 2), (0, 1)).copy()
        for label, other in confused:
            labels[labels == label] = other
        wrong = random.random((side, side)) < 0.25
        wrong = np.kron(wrong, np.ones((14, 14), bool))
        patches = np.kron(random.integers(0, classes, (side, side)), np.ones((14, 14), int))
        maps[id] = np.where(wrong, patches, labels)
    return maps


def clean(setting, truths, seed):
    overrides = SETTINGS[setting]
    classes = scored_classes(config.resolve(overrides))
    return predicted(truths[setting], classes, seed), classes


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seed", range(6))
def test_a_clean_export_raises_no_alarm(setting, seed, truths, scenes):
    report = audited(SETTINGS[setting], clean(setting, truths, seed)[0], scenes)
    assert report.findings == [] and 20 < report.score < 90 and report.images == SCENES


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"wrapped"}))
def test_a_fault_is_named_and_mended(fault, setting, truths, scenes):
    maps, classes = clean(setting, truths, 1)
    right = audited(SETTINGS[setting], maps, scenes).score
    bad = spoiled(fault, maps, truths[setting], classes, 0)
    report = audited(SETTINGS[setting], bad, scenes)
    named = [each for each in report.findings if each.fault in FAULTS[fault]]
    assert len(named) == 1, report.findings
    if fault in ("missing", "ground truth"):
        assert named[0].mended is None
    elif fault in ("another size", "interpolated", "ignored value"):
        assert named[0].mended > report.score - 1
    else:
        assert named[0].mended > 0.8 * right > 1.2 * report.score


def test_labels_that_wrapped_at_256(data, tmp_path):
    overrides, maps = many_classes(tmp_path, 8)
    assert max(labels.max() for labels in maps.values()) > 256
    assert audited(overrides, maps, data).findings == []
    wrapped = spoiled("wrapped", maps, {}, 459, 0)
    (finding,) = audited(overrides, wrapped, data).findings
    assert finding.fault == "wrapped at 256"
    assert finding.mended == pytest.approx(audited(overrides, maps, data).score, abs=15)


def test_steps_are_labels_between_two_others():
    flat = np.repeat([[3, 3, 9, 9]], 4, axis=0)
    assert steps_and_borders(flat) == (0, 8)
    stepped = np.repeat([[3, 3, 6, 9, 9]], 4, axis=0)
    steps, room = steps_and_borders(stepped)
    assert (steps, room) == (4, 12)
    assert set(np.unique(without_steps(stepped))) == {3, 9}


def test_the_page_is_executed(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "audit.md", "exec"), {})
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    wrong, right = block.splitlines()
    for line in (wrong, right):
        cli.main(shlex.split(line.removeprefix("cliptrase ")))
    printed = capsys.readouterr().out
    assert printed.count("labels one too high:") == 1 and printed.endswith("nothing found\n")
    assert not (tmp_path / "results").exists()
    (tmp_path / "wrong" / "000:scene_0.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save("wrong/001:scene_1.png")
    cli.main([*shlex.split(wrong.removeprefix("cliptrase ")), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 4
    faults = [finding["fault"] for finding in report["findings"]]
    assert faults == ["unreadable files", "labels one too high"]
