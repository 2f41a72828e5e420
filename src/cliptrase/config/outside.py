"""Methods whose code lives elsewhere: a Python file of one's own, or a package that is installed.

`method.file` names it, as FILE.py or FILE.py:function; a package does by an entry point of the
group `cliptrase.methods`. The file is read, never run, until a pass needs it. Its code is part of
the run's identity. Torch-free.
"""

import ast
import functools
import importlib.util
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from cliptrase.config.written import text_of
from cliptrase.errors import UserError
from cliptrase.files import once_a_file, sha256_syntax, sha256_text, user_path

GROUP = "cliptrase.methods"
USUAL = "attention"  # the function that is called where none is named
ARGUMENTS = 3  # original, blocks, attention
NAMELESS = "outside"  # the method that takes the name of its file


Tree = dict[str, Any]


def with_code(method: Tree, taken: Sequence[str]) -> Tree:
    """A method's tree with its `file` in its attention, as path and digest; one without a file
    comes back as it is. taken: names that a file cannot give its method. Raises UserError for a
    file that has no such function."""
    method = dict(method)
    written = method.pop("file", None)
    attention = method.get("attention")
    if written is None or not isinstance(attention, dict):
        return method
    path, function = _split(text_of(written))
    code = _read(path, function)
    if method.get("name") == NAMELESS:
        if path.stem in taken:
            raise UserError(f"method.file={path}: there is a method {path.stem}; rename the file")
        method["name"] = path.stem
    method["attention"] = {**attention, "file": f"{path}:{function}", "code": code}
    return method


def installed() -> dict[str, str]:
    """The methods of installed packages: name → FILE.py:function."""
    return dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    points = sorted(entry_points(group=GROUP), key=lambda each: each.name)
    return tuple((each.name, _file_of(each.module, each.attr)) for each in points)


def _file_of(module: str, function: str) -> str:
    """Where a module of an installed package lies; only the package is looked up, nothing is
    imported."""
    package, *inside = module.split(".")
    found = importlib.util.find_spec(package)
    places = [] if found is None else list(found.submodule_search_locations or [])
    if found is not None and found.origin and not inside:
        return f"{found.origin}:{function or USUAL}"
    for place in places:
        path = Path(place, *inside)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return f"{file}:{function or USUAL}"
    raise UserError(f"entry point {GROUP}: module {module} is not there; install its package again")


def _split(written: str) -> tuple[Path, str]:
    """The file, and the name of the function in it."""
    file, colon, function = written.rpartition(":")
    if not colon or not function.isidentifier():
        file, function = written, USUAL
    return user_path(file).absolute(), function


def _read(path: Path, function: str) -> str:
    """The digest of a file's code and of which function is called. Raises UserError for a file that
    is no Python or lacks the function."""
    where = f"method.file={path}"
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    try:
        functions, digest = _functions(path)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{where}: is not Python: {error}") from None
    if function not in functions:
        raise UserError(
            f"{where}: has no function {function}(original, blocks, attention); write it, or name "
            f"another as {path.name}:function"
        )
    if functions[function] != ARGUMENTS:
        raise UserError(f"{where}: {function} must take (original, blocks, attention)")
    return sha256_text(f"{digest} {function}")


@once_a_file
def _functions(path: Path) -> tuple[dict[str, int], str]:
    """The functions at the top of a file and how many arguments each takes; the code's digest."""
    tree = ast.parse(path.read_bytes())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    takes = {node.name: len(node.args.posonlyargs) + len(node.args.args) for node in found}
    return takes, sha256_syntax(tree)
