"""Distractors: names of things that a benchmark does not score, drawn from shipped lists.

A model that is given them may predict them, and every pixel that they get is lost.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator

from cliptrase.data.read.vocabularies import VOCABULARIES, background_path, read_classes
from cliptrase.errors import UserError, counted

# Named one by one: a list that ships later changes no draw.
LISTS = (
    "plain_ade150",
    "plain_ade847",
    "plain_coco_stuff171",
    "plain_pc459",
    "plain_pc59",
    "plain_voc20",
    "coco_object80",
    "cityscapes19",
    "cityscapes27",
    "shapes_fine",
    "shapes",
)
SYNONYMS = "ade847"  # its lines are sets of them: "airplane, aeroplane, plane"
SAME = (  # what no line of it says: other words for a class, and kinds of it
    "motorbike, motorcycle",
    "person, rider",
    "bird, hen",
    "sports ball, brown basketball",
    "cup, mug",
    "tv, monitor, screen",
)
_PLURAL = re.compile(r"(?<=x|h)es$|(?<=ss)es$|(?<=[^su])s$")  # boxes, benches, glasses, bowls
BARRED = ("unknown", "solid")  # labels that name no thing


def distractors(own: Iterable[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` distractors beside the names that a benchmark has, `own`; a larger count adds to
    those of a smaller one.

    Candidates are the distinct names of LISTS that are none of `own` nor a synonym of one, also in
    the plural, and neither hold one as words nor are words of one: beside "table" there is no
    "coffee table". They are ordered by the sha256 of `<seed> <name>` in UTF-8, which is the same on
    every machine.

    Raises UserError where fewer are left.
    """
    left = _apart(frozenset(own))
    if count > len(left):
        raise UserError(
            f"distractors={count}: {counted(len(left), 'name')} of other lists are left beside the "
            f"benchmark's own; take {len(left)} or fewer"
        )
    return tuple(sorted(left, key=lambda name: _digest(seed, name))[:count])


def family(*names: str) -> Iterator[str]:
    """The names of every shipped list of a benchmark: of `names` themselves, SCLIP's and plain
    ones, and the background words that belong to them."""
    for name in names:
        for kind in ("", "sclip_", "plain_"):
            path = VOCABULARIES / f"{kind}{name}.txt"
            if path.is_file():
                yield from _names(path.stem)
                if (background := background_path(path)) is not None:
                    yield from _names(background.stem)


@functools.cache
def _names(shipped: str) -> tuple[str, ...]:
    lines = read_classes(VOCABULARIES / f"{shipped}.txt")
    return tuple(name for names in lines for name in names)


@functools.lru_cache(maxsize=64)
def _apart(own: frozenset[str]) -> tuple[str, ...]:
    """The candidates beside `own`, in the order of LISTS."""
    taken = {_words(name) for name in (*own, *BARRED)}
    sets = [{_words(name) for name in line.split(",")} for line in (*_names(SYNONYMS), *SAME)]
    while more := [same for same in sets if same & taken and not same <= taken]:
        taken = taken.union(*more)  # a synonym of a synonym is one
    held = "\n".join(taken)
    distinct: dict[str, str] = {}
    for name in (name for each in LISTS for name in _names(each)):
        distinct.setdefault(_words(name), name)
    return tuple(
        name
        for words, name in distinct.items()
        if words not in held and taken.isdisjoint(_parts(words))
    )


def _parts(words: str) -> Iterator[str]:
    """Every run of words in a row of some words."""
    each = words.split()
    for first in range(len(each)):
        for last in range(first, len(each)):
            yield _words(" ".join(each[first : last + 1]))


def _words(name: str) -> str:
    """The words of a name in lower case and in the singular, as far as their ends tell, with a
    space before each and behind the last."""
    words = re.findall(r"[^\W_]+", name.lower())
    return "".join(f" {_PLURAL.sub('', word)}" for word in words) + " "


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
