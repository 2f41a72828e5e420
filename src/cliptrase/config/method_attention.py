"""The attention of a method: types, choices, ranges and defaults of its keys."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from cliptrase.config.kinds import ATTENTION, TERMS
from cliptrase.config.validation import (
    Count,
    Flag,
    Frozen,
    OptionalText,
    Scale,
    defaults,
    is_number,
    one_of,
    that,
)
from cliptrase.config.written import text_of
from cliptrase.errors import UserError, nearest

Heads = Annotated[str, one_of("mean", "concatenated")]
Block = Annotated[
    int,
    that(
        lambda value: is_number(value, int) and value <= 12,
        "must be a whole number up to 12, the last block: they are counted as in a 12-block model, "
        "from the end",
    ),
]
Share = Annotated[
    float,
    that(lambda value: is_number(value) and 0 <= value <= 1, "must be a number from 0 to 1"),
]
OWN_KEYS = (  # numbers of some methods
    "early_share", "outlier_quantile", "most_outliers", "similarity_threshold", "cls_share",
)  # fmt: skip
WITHIN_KEYS = ("within_mixed", "within_cls")  # how `within` restricts
SHARED_MATRIX = tuple(name for name, kind in ATTENTION.items() if kind.shares_heads)


def _terms(value: Any) -> tuple[str, ...]:
    """In one order, whatever order they are written in: it is one run."""
    unknown = [term for term in value if term not in TERMS] if isinstance(value, list) else []
    if unknown:
        hint = nearest(str(unknown[0]), TERMS)
        raise UserError(f"method.attention.terms: unknown term {unknown[0]!r}; {hint}")
    if not isinstance(value, list | tuple) or len(set(value)) != len(value):
        raise ValueError("give a list without doubles, as [qq,kk,vv]")
    return tuple(sorted(value, key=TERMS.index))


class Attention(Frozen):
    """What replaces the attention of the blocks first_block … last_block, counted as in a 12-block
    model, from the end on other depths.

    within: an oracle: tokens attend within regions of the ground truth only. A configuration says
    `truth`; the run of a pass names its target there (`evaluate.jobs.Job.of`). early_share: of
    earlier blocks in the attention (`model.attention.resclip`). outlier_quantile,
    most_outliers, similarity_threshold, cls_share: what is an outlier, how many are, how like
    patches are that are averaged, and how much of [CLS] is added to them (`model.purified`).
    """

    kind: Annotated[str, one_of(*ATTENTION)]
    terms: Annotated[tuple[str, ...], BeforeValidator(_terms)]
    first_block: Block
    last_block: Block
    residual: Flag
    ffn: Flag
    omega: Scale | None = None
    row_sum: Annotated[str | int, one_of("none", 1, 3)] = "none"
    heads: Heads = "mean"
    softmax: Flag = False
    early_share: Share = 0.5
    outlier_quantile: Share = 0.95
    most_outliers: Count = 10
    similarity_threshold: Share = 0.4
    cls_share: Share = 0.3
    file: OptionalText = Field(default=None, exclude=True)  # of kind file: PATH:function
    code: OptionalText = None  # the digest of its code
    within: Annotated[str | None, one_of(None, "truth")] = None
    within_mixed: Annotated[str, one_of("majority", "any")] = "majority"
    within_cls: Annotated[str, one_of("apart", "kept")] = "apart"

    @model_validator(mode="after")
    def _kind_reads(self) -> Self:
        """Refuse keys that the kind does not read."""
        kind, reads = ATTENTION[self.kind], ATTENTION[self.kind].reads
        terms = list(self.terms)
        if self.kind != "file" and ("terms" in reads) != bool(terms):
            cure = f"kind {self.kind} compares nothing; take []"
            cure = "give a list without doubles, as [qq,kk,vv]" if "terms" in reads else cure
            raise UserError(f"method.attention.terms={terms}: {cure}")
        if kind.two_paths and (self.residual, self.ffn) != (True, False):
            raise UserError(
                f"method.attention.kind={self.kind}: its path has a residual and no FFN; take "
                "method.attention.residual=true and method.attention.ffn=false"
            )
        replaced = self.first_block, self.last_block, self.residual, self.ffn
        if kind.last_alone and replaced != (12, 12, False, False):
            raise UserError(
                f"method.attention.kind={self.kind}: it replaces the last block alone, without "
                "residual and FFN; take method.attention.first_block=12, "
                "method.attention.last_block=12, method.attention.residual=false and "
                "method.attention.ffn=false"
            )
        if self.kind == "gem" and "qk" in terms:
            raise UserError(
                "method.attention.terms: kind gem compares tokens with themselves; take qq, kk, vv"
            )
        if (self.kind == "file") != (self.file is not None):
            raise UserError(
                f"method.attention.kind={self.kind}: kind file and method.file go together; give "
                "both or none"
            )
        cures = {
            "row_sum": f"kind {self.kind} has rows of its own; take none",
            "heads": f"kind {self.kind} attends head by head; take mean, or kind "
            + " or ".join(SHARED_MATRIX),
            "omega": f"is added before a softmax; take null with kind {self.kind}",
            "softmax": "is of kinds with one matrix for all heads; take false, or kind "
            + " or ".join(SHARED_MATRIX),
            "within": f"kind {self.kind} has no rows that could be restricted; take null",
        }
        for key in OWN_KEYS:
            cures[key] = f"kind {self.kind} does not read it; take {defaults(Attention)[key]}"
        if self.within is None:
            unread = "says how within=truth restricts rows, and within is null; take "
            cures |= {key: unread + defaults(Attention)[key] for key in WITHIN_KEYS}
        for key, cure in cures.items():
            value = getattr(self, key)
            if key not in reads and value != defaults(Attention)[key]:
                raise UserError(f"method.attention.{key}={text_of(value)}: {cure}")
        if self.within is not None and self.omega is not None:
            raise UserError(
                f"method.attention.within={self.within}: is not defined with "
                f"method.attention.omega={self.omega:g}; take null for one of the two"
            )
        if self.first_block > self.last_block:
            raise UserError(
                f"method.attention.first_block={self.first_block} comes after "
                f"last_block={self.last_block}"
            )
        return self
