"""docs/add_variant.md is executed: its files are written where it says, its commands are run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.workflow.pages import printed_by

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_variant.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w/]+\.(?:yaml|py))`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))

pytestmark = pytest.mark.slow


def test_a_variant_is_three_files():
    added = {path for path in FILES if "agglomerative" in path and "tests" not in path}
    function, method = "src/cliptrase/segment/agglomerative.py", "conf/method/agglomerative.yaml"
    assert added == {function, method}
    edited = set(re.findall(r"^sed .* (\S+)$", PAGE, re.MULTILINE))
    assert edited == {"src/cliptrase/config/kinds.py"}, "the line that names it"


def test_the_variants_of_the_page_are_runs_of_one_sweep(tmp_path, copy_of_the_tree):
    tree = copy_of_the_tree(tmp_path / "tree")
    (tree / "tests" / "property").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "objects.py", tree / "tests")
    for path, content in FILES.items():
        (tree / path).write_text(content, encoding="utf-8")
    printed = printed_by(PAGE, tree, tmp_path / "bin")

    assert "1 passed" in printed
    runs = re.findall(r"^results/runs/(\S+)  \(8 images", printed, re.MULTILINE)
    names = [run.removeprefix("shapes.").partition(".limit-8")[0] for run in runs]
    assert names == [
        "cliptrase.shapes_clip.224",
        "cliptrase.shapes_clip.224.denoise-centred",
        "agglomerative.shapes_clip.224",
        "agglomerative.shapes_clip.224.denoise-centred",
    ]
    matrices = {(tree / "results/runs" / run / "confusion.npz").read_bytes() for run in runs}
    assert len(matrices) == 4, "each variant changes labels"
