"""Lists of names and prompt templates: text files, one entry a line, taken verbatim.

Torch-free and quick to import: the configuration reads these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cliptrase.errors import UserError, nearest

VOCABULARIES = Path(__file__).parent / "vocabularies"
TEMPLATES = Path(__file__).parent / "templates"


def read_names(path: Path | str, *, unique: bool = False) -> list[str]:
    """The lines of a text file, verbatim: only the newline is taken off, `"bed "` keeps its space.

    A byte order mark and Windows newlines are no part of a name; one empty line at the end is
    tolerated. `unique` is for the lists of users: shipped lists keep the oddities of their source.

    Raises UserError, naming the file (and line): missing, not UTF-8, empty, an empty line, and with
    `unique` a doubled name.
    """
    lines = _read_text(Path(path)).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if len(lines) > 1 and lines[-1] == "":
        lines.pop()
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the list is empty; write one name a line")
    check_names(lines, str(path), unique=unique)
    return lines


def check_names(
    names: Sequence[str], source: str, *, unique: bool = False, entry: str = "line"
) -> None:
    """Refuse an empty list, an empty name and, with `unique`, a name that stands there twice.

    Names that differ only in case or spaces are the same to CLIP's tokenizer, hence here.

    Raises UserError naming `source` (a file or an option) and the number, counted from 1, of the
    line or whatever an `entry` is there ("line" or "entry").
    """
    if not names:
        raise UserError(f"{source}: the list is empty; write at least one name")
    first: dict[str, int] = {}
    several = {"line": "lines", "entry": "entries"}[entry]
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise UserError(f"{source}: {entry} {number} is empty; remove it or write a name there")
        key = " ".join(name.lower().split())
        if unique and key in first:
            raise UserError(
                f"{source}: {name.strip()!r} is named twice ({several} {first[key]} and {number}); "
                "name every class once"
            )
        first.setdefault(key, number)


def read_templates(path: Path | str) -> list[str]:
    """The prompt templates of a file: like `read_names`, and each holds `{}` once for the name.

    Raises UserError naming the file and line.
    """
    templates = read_names(path)
    for number, template in enumerate(templates, start=1):
        if template.count("{}") != 1:
            raise UserError(
                f"{path}: line {number} is no template; it must hold {{}} once, where the name goes"
            )
    return templates


def vocabulary_path(name_or_path: Path | str) -> Path:
    """Absolute path of a shipped list (by its name) or of a text file (by its path).

    A shipped name wins over a file of that name in the current folder (write ./NAME for the file).

    Raises UserError with the nearest shipped name.
    """
    return _find(name_or_path, VOCABULARIES, "vocabulary")


def template_path(name_or_path: Path | str) -> Path:
    """Absolute path of a shipped list of templates or of a text file; as `vocabulary_path`."""
    return _find(name_or_path, TEMPLATES, "list of templates")


def shipped(folder: Path) -> list[str]:
    """Names of the lists in one of the two folders of this package."""
    return sorted(path.stem for path in folder.glob("*.txt"))


def _find(name_or_path: Path | str, folder: Path, what: str) -> Path:
    word = str(name_or_path)
    known = shipped(folder)
    if word in known:
        return folder / f"{word}.txt"
    path = Path(word).expanduser()
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        raise UserError(f"{word}: a folder, but a {what} is a text file with one entry a line")
    raise UserError(_unknown(word, what, known))


def _unknown(word: str, what: str, known: Iterable[str]) -> str:
    if "/" in word or word.endswith(".txt"):
        return f"{word}: no such file; give a text file with one entry a line, or a shipped {what}"
    return f"unknown {what} {word!r}: no shipped name and no file. {nearest(word, known)}"


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a text file with one name a line") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; give a text file with one name a line") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8, one name a line") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
