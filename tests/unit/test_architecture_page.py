"""docs/architecture.md names files and functions that exist, and imports run as it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cliptrase"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
FILES = sorted({word for word in CODE if re.fullmatch(r"[\w./-]+\.(py|smk|yaml)", word)})
FUNCTIONS = sorted({word for word in CODE if re.fullmatch(r"[\w/]+\.py:[\w.]+", word)})
FOLDERS = sorted({word for word in CODE if re.fullmatch(r"(\w+/)+", word)})
LINKS = sorted(set(re.findall(r"\]\(([\w./]+)\)", PAGE)))
(ORDER,) = re.findall(r"```text\n(.+ < .+)\n```", PAGE)
EXCEPTION = ("config", "data")  # the page says so


def names_in(tree: ast.Module) -> set[str]:
    """`function`, `Class`, `Class.method` and `CONSTANT` of a module."""
    names = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def test_the_page_names_many_places():
    assert len(FUNCTIONS) > 40 and len(FILES) > 8 and len(FOLDERS) > 12


@pytest.mark.parametrize("path", [*FILES, *FOLDERS])
def test_every_path_exists(path):
    roots = [PACKAGE] if path.endswith(".py") else [ROOT, PACKAGE, ROOT / "src"]
    made = path in ("results/", "data/raw/")  # only after something was run
    assert made or any((root / path).exists() for root in roots)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_exists(name):
    path, _, function = name.partition(":")
    assert function in names_in(ast.parse((PACKAGE / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_to_a_page(link):
    assert (ROOT / "docs" / link).is_file()


def test_every_folder_and_loose_module_is_on_the_page():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert {name for step in ORDER.split(" < ") for name in step.split()} == folders | loose


def test_imports_run_one_way():
    rank = {name: number for number, step in enumerate(ORDER.split(" < ")) for name in step.split()}
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        path = file.relative_to(PACKAGE).with_suffix("")
        here = path.parts[0]
        for imported in imports_of(file) if here != "__init__" else ():
            if rank[imported] > rank[here] and (here, imported) != EXCEPTION:
                wrong.append(f"{path} imports {imported}")
    assert not wrong


def test_imports_within_publish_run_one_way():
    """What its folders share, then tables, figures, the page, W&B."""
    rank = {"tables": 1, "figures": 2, "page": 3, "tracking": 4}
    wrong = []
    for file in (PACKAGE / "publish").rglob("*.py"):
        path = file.relative_to(PACKAGE / "publish").with_suffix("")
        for module in modules_of(file):
            there = module.removeprefix("cliptrase.publish.").partition(".")[0]
            if rank.get(there, 0) > rank.get(path.parts[0], 0):
                wrong.append(f"{path} imports {module}")
    assert not wrong


def imports_of(file: Path) -> set[str]:
    """The folders and loose modules of the package that a file imports."""
    within = (name.split(".")[1] for name in modules_of(file) if name.startswith("cliptrase."))
    return {
        name for name in within if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    }


def modules_of(file: Path) -> set[str]:
    """What a file imports, with names of what is in modules."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    return modules
