"""Lists of names and prompt templates: text files, one entry a line, taken verbatim.

A class may have several names, with `|` between them.

Torch-free and quick to import: the configuration reads these files.
"""

import contextlib
import functools
import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliptrase.errors import UserError, nearest

VOCABULARIES = Path(__file__).parents[1] / "vocabularies"
TEMPLATES = Path(__file__).parents[1] / "templates"
SEPARATOR = "|"  # between several names of one class
BACKGROUND = "background"  # the name of the label that background words share
# Written between names or before them, as no list has it in every entry. Names may hold commas,
# which --classes and --background cannot have: there they are between entries already.
LISTED = {
    "line": re.compile(r".*[,;、，]|\s*(?:-\s|\d+[.,](?!\d))", re.DOTALL),
    "entry": re.compile(r".*[;、，]|\s*(?:-\s|\d+[.,](?!\d))", re.DOTALL),
}
QUOTED = re.compile(r"\s*[\[{]\s*(?:[\"']|$)")  # how JSON begins
ONLY_CLASS = (
    "one class was read, %r, and no background words: every pixel gets this class. In a file a "
    'name is a line, in --classes "a, b" names stand between commas, in Python each is an item'
)
# Control characters, line ends, what is invisible, bytes that were no UTF-8, and the marks that
# CLIP's tokenizer begins and ends a prompt with. Zero-width joiners stay: emoji and some alphabets
# are written with them.
UNREADABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
    "|<(?:start|end)_of_text>",
    re.IGNORECASE,
)


def read_names(path: Path | str) -> list[str]:
    """The lines of a text file, verbatim: only the newline is taken off, `"bed "` keeps its space.

    A byte order mark and a newline of any system are no part of a name; one empty line at the end
    is tolerated. Raises UserError, naming the file (and line): missing, not UTF-8, empty, an empty
    line.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8, one name a line") from None
    except OSError as error:
        known = {FileNotFoundError: "no such file", IsADirectoryError: "a folder"}
        fault = known.get(type(error), f"cannot be read ({error.strerror})")
        raise UserError(f"{path}: {fault}; give a text file with one name a line") from error
    lines = re.sub("\r\n?", "\n", text).removesuffix("\n").removesuffix("\n").split("\n")
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the list is empty; write one name a line")
    _refuse_empty(lines, str(path), "line")
    return lines


def texts(given: Any, key: str) -> list[str]:
    """The entries of a list of texts, in its order. Raises UserError, naming `key`."""
    if isinstance(given, str):
        raise UserError(f"{key}: give a list of words, as [{given!r}], not one text")
    entries = None
    with contextlib.suppress(TypeError):  # what cannot be iterated
        if not isinstance(given, bytes | set | frozenset | Mapping):
            entries = list(given)
    if entries is None:
        kind = type(given).__name__
        raise UserError(f"{key}: of type {kind}; give a list of words, whose order counts")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, str):
            several = isinstance(entry, Sequence)
            raise UserError(
                f"{key}: entry {number} is of type {type(entry).__name__}; give a list of words"
                + ', and several names of a class as one of them, "sofa|couch"' * several
            )
    return entries


def read_classes(path: Path | str, *, unique: bool = False) -> list[list[str]]:
    """The names of each class: a line is a class, `|` stands between several names of it.

    Names are verbatim, as in `read_names`. `unique` is for the lists of users: shipped lists keep
    the oddities of their source. Raises UserError as `read_names` and `split_classes`.
    """
    return split_classes(read_names(path), str(path), unique=unique)


def split_classes(
    entries: Sequence[str], source: str, *, unique: bool = False, entry: str = "line"
) -> list[list[str]]:
    """The names of each class from entries such as `"person|person in shirt"`; see `read_classes`.

    Raises UserError for an empty list, an empty name, a character that no name can hold, several
    names, a bullet or a number in every entry, JSON and, with `unique`, a name that two classes
    have, as CLIP's tokenizer or a person reads it, or that one class has twice. It names `source`
    (a file or an option) and the number of the `entry` ("line" or "entry"), counted from 1.
    """
    if not entries:
        raise UserError(f"{source}: the list is empty; write at least one name")
    _refuse_empty(entries, source, entry)
    _refuse_unreadable(entries, source, entry)
    listed = entries[0] if all(map(LISTED[entry].match, entries)) else None
    listed = next(filter(QUOTED.match, entries), listed)
    if listed is not None:
        place = f"{entry} {entries.index(listed) + 1}" if len(entries) > 1 else f"its only {entry}"
        raise UserError(
            f"{source}: {place} is {listed!r}, which would be one name; write one name "
            f"{'a line' if entry == 'line' else 'an entry'}, nothing before or behind it, and "
            f"{SEPARATOR!r} between several names of one class"
        )
    classes = [text.split(SEPARATOR) for text in entries]
    first: dict[tuple[str, ...], tuple[int, str]] = {}
    for number, names in enumerate(classes, start=1):
        for name in names:
            if not name.strip():
                raise UserError(
                    f"{source}: {entry} {number} has nothing on one side of a {SEPARATOR!r}, which "
                    "stands between two names of a class; write a name there, or remove it"
                )
            if not unique:
                continue
            if not (key := as_read(name)):
                raise UserError(
                    f"{source}: {entry} {number}: {name!r} is empty to CLIP's tokenizer"
                )
            if key not in first:
                first[key] = number, name
                continue
            before, other = first[key]
            same = before == number
            plain = " ".join(name.lower().split()) == " ".join(other.lower().split())
            if plain or not same:  # two spellings of one class do no harm
                several = {"line": "lines", "entry": "entries"}[entry]
                where = f"{entry} {number}" if same else f"{several} {before} and {number}"
                alike = f", to CLIP's tokenizer or to the eye: {other!a} and {name!a}" * (not plain)
                raise UserError(
                    f"{source}: {name.strip()!r} is named twice ({where}){alike}; give every name "
                    "to one class, once"
                )
    return classes


@functools.cache
def as_read(name: str) -> tuple[str, ...]:
    """The pieces that CLIP's tokenizer makes of a name, without the characters that nobody sees.

    Where there are none of these, it gives equal pieces equal tokens.
    """
    import ftfy  # shipped lists are read without these two
    import regex

    cleaned = html.unescape(html.unescape(ftfy.fix_text(name))).lower()
    pieces = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    seen = regex.sub(r"\p{Default_Ignorable_Code_Point}", "", cleaned)
    return tuple(regex.findall(pieces, seen))


def check_apart(
    classes: Sequence[Sequence[str]], background: Sequence[Sequence[str]], source: str
) -> None:
    """Raise UserError, naming the `source` of the background words, where one of them is a name of
    a class to CLIP's tokenizer: the two are equal everywhere, and only one can win."""
    owned = {as_read(name): name for names in classes for name in names}
    for word in (word for words in background for word in words):
        if (name := owned.get(as_read(word))) is not None:
            raise UserError(
                f"{source}: {word!r} is the name {name!r} of a class too, to CLIP's tokenizer; "
                "remove it from the background words or from the classes"
            )


def owned_names(
    classes: Sequence[Sequence[str]], background: Sequence[str], *, background_first: bool = False
) -> tuple[list[str], list[int]]:
    """All names and, for each, the index of the class that owns it.

    Class i is i, and the background words, which come last, are one class more. With
    `background_first` they come first and are class 0, so that class i is i + 1.
    """
    owners = [*classes]
    if background:
        owners.insert(0 if background_first else len(owners), background)
    names = [name for owned in owners for name in owned]
    return names, [index for index, owned in enumerate(owners) for _ in owned]


def check_labels(
    classes: Sequence[Sequence[str]], background: Sequence[object] | None, source: str
) -> None:
    """Raise UserError, naming the `source` of the classes, for one that is named as the label that
    background words share, and for more labels than a map of 16 bits tells apart."""
    if background and any(names[0].strip().lower() == BACKGROUND for names in classes):
        raise UserError(
            f"{source}: {BACKGROUND!r} is the name of the label that all background words "
            "share; give the class another name, or make it one of the background words"
        )
    if (labels := len(classes) + bool(background)) > 65_535:
        raise UserError(
            f"{source}: {labels:,} labels, but a label map of 16 bits holds 65,535 at most; "
            "divide the list"
        )


def read_templates(path: Path | str) -> list[str]:
    """The prompt templates of a file, each with `{}` once for the name. Raises as `read_names`."""
    templates = read_names(path)
    _refuse_unreadable(templates, str(path), "line")
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


def background_path(classes: Path) -> Path | None:
    """The list of background words that belongs to a list of classes: the file beside it whose name
    has `_background` at its end; None where there is none."""
    path = classes.with_name(f"{classes.stem}_background.txt")
    return path if path.is_file() else None


def template_path(name_or_path: Path | str) -> Path:
    """Absolute path of a shipped list of templates or of a text file; as `vocabulary_path`."""
    return _find(name_or_path, TEMPLATES, "list of templates")


def shipped(folder: Path) -> list[str]:
    """Names of the lists in one of the two folders of this package."""
    return sorted(path.stem for path in folder.glob("*.txt"))


def _find(name_or_path: Path | str, folder: Path, what: str) -> Path:
    word = str(name_or_path)
    if "/" not in word and (folder / f"{word}.txt").is_file():
        return folder / f"{word}.txt"
    path = Path(os.path.expanduser(word))
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        raise UserError(f"{word}: a folder, but a {what} is a text file with one entry a line")
    if "/" in word or word.endswith(".txt"):
        raise UserError(
            f"{word}: no such file; give a text file with one entry a line, or a shipped {what}"
        )
    raise UserError(
        f"unknown {what} {word!r}: no shipped name and no file. " + nearest(word, shipped(folder))
    )


def _refuse_empty(entries: Sequence[str], source: str, entry: str) -> None:
    for number, text in enumerate(entries, start=1):
        if not text.strip():
            raise UserError(f"{source}: {entry} {number} is empty; remove it or write a name there")


def _refuse_unreadable(entries: Sequence[str], source: str, entry: str) -> None:
    for number, text in enumerate(entries, start=1):
        if found := UNREADABLE.search(text):
            raise UserError(
                f"{source}: {entry} {number}, {text!r}, holds {found[0]!r}, which no name can "
                "hold; remove it, or write what it separates as entries of their own"
            )
