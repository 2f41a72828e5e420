"""docs/add_metric.md is executed: runs are made, a metric is added, and no image is read again."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.few_scenes import write_scenes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_metric.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))

pytestmark = pytest.mark.slow


def test_a_metric_is_added_without_an_image(tmp_path, copy_of_the_tree):
    tree = copy_of_the_tree(tmp_path / "tree")
    write_scenes(tree / "data", range(8))
    script = tmp_path / "python"  # that of the page is the one that runs this
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    environment = os.environ | {
        "PYTHONPATH": str(tree / "src"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }

    def bash(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    make_runs, add_metric, score, show = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert "mDice" not in bash(make_runs)
    folders = sorted((tree / "results" / "runs").iterdir())
    assert len(folders) == 2
    before = {folder: contents(folder) for folder in folders}
    (tree / "data" / "prepared" / "shapes" / "samples.arrow").unlink()  # holds every image
    bash(add_metric)
    assert bash(score).count("mDice") == 2
    for path, content in FILES.items():
        (tree / path).write_text(content, encoding="utf-8")
    bash(show)
    for folder in folders:
        old, new = before[folder], contents(folder)
        for name in ("confusion.npz", "per_image.npz", "config.yaml"):
            assert new[name] == old[name]
        was, now = (json.loads(content["provenance.json"]) for content in (old, new))
        assert now["code"] == was["code"] and now["scoring"] != was["scoring"]
        assert now["started"] == was["started"]
        was, now = (json.loads(content["metrics.json"]) for content in (old, new))
        matrix = np.load(folder / "confusion.npz")["confusion"]
        gt, pred = matrix.sum(axis=1), matrix.sum(axis=0)
        dice = [200 * matrix[i, i] / (gt[i] + pred[i]) for i in range(len(gt)) if gt[i]]
        assert now.pop("mDice") == pytest.approx(sum(dice) / len(dice), abs=1e-6)
        low, high = now["ci"].pop("mDice")
        assert 0 <= low <= sum(dice) / len(dice) <= high <= 100
        assert all(rule.pop("mDice") is not None for rule in now["rules"].values())
        assert now == was
    file = tree / "results" / "dice" / "tables" / "table_dice.csv"
    with open(file, encoding="utf-8", newline="") as text:
        cells = [cell for cell in csv.DictReader(text) if cell["metric"] == "mDice"]
    assert [cell["row"] for cell in cells] == ["CLIP", "CLIPtrase"]
    assert all(cell["value"] and cell["ci_low"] for cell in cells)
    assert [bool(cell["diff"]) for cell in cells] == [False, True]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
