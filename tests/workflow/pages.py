"""The commands of a page of docs/, executed in a copy of the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROWS = ("CLIP", "SCLIP", "CLIPtrase")
MODULES = {"python": "", "snakemake": " -m snakemake", "cliptrase": " -m cliptrase.cli"}


def printed_by(page: str, tree: Path, programs: Path) -> str:
    """What the page's commands print in `tree`; all must succeed.

    The programs that they call, written to the folder `programs`, are those of this Python.
    """
    programs.mkdir()
    for name, module in MODULES.items():
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": path}
    printed = ""
    for commands in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        printed += done.stdout
    return printed


def leave_three_peers(tree: Path) -> None:
    """The rows of `ROWS` alone in the table of all methods: a page is not about the others."""
    file = tree / "conf" / "table" / "table_peers.yaml"
    head, rows, _ = file.read_text(encoding="utf-8").partition("    rows:\n")
    lines = [f"      - {{row: {name}, run: [method={name.lower()}]}}\n" for name in ROWS]
    file.write_text(head + rows + "".join(lines), encoding="utf-8")
