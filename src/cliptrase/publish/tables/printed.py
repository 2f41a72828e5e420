"""The numbers that papers print, as they print them: published/published.csv and peers.csv."""

from dataclasses import dataclass

from cliptrase.plan.tables import published

Key = tuple[str, str, str, str]  # table, row, benchmark, metric
PEERS = "table_peers_own"  # the table that has the rows of peers.csv


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


def read_peers() -> dict[Key, Printed]:
    """What the papers of other methods print with their own settings, in the same form."""
    return {
        (PEERS, line["row"], line["benchmark"], "mIoU"): Printed(
            line["value"], float(line["value"]), line["note"], None
        )
        for line in published("peers.csv")
    }
