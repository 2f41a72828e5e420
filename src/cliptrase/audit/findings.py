"""A fault that the audit found, and when a mend says that there is one."""

from dataclasses import dataclass

TIMES = 1.5  # a mend of the order of labels raises mIoU by this factor
SHIFT, ORDER = 3.0, 1.0  # and by so many per cent: one of all labels, and one of some names


@dataclass(frozen=True)
class Finding:
    """A fault, what shows it, and mIoU in per cent if it were mended; None where only another
    export can say."""

    fault: str
    evidence: str
    mended: float | None


@dataclass(frozen=True)
class Report:
    """Of an export. score: mIoU in per cent of the maps that can be read, under the rule of the
    run, where what is no class is wrong."""

    images: int
    score: float
    findings: list[Finding]


def raises(mended: float, as_is: float, times: float, more: float) -> bool:
    """Whether a mend raises mIoU by this factor and by so many per cent."""
    return mended > times * as_is and mended > as_is + more


def cycle(moved: dict[int, int], start: int) -> bool:
    """Whether what moved leads back to its start: a to b, b to c, c to a."""
    place = moved[start]
    for _ in moved:
        if place == start:
            return True
        if place not in moved:
            return False
        place = moved[place]
    return place == start
