"""What a prepared dataset must be by its source, and what its self-check says that it is.

Imports nothing heavy: planning asks whether a dataset is what its sources say.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cliptrase.data.fetch.sources import DatasetSource, sources_path
from cliptrase.data.read.selfcheck import SelfCheck as SelfCheck
from cliptrase.errors import UserError

IDS = Path(__file__).parents[1] / "ids"


def known_ids(source: DatasetSource, data: Path) -> list[str] | None:
    """The ids of `expected: ids`, or of the file that it names; None where the source lists none.

    The file lies beside the sources, or ships. Raises UserError for a file that is not there.
    """
    ids = source.expected.ids
    if not isinstance(ids, str):
        return None if ids is None else list(ids)
    beside = sources_path(data).parent / ids
    for path in (beside, IDS / ids):
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
    raise UserError(f"{source.name}: expected: ids: there is no file {beside}")


def check_ids(dataset: str, ids: Iterable[str], listed: Iterable[str] | None) -> None:
    """Compare ids with the list of the source, if there is one.

    Raises UserError naming one that is missing, and one that is too many.
    """
    if listed is None or set(ids) == set(listed):
        return
    present, wanted = set(ids), set(listed)
    faults = ((wanted - present, "missing"), (present - wanted, "not of this dataset"))
    named = [
        f"{and_more(sorted(some))} {'is' if len(some) == 1 else 'are'} {fault}"
        for some, fault in faults
        if some
    ]
    raise UserError(
        f"{dataset}: images by `expected: ids` of its source: {', and '.join(named)}; the archives "
        "are not those of the source"
    )


def check_figures(source: DatasetSource, check: SelfCheck) -> None:
    """Compare a self-check with the figures of the source.

    Raises UserError naming the dataset, the figure, and both values.
    """
    expected, pixels = source.expected, check["label_pixels"]
    figures: list[tuple[str, object, object]] = [
        ("ids_sha256", check["ids_sha256"], expected.ids_sha256),
        ("shortest_side", check["shortest_side"], expected.shortest_side),
        ("longest_side", check["longest_side"], expected.longest_side),
    ]
    for labels, low, high in expected.shares:
        share = sum(pixels.get(str(raw), 0) for raw in labels) / sum(pixels.values())
        if not low <= share <= high:
            name = f"share of pixels of label {', '.join(map(str, labels))}"
            figures.append((name, f"{share:.4f}", f"{low} to {high}"))
    for name, value, wanted in figures:
        if wanted is not None and value != wanted:
            raise UserError(
                f"{source.name}: {name}: {value} instead of {wanted}; the archives are not those "
                "of the source"
            )


def and_more(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
