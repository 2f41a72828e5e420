"""Two digests of this package's code: of what predicts, and of what scores.

Prediction code is every module that a pass over images imports, directly or through others: when
it changes, the images must be streamed again. Scoring code is what else makes metrics.json: when
it changes, metrics.json is computed again from the counts that were saved. The digests are of
syntax trees without docstrings, so a comment, a docstring or a line break changes neither.

Imports are not followed into `OUTSIDE`, because something else answers for these modules. What
config/ makes of a command line is the run's identity, which names its folder (weights, names and
templates are in it by their content); its tables of functions and facts, `CONFIG`, are no part of
an identity and do count. What data/fetch and data/make make is the dataset, whose digest is in
provenance.json, as is that of the table of labels. The others write files and messages, count
cores, or score.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PREDICTS = "cliptrase.evaluate.passes"
SCORES = "cliptrase.runs.scoring"
CONFIG = ("cliptrase.config.kinds", "cliptrase.config.metric_names")
OUTSIDE = (
    "cliptrase.config",
    "cliptrase.data.fetch",
    "cliptrase.data.make",
    "cliptrase.errors",
    "cliptrase.files",
    "cliptrase.machine",
    "cliptrase.resources",
    "cliptrase.runs.code",
    "cliptrase.runs.finished",
    "cliptrase.runs.provenance",
    "cliptrase.runs.scoring",
    "cliptrase.runs.store",
)
REFERENCE = re.compile(r"cliptrase(\.\w+)+:\w+")  # a function that config/kinds.py names
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def prediction_digest(package: Path = PACKAGE) -> str:
    """The digest of the code that decides confusion.npz and per_image.npz."""
    return digest(closure(PREDICTS, package=package))


@functools.cache
def scoring_digest(package: Path = PACKAGE) -> str:
    """The digest of the code that makes metrics.json of them."""
    return digest(closure(SCORES, package=package) - closure(PREDICTS, package=package))


def code_files() -> list[Path]:
    """All files of the two digests, sorted."""
    return sorted(closure(PREDICTS, SCORES))


def closure(*modules: str, package: Path = PACKAGE) -> frozenset[Path]:
    """The files of these modules and of all that they import from `package`, also in functions."""
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = None if _is_outside(module) and module not in modules else _file(module, package)
        if file is not None and module not in files:
            files[module] = file
            waiting += [module.rpartition(".")[0], *_read(file)[0]]
    return frozenset(files.values())


def digest(files: frozenset[Path]) -> str:
    """One digest of the syntax trees of files, each with its path within the package."""
    package = next(parent for parent in min(files).parents if parent.name == PACKAGE.name)
    lines = sorted(f"{file.relative_to(package).as_posix()} {_read(file)[1]}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_outside(module: str) -> bool:
    listed = any(f"{module}.".startswith(f"{name}.") for name in OUTSIDE)
    return listed and module not in CONFIG


def _file(module: str, package: Path) -> Path | None:
    """The file of a module of the package, None for any other name."""
    root, _, rest = module.partition(".")
    if root != "cliptrase" or not rest:
        return None
    path = package.joinpath(*rest.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _read(file: Path) -> tuple[list[str], str]:
    """The names that a file imports, and the digest of its syntax tree without docstrings.

    Read once a process: a digest is of the code that the process runs.
    """
    tree, imported, words = ast.parse(file.read_bytes()), list[str](), list[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imported += [name.name for name in node.names]
            case ast.ImportFrom(module=str(module)):
                imported += [module, *(f"{module}.{name.name}" for name in node.names)]
            case ast.Constant(value=str(text)) if REFERENCE.fullmatch(text):
                imported.append(text.partition(":")[0])
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    _spell(tree, words)
    return imported, hashlib.sha256(" ".join(words).encode()).hexdigest()


def _spell(node: object, words: list[str]) -> None:
    """Append a syntax tree as words, the same under every version of Python: `ast.dump` differs,
    because newer versions have more fields, which are empty for the code of older ones."""
    if isinstance(node, ast.AST):
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                words.append(name)
                _spell(value, words)
        words.append(")")
    elif isinstance(node, list):
        for item in node:
            _spell(item, words)
    else:
        words.append(repr(node))
