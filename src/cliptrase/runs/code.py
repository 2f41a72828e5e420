"""Two digests of this package's code: of what predicts, and of what scores.

Prediction code is every module that a pass over images imports, directly or through others: when
it changes, the images must be streamed again. Scoring code is what else makes metrics.json: when
it changes, metrics.json is computed again from the counts that were saved. The digests are of
syntax trees without docstrings, so a comment, a docstring or a line break changes neither.

Imports are not followed into `OUTSIDE`, because something else answers for these modules. What
config/ makes of a command line is the run's identity, which names its folder (weights, names and
templates are in it by their content); its tables of functions and facts, and how a model's files
are read (`CONFIG`), are no part of an identity and do count. What data/fetch and data/make make is
the dataset, whose digest is in provenance.json, as is that of the table of labels. The others write
files and messages, count cores, or score.
"""

import ast
import functools
import re
from pathlib import Path

from cliptrase.files import sha256_syntax, sha256_text

PACKAGE = Path(__file__).resolve().parents[1]
PREDICTS, SCORES = "evaluate.passes", "runs.scoring"
CONFIG = (
    "config.error_names",
    "config.kinds",
    "config.metric_names",
    "config.openai_file",
    "config.weights",
)
OUTSIDE = re.compile(
    r"(config|data\.fetch|data\.make|errors|files|machine|resources"
    r"|runs\.(code|finished|provenance|scoring|store))(\..+)?"
)
REFERENCE = re.compile(r"cliptrase(\.\w+)+:\w+")  # a function that config/kinds.py names


@functools.cache
def prediction_digest(package: Path = PACKAGE) -> str:
    """The digest of the code that decides confusion.npz and per_image.npz."""
    return digest(closure(PREDICTS, package=package))


@functools.cache
def scoring_digest(package: Path = PACKAGE) -> str:
    """The digest of the code that makes metrics.json of them."""
    return digest(closure(SCORES, package=package) - closure(PREDICTS, package=package))


def closure(*modules: str, package: Path = PACKAGE) -> frozenset[Path]:
    """The files of these modules of the package (`evaluate.passes`), and of all that they import
    from it, also within functions."""
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        outside = OUTSIDE.fullmatch(module) and module not in (*modules, *CONFIG)
        if module and module not in files and not outside:
            path = package.joinpath(*module.split("."))
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    files[module] = file
                    waiting += [module.rpartition(".")[0], *_read(file)[0]]
    return frozenset(files.values())


def digest(files: frozenset[Path]) -> str:
    """One digest of the syntax trees of files, each with its path within the package."""
    package = next(parent for parent in min(files).parents if parent.name == PACKAGE.name)
    lines = sorted(f"{file.relative_to(package).as_posix()} {_read(file)[1]}" for file in files)
    return sha256_text("\n".join(lines))


@functools.cache
def _read(file: Path) -> tuple[list[str], str]:
    """The modules of the package that a file may import, and the digest of its syntax tree.

    Read once a process: a digest is of the code that the process runs.
    """
    tree, names = ast.parse(file.read_bytes()), list[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names += [name.name for name in node.names]
            case ast.ImportFrom(module=str(module)):
                names += [module, *(f"{module}.{name.name}" for name in node.names)]
            case ast.Constant(value=str(text)) if REFERENCE.fullmatch(text):
                names.append(text.partition(":")[0])
    imported = [name.removeprefix("cliptrase.") for name in names if name.startswith("cliptrase.")]
    return imported, sha256_syntax(tree)
