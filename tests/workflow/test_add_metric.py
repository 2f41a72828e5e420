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

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_metric.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))

pytestmark = [pytest.mark.xdist_group("snakemake"), pytest.mark.slow]


def test_a_metric_is_added_without_an_image(tmp_path, copy_of_the_tree):
    tree = copy_of_the_tree(tmp_path / "tree")
    for path, content in FILES.items():
        (tree / path).write_text(content, encoding="utf-8")
    script = tmp_path / "snakemake"  # that of the page is the one that runs this
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m snakemake "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": path}

    def bash(commands: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    runs_made, metric_added, shown = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    bash(runs_made)
    folders = sorted((tree / "results" / "runs").iterdir())
    assert len(folders) == 4
    before = {folder: contents(folder) for folder in folders}
    (tree / "data" / "prepared" / "shapes" / "samples.arrow").unlink()  # every image
    bash(metric_added)
    bash(shown)
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
    assert {(cell["row"], cell["benchmark"]) for cell in cells} == {
        (row, benchmark) for row in ("CLIP", "CLIPtrase") for benchmark in ("shapes", "shapes_bg")
    }
    assert all(cell["value"] and cell["ci_low"] for cell in cells)
    assert [bool(cell["diff"]) for cell in cells] == [cell["row"] == "CLIPtrase" for cell in cells]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
