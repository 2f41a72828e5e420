"""Which lists of words a run has: the chosen ones, the protocol's, or the benchmark's own.

Torch-free and quick to import: planning a suite reads these lists.
"""

from pathlib import Path
from typing import Annotated

from cliptrase.config.distractors import distractors, family
from cliptrase.config.files import Tree
from cliptrase.config.method import Method
from cliptrase.config.schema import (
    Benchmark,
    Distractors,
    Protocol,
    Slide,
    Vocabulary,
    WordList,
)
from cliptrase.config.validation import Frozen, validated, whole
from cliptrase.config.written import text_of
from cliptrase.data.read.vocabularies import (
    VOCABULARIES,
    background_path,
    check_apart,
    read_classes,
    read_names,
    read_templates,
    split_classes,
    template_path,
    vocabulary_path,
)
from cliptrase.errors import UserError
from cliptrase.files import once_a_file, sha256_text


def describe_vocabulary(
    benchmark: Benchmark, chosen: object, protocol: Protocol, given: bool
) -> Vocabulary:
    """Classes, background words (None where the benchmark scores no background) and templates.

    chosen: what `vocabulary=` names, None for nothing; it brings its background words along where
    there is a list of them beside it. Some protocols have lists of their own for benchmarks; those
    count unless the benchmark's words are `given` on the command line.

    Raises UserError naming the key or the file.
    """
    kind = protocol.vocabularies if isinstance(protocol, Slide) else None
    if chosen is None and not given and kind is not None:
        chosen = _protocol_list(benchmark, kind)
    classes = vocabulary_path(benchmark.classes if chosen is None else text_of(chosen))
    background = None
    if benchmark.background is not None:
        beside = None if chosen is None else background_path(classes)
        words = beside or vocabulary_path(benchmark.background)
        background = _list(words, "background")
        if not {classes.parent, words.parent} <= {VOCABULARIES}:
            check_apart(read_classes(classes), read_classes(words), str(words))
    return Vocabulary(
        classes=_list(classes, "classes"),
        background=background,
        templates=_list(template_path(benchmark.templates), "templates"),
    )


class _Asked(Frozen):
    distractors: Annotated[int, whole(0)]
    distractor_seed: Annotated[int, whole(0)]


def with_distractors(
    words: Vocabulary, benchmark: Benchmark, method: Method, tree: Tree
) -> Vocabulary:
    """The words of a run, with the distractors that a composed tree asks for, if any.

    Raises UserError naming the key: a method that is told no words, or more than there are.
    """
    asked = validated(_Asked, {key: tree[key] for key in _Asked.model_fields})
    if not asked.distractors:
        return words
    if method.unsupervised is not None or method.path is not None:
        raise UserError(
            f"distractors={asked.distractors}: method={method.name} is told no words; leave it out"
        )
    lists = [each.path for each in (words.classes, words.background) if each is not None]
    own = [name for path in lists for names in read_classes(path) for name in names]
    known = (benchmark.name, benchmark.name.removesuffix("_standard"), benchmark.classes)
    own += family(*known, benchmark.background or "")
    names = distractors(own, asked.distractors, asked.distractor_seed)
    drawn = Distractors(
        count=len(names),
        seed=asked.distractor_seed,
        sha256=sha256_text("\n".join(names)),
        names=names,
    )
    return words.model_copy(update={"distractors": drawn})


def _protocol_list(benchmark: Benchmark, kind: str) -> str | None:
    """The shipped list `sclip_…` for a benchmark's words, None where there is none.

    Named after the benchmark, the same without `_standard`, or its class list; with background
    words exactly if the benchmark scores a background.
    """
    for name in (benchmark.name, benchmark.name.removesuffix("_standard"), benchmark.classes):
        path = VOCABULARIES / f"{kind}_{name}.txt"
        scored = benchmark.background is not None
        if path.is_file() and scored == (background_path(path) is not None):
            return path.stem
    return None


@once_a_file
def _list(path: Path, kind: str) -> WordList:
    """A text file as a run keeps it. Shipped lists may repeat a name, also one of the background,
    and background words may repeat."""
    if kind == "templates":
        lines = read_templates(path)
    else:
        lines = read_names(path)
        unique = kind == "classes" and path.parent != VOCABULARIES
        split_classes(lines, str(path), unique=unique)
    digest = sha256_text("\n".join(lines))
    name = path.stem.encode(errors="backslashreplace").decode()  # it need not be UTF-8
    return WordList(name=name, path=str(path), count=len(lines), sha256=digest)
