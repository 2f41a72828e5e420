"""docs/first_steps.ipynb is executed, cell by cell: it prints what it shows."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"
pytestmark = pytest.mark.slow


def test_every_cell_prints_what_the_notebook_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    printed = []
    for cell in cells:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec("".join(cell["source"]), names)
            printed.append(out.getvalue())
    names["plt"].close("all")
    shown = [
        "".join(text for output in cell["outputs"] for text in output.get("text", ""))
        for cell in cells
        if cell["cell_type"] == "code"
    ]
    assert printed == shown
    pictures = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 5
