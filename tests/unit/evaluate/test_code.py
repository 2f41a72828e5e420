"""The two digests: they forget no file that can change a number, and no comment moves them."""

import ast
import re
import shutil
import subprocess
import sys
import types
from importlib import import_module

import pytest

from cliptrase.config import kinds
from cliptrase.runs import code

METRICS, CLUSTERING = "runs/metrics.py", "segment/clustering.py"
SCORING = "runs/scoring.py"


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    """digests({file: (old, new)}): both digests of a copy of the package with these edits."""

    def edited(edits):
        copy = tmp_path_factory.mktemp("copy") / "cliptrase"
        shutil.copytree(code.PACKAGE, copy, ignore=lambda folder, names: _not_code(names))
        for name, (old, new) in edits.items():
            text = (copy / name).read_text() if old else ""
            assert old in text
            (copy / name).write_text(text.replace(old, new, 1) if old else new)
        return code.prediction_digest(copy), code.scoring_digest(copy)

    return edited


def _not_code(names):
    return [name for name in names if "." in name and not name.endswith(".py")]


@pytest.fixture(scope="module")
def plain():
    return code.prediction_digest(), code.scoring_digest()


def test_a_copy_of_the_package_has_the_same_digests(digests, plain):
    assert digests({}) == plain and len(set(plain)) == 2


@pytest.mark.parametrize("file", [METRICS, CLUSTERING])
@pytest.mark.parametrize(
    ("old", "new"),
    [("import numpy as np\n", "import numpy as np  # a comment\n\n\n"), ('"""', '"""More. ')],
)
def test_what_a_file_says_to_its_readers_does_not_count(file, old, new, digests, plain):
    assert digests({file: (old, new)}) == plain


def test_edited_prediction_code_leaves_the_scoring_digest(digests, plain):
    predicts, scores = digests({CLUSTERING: ("import numpy as np", "import numpy")})
    assert predicts != plain[0] and scores == plain[1]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (METRICS, "SMOOTHING = 0.01", "SMOOTHING = 0.02"),
        (SCORING, 'file["confusion"]', 'file["confusion"].T'),  # how saved counts are read
        (SCORING, '"per_image.npz", ImageCounts', '"confusion.npz", ImageCounts'),
    ],
)
def test_edited_scoring_code_leaves_the_prediction_digest(file, old, new, digests, plain):
    predicts, scores = digests({file: (old, new)})
    assert predicts == plain[0] and scores != plain[1]


LATE = "\n\ndef more():\n    from cliptrase.segment import added\n"
NAMED = 'MORE = "cliptrase.segment.added:function"\n'


@pytest.mark.parametrize(("file", "line"), [(CLUSTERING, LATE), ("config/kinds.py", NAMED)])
def test_what_is_imported_late_counts(file, line, digests):
    """In a function, or by the name that config/kinds.py gives to it."""
    first, second = (
        digests({file: ("\n\n\n", f"\n\n\n{line}"), "segment/added.py": ("", f"A = {number}\n")})
        for number in (1, 2)
    )
    assert first[0] != second[0] and first[1] == second[1]


@pytest.mark.parametrize("file", ["cli/segment.py", "publish/tables/cells.py", "plan/tables.py"])
def test_commands_plans_and_tables_do_not_count(file, digests, plain):
    assert digests({file: ("\nfrom ", "\nimport os\nfrom ")}) == plain


def names(*modules):
    return {file.relative_to(code.PACKAGE).as_posix() for file in code.closure(*modules)}


def test_no_module_that_a_pass_imports_is_forgotten():
    program = "import sys, cliptrase.evaluate.passes; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    counted = names(code.PREDICTS, code.SCORES)
    for name in loaded.stdout.decode().split():
        package, _, module = name.partition(".")
        if package == "cliptrase" and module and not code.OUTSIDE.fullmatch(module):
            path = module.replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & counted, name


def test_the_functions_that_a_method_names_are_prediction_code():
    counted = names(code.PREDICTS)
    for choices in (kinds.ATTENTION, kinds.CLUSTERING, kinds.DENOISE, kinds.VOTE):
        for reference in re.findall(r"cliptrase[.\w]+(?=:)", str(choices)):
            assert reference.removeprefix("cliptrase.").replace(".", "/") + ".py" in counted
    for file in ("data/read/vocabularies.py", "config/kinds.py", "runs/counts.py"):
        assert file in counted
    assert not {"runs/metrics.py", "runs/bootstrap.py", "config/schema.py"} & counted


FILE_NAMES = {"CONFIG", "WEIGHTS"}  # of a model's folder, whose files are in the identity by digest


def test_prediction_code_takes_only_types_from_the_schema():
    """A value or a function of config/ that no digest counts could change a number unnoticed."""
    taken = {
        (node.module, alias.name)
        for file in code.closure(code.PREDICTS)
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cliptrase.config")
        for alias in node.names
        if f"{node.module}".removeprefix("cliptrase.") not in code.CONFIG
    }
    assert ("cliptrase.config.method", "Method") in taken
    for module, name in taken:
        value = getattr(import_module(module), name)
        kinds_of_types = type | types.GenericAlias | types.UnionType | types.ModuleType
        assert isinstance(value, kinds_of_types) or name in FILE_NAMES
