"""Faults of place: labels mixed by interpolation, maps that are turned, maps of other images."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from cliptrase.audit.export import Export, Seen
from cliptrase.audit.findings import SHIFT, TIMES, Finding, cycle, raises
from cliptrase.audit.label_maps import Labels, mended, share_right, without_steps
from cliptrase.errors import counted

STEPS = 0.15  # share of the borders that go up or down in steps, where labels were interpolated
SURE, TURNED = 4.0, 1.2  # standard errors, where maps are turned; and mIoU rises by this factor
PARTNER = 0.25  # agreement that another image's map has more than an image's own
MANY = 0.3  # share of the images that have another's, from which chance is no reason
TURNS: dict[str, Callable[[Labels], Labels]] = {
    "mirrored left to right": lambda labels: labels[:, ::-1],
    "mirrored top to bottom": lambda labels: labels[::-1],
    "turned by 180 degrees": lambda labels: labels[::-1, ::-1],
    "transposed": lambda labels: labels.T,
    "turned by 90 degrees": lambda labels: np.rot90(labels),
    "turned by 270 degrees": lambda labels: np.rot90(labels, 3),
    "transposed along the other diagonal": lambda labels: labels[::-1, ::-1].T,
}  # what makes the right map of one that is so


def interpolated_maps(export: Export, seen: Seen) -> Iterator[Finding]:
    """Maps resized with interpolation, which makes labels that lie between two others."""
    if seen.steps <= STEPS * max(seen.borders, 1) or seen.borders < 50:
        return
    share = 100 * seen.steps / seen.borders
    columns = export.columns(seen.positions, lambda p: without_steps(export.stored(p)))
    evidence = f"{share:.0f} % of the borders with room for a label between go in steps"
    yield Finding("resized with interpolation", evidence, export.miou(columns))


def turned_maps(export: Export, seen: Seen, mend: Callable[[int], int]) -> Iterator[Finding]:
    """Maps that are mirrored, transposed or turned. mend: of their values."""
    if len(seen.ids) < 4:
        return
    maps = [mended(each, mend) for each in seen.maps]
    as_is = np.array([share_right(t, m) for t, m in zip(seen.truths, maps, strict=True)])
    best: tuple[float, str, float] = (SURE, "", 0.0)
    for name, turn in TURNS.items():
        turned = [share_right(t, turn(m)) for t, m in zip(seen.truths, maps, strict=True)]
        more = np.array(turned) - as_is
        error = float(more.std(ddof=1)) / np.sqrt(len(more)) + 1e-6
        if (sure := float(more.mean()) / error) > best[0] and more.mean() > 0.02:
            best = sure, name, float(np.mean(turned))
    sure, name, share = best
    if not name:
        return
    right = export.columns(seen.positions, lambda p: mended(TURNS[name](export.stored(p)), mend))
    if not raises(put_right := export.miou(right), export.miou(seen.columns, mend), TURNED, 0.0):
        return
    evidence = f"{100 * as_is.mean():.1f} % of the pixels are right, {100 * share:.1f} % "
    evidence += f"if turned back ({sure:.0f} standard errors)"
    yield Finding(name, evidence, put_right)


def maps_of_others(export: Export, seen: Seen, mend: Callable[[int], int]) -> Iterator[Finding]:
    """Images that have one another's maps, or all those of their neighbours."""
    count = len(seen.ids)
    maps = np.stack([mended(each, mend) for each in seen.maps]).reshape(count, -1)
    truths = np.stack(seen.truths).reshape(count, -1)
    agree = np.stack([((truth == maps) & (truth >= 0)).mean(axis=1) for truth in truths])
    agree /= np.maximum((truths >= 0).mean(axis=1), 1e-6)[:, None]
    rows, partners = linear_sum_assignment(-agree)
    gain = agree[rows, partners] - agree.diagonal()
    swapped = [int(row) for row in rows if partners[row] != row and gain[row] > PARTNER]
    many = len(swapped) >= MANY * count
    if many:
        swapped = [int(row) for row in rows if partners[row] != row]
    else:  # not by chance: images that have one another's maps
        partner_of = {i: int(partners[i]) for i in swapped}
        swapped = [i for i in swapped if cycle(partner_of, i)]
    if not swapped:
        return
    other = {seen.positions[i]: seen.positions[int(partners[i])] for i in swapped}
    columns = export.columns(seen.positions, lambda p: mended(export.stored(other.get(p, p)), mend))
    as_is, put_right = export.miou(seen.columns, mend), export.miou(columns)
    if not raises(put_right, as_is, *((TIMES, SHIFT) if many else (1.0, 0.0))):
        return
    pairs = [f"{seen.ids[i]} fits the map of {seen.ids[int(partners[i])]}" for i in swapped]
    evidence = f"{counted(len(swapped), 'image')}: {'; '.join(pairs[:3])}"
    yield Finding("predictions of other images", evidence, put_right)
