"""A method: types, choices, ranges and defaults of its keys, as `schema` says them of a run."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from cliptrase.config.kinds import ATTENTION, CLUSTERING, DENOISE, PROPAGATE, TERMS, VOTE
from cliptrase.config.validation import (
    Frozen,
    OptionalText,
    Text,
    defaults,
    is_number,
    number,
    one_of,
    that,
    whole,
)
from cliptrase.config.written import text_of, unquoted
from cliptrase.errors import UserError, nearest

Heads = Annotated[str, one_of("mean", "concatenated")]
Flag = Annotated[bool, one_of(True, False)]
Count = Annotated[int, whole(1)]
Block = Annotated[
    int,
    that(
        lambda value: is_number(value, int) and value <= 12,
        "must be a whole number up to 12, the last block: they are counted as in a 12-block model, "
        "from the end",
    ),
]
Scale = Annotated[float, number(0, 10_000)]
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


class BackboneNames(Frozen):
    """Labels of conf/backbone by what a method needs them for."""

    sam: OptionalText = None
    dino: OptionalText = None


class WrittenBackbone(Frozen):
    """A network beside CLIP as its YAML says it.

    name: of kind sam its repository on the hub, of kind timm timm's architecture, whose repository
    is `repo`; None: it ships with the project. sha256, bytes: of its weights. gated: its licence
    must be accepted on the hub first.
    """

    label: Text
    kind: Annotated[str, one_of("sam", "timm")]
    name: OptionalText
    repo: OptionalText = None
    sha256: OptionalText = None
    bytes: Count | None = None
    patch: Count | None = None
    gated: Flag = False


class Backbone(Frozen):
    """A network beside CLIP: what it is, and where it lies.

    path: its folder, None where it comes from `repo` on the hub. patch: in pixels, of kind timm.
    """

    label: str
    kind: str  # sam | timm
    name: str
    weights_sha256: str | None
    config_sha256: str | None
    path: str | None = Field(exclude=True)
    repo: str | None = Field(exclude=True)
    patch: int | None = Field(exclude=True)

    @property
    def role(self) -> str:
        """The key of a method that names it: sam | dino."""
        return "sam" if self.kind == "sam" else "dino"

    @property
    def key(self) -> tuple[str | None, ...]:
        """The same for the same network, wherever it lies and whatever its label is."""
        named = None if self.weights_sha256 else f"{self.repo}:{self.name}"
        return self.kind, self.weights_sha256, self.config_sha256, named


class Backbones(Frozen):
    """The networks that a method needs beside CLIP."""

    sam: Backbone | None = None
    dino: Backbone | None = None


class Unsupervised(Frozen):
    """The regions of all images are clustered (k-means), and clusters matched to classes
    (Hungarian): no word decides a pixel.

    clusters: how many, or K, as many as classes. fit: the images that k-means sees; val: those that
    are scored.
    """

    clusters: Annotated[
        int | str,
        that(
            lambda value: value == "K" or (is_number(value, int) and value >= 1),
            "must be K (as many as there are classes) or a whole number, no less than that",
        ),
    ]
    fit: Annotated[str, one_of("val")] = "val"


def _dilations(value: Any) -> tuple[int, ...]:
    """In ascending order, whatever order they are written in: it is one run."""
    pixels = unquoted(value)
    fits = isinstance(pixels, list | tuple) and pixels and len(set(map(str, pixels))) == len(pixels)
    if not fits or not all(is_number(each, int) and 1 <= each <= 1000 for each in pixels):
        raise ValueError("must be a list of different whole numbers from 1 to 1000, as [8, 16]")
    return tuple(sorted(pixels))


class Pamr(Frozen):
    """How often logits of pixels are averaged over like neighbours, and how far away these are, in
    pixels of what CLIP sees (`segment.pamr`)."""

    steps: Annotated[int, whole(1, 100)]
    dilations: Annotated[tuple[int, ...], BeforeValidator(_dilations)]


USUAL_PAMR = {"steps": 10, "dilations": [8, 16]}  # NACLIP's and ResCLIP's


def _pamr(value: Any) -> Any:
    """What is not said is as usual; `true` says nothing."""
    if unquoted(value) is True:
        return USUAL_PAMR
    if not isinstance(value, dict | Pamr | None):
        raise ValueError(
            "must be true, null, or {steps: 10, dilations: [8, 16]} with other numbers"
        )
    return {**USUAL_PAMR, **value} if isinstance(value, dict) else value


class Method(Frozen):
    """sam, dino: networks beside CLIP, which a run's identity has as `backbones`. propagate: how
    the logits of patches change one another before they are upsampled; None: they do not. solver:
    of its equations, where it has some (`segment.diffusion.diffused`). pamr: None where logits of
    pixels stay as they are. path, digest: of label maps that other code predicted, None for a
    method that is computed (`config.predictions`)."""

    name: Text
    attention: Attention
    propagate: Annotated[str | None, one_of(None, *PROPAGATE)] = None
    solver: Annotated[str, one_of("cg10", "exact")] = "cg10"
    regions: Regions | None
    cls_logits: Annotated[bool, one_of("auto", True, False)]  # auto is filled in before
    sam: Backbone | None = Field(None, exclude=True)
    dino: Backbone | None = Field(None, exclude=True)
    unsupervised: Annotated[
        Unsupervised | None,
        that(
            lambda value: value is not None,
            "without it words decide; take method=cliptrase, or another method",
        ),
    ] = None
    pamr: Annotated[Pamr | None, BeforeValidator(_pamr)] = None
    path: OptionalText = Field(None, exclude=True)
    digest: OptionalText = None

    @property
    def sees_original(self) -> bool:
        """Whether a network looks at the picture as it was before it was resized for CLIP."""
        sam = None if self.regions is None else self.regions.sam
        return self._votes and sam is not None and sam.sees == "original"

    @property
    def networks(self) -> list[Backbone]:
        """The networks that it needs beside CLIP: those of its attention and its propagation, and
        where regions vote all that it names."""
        read = {*ATTENTION[self.attention.kind].networks}
        if self.propagate is not None:
            read |= {*PROPAGATE[self.propagate].networks}
        if self._votes:
            read |= {"sam", "dino"}
        named = {"sam": self.sam, "dino": self.dino}
        return [each for role, each in named.items() if each is not None and role in read]

    @property
    def _votes(self) -> bool:
        return self.regions is not None and self.regions.vote != "none"

    @model_validator(mode="after")
    def _has_networks(self) -> Self:
        """Refuse attention, a propagation and regions of a network that is not named."""
        attention = f"method.attention.kind={self.attention.kind}"
        needs = [(key, attention) for key in ATTENTION[self.attention.kind].networks]
        if self.propagate is not None:
            where = f"method.propagate={self.propagate}"
            needs += [(key, where) for key in PROPAGATE[self.propagate].networks]
        if self.regions is not None and self.regions.kind in ("sam", "sam_grid"):
            needs.append(("sam", f"method.regions.kind={self.regions.kind}"))
        if self.regions is not None and self.regions.source == "dino":
            needs.append(("dino", "method.regions.correlation.source=dino"))
        for key, needed in needs:
            if getattr(self, key) is None:
                raise UserError(
                    f"{needed}: needs method.{key}=, a label of conf/backbone, auto or "
                    "local-dir:DIR"
                )
        return self

    @model_validator(mode="after")
    def _propagates(self) -> Self:
        """Refuse a propagation beside what it is not defined with."""
        where, usual = f"method.propagate={text_of(self.propagate)}", defaults(Method)["solver"]
        kind = None if self.propagate is None else PROPAGATE[self.propagate]
        if self.solver != usual and (kind is None or not kind.solves):
            raise UserError(
                f"method.solver={self.solver}: {where} solves no equations; take {usual}"
            )
        if kind is None:
            return self
        if self.unsupervised is not None:
            raise UserError(
                f"{where}: with method.unsupervised no word decides a pixel, and no logit; take "
                "null"
            )
        if kind.attention not in ("", self.attention.kind):
            raise UserError(
                f"{where}: goes with method.attention.kind={kind.attention}, and it is "
                f"{self.attention.kind}; take null, or method={self.propagate}"
            )
        return self

    @model_validator(mode="after")
    def _no_word_votes(self) -> Self:
        """Refuse what an unsupervised method would not read."""
        if self.unsupervised is None:
            return self
        why = "with method.unsupervised no word decides a pixel"
        if self.regions is None:
            raise UserError("method.regions=null: method.unsupervised clusters regions; give them")
        if self.sam is not None or self.dino is not None:
            raise UserError("method.unsupervised: clusters regions of CLIP, not of other networks")
        if self.regions.vote != "none":
            raise UserError(f"method.regions.vote={self.regions.vote}: {why}; take none")
        if self.cls_logits:
            raise UserError(f"method.cls_logits=true: {why}; take false")
        if self.pamr is not None:
            raise UserError(f"method.pamr: {why}, and so no logits are refined; take null")
        return self
