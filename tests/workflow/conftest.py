"""Copies of the working tree, so that a test may edit code, lose a run or break a pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE = ("Snakefile", "conf", "environment.yml", "profiles", "published", "src", "workflow")


@pytest.fixture(scope="session")
def copy_of_the_tree() -> Callable[[Path], Path]:
    """copy_of_the_tree(target): the files that a run needs, the weights linked; returns target."""

    def copied(target: Path) -> Path:
        target.mkdir()
        for name in TREE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target / name)
        (target / "assets").symlink_to(ROOT / "assets")
        return target

    return copied
