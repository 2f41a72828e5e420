"""Under which settings of its protocol a run stands: numbers under others are never compared."""

from cliptrase.config import Run
from cliptrase.config.run import stock

APART = ("name", "rule", "vocabularies")  # a run says these elsewhere


def changed_settings(run: Run) -> dict[str, float | int]:
    """key → value of a run's protocol, where conf/protocol/<name>.yaml, as resolved for the run's
    benchmark, says otherwise; in the order of the file."""
    usual = dict(stock(run)[1])
    return {key: value for key, value in run.protocol if key not in APART and value != usual[key]}


def protocol_of(run: Run) -> str:
    """`slide`, or `slide(short_side=448,logit_scale=65)`: the protocol and what differs from it."""
    settings = changed_settings(run).items()
    changed = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in settings
    )
    return run.protocol.name + (f"({changed})" if changed else "")


def in_words(protocol: str) -> str:
    """What `protocol_of` says, to be read: `slide, short_side 448, logit_scale 65`."""
    name, _, changed = protocol.partition("(")
    return ", ".join([name, *filter(None, changed.rstrip(")").replace("=", " ").split(","))])
