"""The numbers that the paper prints, as it prints them: published/published.csv."""

from dataclasses import dataclass

from cliptrase.plan.tables import published

Key = tuple[str, str, str, str]  # table, row, benchmark, metric


@dataclass(frozen=True)
class Printed:
    """One printed number, per cent (flops: times CLIP's). `text` keeps its digits: "4.70".

    `image_size` in pixels, None where the paper quotes other work without one.
    """

    text: str
    value: float
    note: str
    image_size: int | None


def read_published() -> dict[Key, Printed]:
    """Every printed number by table, row, benchmark and metric, in the file's order."""
    printed: dict[Key, Printed] = {}
    for line in published():
        key = (line["table"], line["row"], line["benchmark"], line["metric"])
        text, size = line["value"], line["image_size"]
        printed[key] = Printed(text, float(text), line["note"], int(size) if size else None)
    return printed
