"""Under which settings of its protocol a run stands: numbers under others are never compared."""

from __future__ import annotations

from typing import Any

from cliptrase import config

# not told: the name stands before them, rules are told apart by themselves, the words of a run say
# which lists were taken
APART = ("name", "rule", "vocabularies")


def changed_settings(run: dict[str, Any]) -> dict[str, Any]:
    """key → value of a resolved run's protocol, where conf/protocol/<name>.yaml, as resolved for
    the run's benchmark, says otherwise; in the order of the file."""
    usual = config.stock(run)["protocol"]
    return {
        key: value
        for key, value in run["protocol"].items()
        if key not in APART and value != usual.get(key)
    }


def protocol_of(run: dict[str, Any]) -> str:
    """`slide`, or `slide(short_side=448,logit_scale=65)`: the protocol and what differs from it."""
    changed = ",".join(f"{key}={_short(value)}" for key, value in changed_settings(run).items())
    return run["protocol"]["name"] + (f"({changed})" if changed else "")


def in_words(protocol: str) -> str:
    """What `protocol_of` says, to be read: `slide, short_side 448, logit_scale 65`."""
    name, _, changed = protocol.partition("(")
    return ", ".join([name, *filter(None, changed.rstrip(")").replace("=", " ").split(","))])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
