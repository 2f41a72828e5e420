"""The numbers that the paper prints, as it prints them: published/published.csv."""

from dataclasses import dataclass

from cliptrase.errors import UserError
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
    """Every printed number by table, row, benchmark and metric, in the file's order.

    Raises UserError for a cell given twice and for a value that is not a number.
    """
    printed: dict[Key, Printed] = {}
    for line in published():
        key = (line["table"], line["row"], line["benchmark"], line["metric"])
        where, text, size = f"published.csv: {' '.join(key)}", line["value"], line["image_size"]
        if key in printed:
            raise UserError(f"{where} is given twice; keep one line of it")
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{where}: {text!r} is not a number") from None
        printed[key] = Printed(text, value, line["note"], int(size) if size else None)
    return printed
