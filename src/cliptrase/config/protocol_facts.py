"""What each protocol is, as far as planning and configuration must know; torch-free.

What it does to pixels is evaluate/protocols.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """keys: of conf/protocol/<name>.yaml, beyond those that every protocol has.

    whole_pictures: labels are scored at their own size, no image is skipped, and the background is
    class 0 (else: a crop is scored, and the background comes after the classes).
    vote: what a method's `vote: auto` means. cls_logits: whether `cls_logits: auto` may mean true.
    """

    keys: tuple[str, ...]
    whole_pictures: bool
    vote: str
    cls_logits: bool


PROTOCOLS = {
    "crop": Facts((), whole_pictures=False, vote="hard", cls_logits=True),
    "slide": Facts(
        ("short_side", "stride", "background_threshold", "vocabularies"),
        whole_pictures=True,
        vote="none",
        cls_logits=False,
    ),
}


def facts(run: dict[str, Any]) -> Facts:
    """Of the protocol of a run."""
    return PROTOCOLS[run["protocol"]["name"]]
