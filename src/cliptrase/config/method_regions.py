"""The regions of a method: types, choices, ranges and defaults of their keys."""

from typing import Annotated, Self

from pydantic import model_validator

from cliptrase.config.kinds import CLUSTERING, DENOISE, VOTE
from cliptrase.config.method_attention import SHARED_MATRIX, Block, Heads
from cliptrase.config.validation import (
    Count,
    Flag,
    Frozen,
    defaults,
    is_number,
    number,
    one_of,
    that,
    whole,
)
from cliptrase.config.written import text_of
from cliptrase.errors import UserError


class Correlation(Frozen):
    """How tokens are compared: those of a block of the unmodified CLIP, or a `feature` of the
    second network `method.dino` (Table 5)."""

    block: Block | None = None  # of CLIP
    kind: Annotated[str, one_of(*SHARED_MATRIX)]
    heads: Heads = "mean"
    source: Annotated[str, one_of("clip", "dino")] = "clip"
    feature: Annotated[str, one_of("tokens", "key", "qkv")] = "tokens"

    @model_validator(mode="after")
    def _source_reads(self) -> Self:
        """Refuse keys that the source does not read."""
        place = "method.regions.correlation"
        if self.source == "clip" and self.block is None:
            raise UserError(
                f"{place}.block is missing; write it where the other keys of {place} are"
            )
        if self.source == "clip" and self.feature != "tokens":
            raise UserError(
                f"{place}.feature={self.feature}: source clip compares q, k and v of a block"
            )
        if self.source == "dino":
            usual = {"block": None, "heads": "mean", "kind": "cosine"}
            for key, value in usual.items():
                if getattr(self, key) != value:
                    given = text_of(getattr(self, key))
                    cure = f"source dino takes {text_of(value)}; it has a feature instead"
                    raise UserError(f"{place}.{key}={given}: {cure}")
        return self


class SamOptions(Frozen):
    """How clusters prompt SAM, and how its masks become regions.

    points: of each cluster, at most. sees: the pixels that CLIP gets, or the same view of the
    original picture. score: what a pixel in several masks goes by. threshold: of mask logits; a
    pixel above it is in the mask.
    """

    points: Annotated[
        str | int,
        that(
            lambda value: value == "all" or (is_number(value, int) and value >= 1),
            "must be all, or a whole number, 1 or more",
        ),
    ] = "all"
    sees: Annotated[str, one_of("network", "original")] = "network"
    multimask: Flag = False
    score: Annotated[str, one_of("iou", "logit")] = "iou"
    threshold: Annotated[
        float,
        that(
            lambda value: is_number(value) and -100 <= value <= 100,
            "must be a number from -100 to 100; 0 keeps what is as likely in the mask as not",
        ),
    ] = 0.0


class CutOptions(Frozen):
    """threshold: patches with a larger correlation are alike. most: masks that are cut out."""

    threshold: Annotated[
        float,
        that(
            lambda value: is_number(value) and -1 <= value < 1,
            "must be a number, -1 or more and less than 1",
        ),
    ] = 0.3
    most: Count = 8


CLUSTERED = ("cluster", "denoise", "eps", "min_samples")
MAY_CLUSTER = ("algorithm", "l2_rows", "passes")  # have a default
REGIONS = {  # what each kind of regions needs beside the vote
    "prototypes": ("correlation", *CLUSTERED, "upsample", "median"),
    "sam": ("correlation", *CLUSTERED, "sam"),
    "panoptic_cut": ("correlation", "cut"),
    "sam_grid": (),
}
CURES = {  # a method whose regions are of the kind
    "prototypes": "cliptrase, whose regions are of kind prototypes",
    "sam": "cliptrase_sam",
    "panoptic_cut": "lavg",
    "sam_grid": "corrclip",
}


class Regions(Frozen):
    """How patches are clustered, how clusters become regions, and how regions vote.

    kind: smoothed maps of cluster prototypes (their `upsample` and `median`), SAM's masks of the
    clusters, masks that are cut out of the graph of patches (`segment.spectral_cuts`), or SAM's
    masks of a grid of points, without any correlation (`segment.grid_masks`).
    """

    kind: Annotated[str, one_of(*REGIONS)] = "prototypes"
    sam: SamOptions | None = None
    cut: CutOptions | None = None
    correlation: Correlation | None = None
    cluster: Annotated[str, one_of("rows", "features")] | None = None
    denoise: Annotated[str, one_of(*DENOISE)] | None = None
    eps: Annotated[float, number(0)] | None = None
    min_samples: Count | None = None
    upsample: Annotated[int, whole(1, 32)] | None = None
    median: (
        Annotated[int, that(lambda value: value % 2 == 1, "the window must be odd"), whole(1, 99)]
        | None
    ) = None
    vote: Annotated[str, one_of("auto", *VOTE)]  # auto is filled in before
    algorithm: Annotated[str, one_of(*CLUSTERING)] = "dbscan"
    l2_rows: Flag = False
    passes: Annotated[int, one_of(1, 2)] = 1

    @property
    def source(self) -> str:
        """What is correlated: clip | dino; "" where nothing is."""
        return "" if self.correlation is None else self.correlation.source

    @model_validator(mode="after")
    def _kind_reads(self) -> Self:
        """Refuse keys that the kind does not read, and those that it misses."""
        needed = REGIONS[self.kind]
        read = {*needed, *(MAY_CLUSTER if "cluster" in needed else ())}
        unread = {*MAY_CLUSTER, *(key for keys in REGIONS.values() for key in keys)} - read
        for key, default in defaults(Regions).items():
            value, place = getattr(self, key), f"method.regions.{key}"
            if value is None and key in needed:
                section = "the other keys of method.regions are"
                raise UserError(f"{place} is missing; write it where {section}")
            if value != default and key in unread:
                given = "…" if isinstance(value, Frozen) else text_of(value)
                cure = f"leave it out, or take method={CURES[self.kind]}"
                raise UserError(f"{place}={given}: kind {self.kind} does not read it; {cure}")
        return self
