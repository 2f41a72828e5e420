"""What a method may choose from, the function of each choice, and what a protocol is. Torch-free.

A new kind of attention is a line here, its function and a YAML (docs/add_method.md); so is a
variant of clustering, denoising or vote (docs/add_variant.md). Functions are written `module:name`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliptrase.config.method import Method
    from cliptrase.config.run import Run
    from cliptrase.config.settings import Settings


@dataclass(frozen=True)
class AttentionKind:
    """function: it takes the unmodified model on a batch of images (`Original`), the
    blocks to replace (0-based, in a row) and `method.attention`, and returns the tokens (B, L, D)
    that go to the joint space. reads: which of the keys that not every kind has (`terms omega
    row_sum heads softmax within`, and numbers of one method) it reads; another one that is set is
    refused, so that nobody believes that it counted.

    shares_heads: one matrix serves all heads; regions may be made of it. two_paths: blocks add up
    on a path of their own, beside the unmodified one: always with a residual, never with an FFN.
    last_alone: it replaces the last block, and drops its residual and its FFN. networks: those
    beside CLIP that it reads (dino | sam), each a key of the method; the function takes them after
    `method.attention`. grid: whose patches its features lie on (clip | dino | sam); on a grid of
    their own where it is not CLIP's, which the function returns with the tokens (`vision.Mixed`).
    whole: under protocol slide it takes all windows of a picture at once, and returns one image.
    """

    function: str
    reads: tuple[str, ...] = ()
    shares_heads: bool = False
    two_paths: bool = False
    last_alone: bool = False
    networks: tuple[str, ...] = ()
    grid: str = "clip"
    whole: bool = False


IN_PLACE = "cliptrase.model.attention:in_place"
MATRIX_KEYS = ("terms", "row_sum", "heads", "softmax", "within")
ATTENTION = {
    "softmax": AttentionKind(IN_PLACE, ("terms", "omega", "row_sum", "within")),
    "cosine": AttentionKind(IN_PLACE, MATRIX_KEYS, shares_heads=True),
    "inner_product": AttentionKind(IN_PLACE, MATRIX_KEYS, shares_heads=True),
    "identity": AttentionKind(IN_PLACE, ("row_sum",)),
    "clip_surgery": AttentionKind(
        "cliptrase.model.attention:clip_surgery", ("terms",), two_paths=True
    ),
    "file": AttentionKind(
        "cliptrase.model.outside:outside", ("terms", "omega", "row_sum", "heads", "softmax")
    ),
    "gem": AttentionKind("cliptrase.model.attention:gem", ("terms",), two_paths=True),
    "resclip": AttentionKind(
        "cliptrase.model.attention:resclip", ("terms", "omega", "early_share"), last_alone=True
    ),
    "sc_clip": AttentionKind(
        "cliptrase.model.purified:sc_clip",
        ("outlier_quantile", "similarity_threshold", "cls_share"),
        last_alone=True,
    ),
    "sfp": AttentionKind(
        "cliptrase.model.purified:sfp",
        ("most_outliers", "similarity_threshold", "cls_share"),
        last_alone=True,
    ),
    "cliper": AttentionKind("cliptrase.model.fused:cliper", last_alone=True),
    "proxyclip": AttentionKind(
        "cliptrase.model.proxy:proxyclip", last_alone=True, networks=("dino",), grid="dino"
    ),
    "corrclip": AttentionKind(
        "cliptrase.segment.scopes:corrclip", last_alone=True, networks=("dino", "sam"), grid="dino"
    ),
    "trident": AttentionKind(
        "cliptrase.model.proxy:trident",
        last_alone=True,
        networks=("dino", "sam"),
        grid="sam",
        whole=True,
    ),
}


@dataclass(frozen=True)
class DenoiseKind:
    """rows: what makes correlation rows M (B, N, N) of W (B, 1 + N, 1 + N), [CLS] first. kept:
    which patches (B, N) bool of M take part in clusters; "" for all."""

    rows: str = "cliptrase.segment.correlation:patch_part"
    kept: str = ""


@dataclass(frozen=True)
class VoteKind:
    """function: gives each region of (B, H, W) a class; "" for a method that does not vote.
    averages: it compares mean logits of regions, as protocol slide can, which averages windows."""

    function: str
    averages: bool = False


# Variants of CLIPtrase's own steps: docs/add_variant.md says what each function takes and returns.
CLUSTERING = {
    "dbscan": "cliptrase.segment.clustering:dbscan_clusters",
}
DENOISE = {
    "none": DenoiseKind(),
    "cls": DenoiseKind(rows="cliptrase.segment.correlation:less_cls"),
    "eq7": DenoiseKind(kept="cliptrase.segment.correlation:eq7_kept"),
}
VOTE = {
    "hard": VoteKind("cliptrase.segment.vote:hard"),
    "soft": VoteKind("cliptrase.segment.vote:soft", averages=True),
    "none": VoteKind(""),
}


@dataclass(frozen=True)
class PropagateKind:
    """function: it takes the graph of a batch of images and the method, and returns what has to be
    kept of the images until the words are known (`evaluate.propagation.Propagation`), which then
    makes their logits (B, M, h, w).

    attention: the only kind of attention it is defined with; "" for any. networks: those beside
    CLIP that it reads, keys of the method. solves: it reads `method.solver`.
    joined: the function that joins what is kept of the windows of a picture, where it is of the
    whole picture; "" where each window is by itself.
    """

    function: str
    attention: str = ""
    networks: tuple[str, ...] = ()
    solves: bool = False
    joined: str = ""


# How the logits of patches change one another before they are upsampled.
PROPAGATE = {
    "cliper": PropagateKind("cliptrase.evaluate.propagation:cliper", attention="cliper"),
    "lposs": PropagateKind(
        "cliptrase.evaluate.propagation:lposs",
        networks=("dino",),
        solves=True,
        joined="cliptrase.evaluate.propagation:joined",
    ),
}


@dataclass(frozen=True)
class ProtocolFacts:
    """What a protocol decides beside its settings.

    whole_pictures: labels are scored at their own size, no image is skipped, and the background is
    class 0 (else: a crop is scored, and the background comes after the classes). vote: what a
    method's `vote: auto` means. cls_logits: whether `cls_logits: auto` may mean true.
    """

    whole_pictures: bool
    vote: str
    cls_logits: bool


PROTOCOL = {
    "crop": ProtocolFacts(whole_pictures=False, vote="hard", cls_logits=True),
    "slide": ProtocolFacts(whole_pictures=True, vote="none", cls_logits=False),
}


TERMS = ("qk", "qq", "kk", "vv")  # in the order in which they are added up


def facts_of(run: "Settings") -> ProtocolFacts:
    """What the protocol of a run decides."""
    return PROTOCOL[run.protocol.name]


def vote_of(method: "Method") -> str:
    """The vote of a method's regions; none where it has no regions."""
    return "none" if method.regions is None else method.regions.vote


def joined_by(method: "Method") -> str:
    """The function that joins what a method keeps of a picture's windows, "" where each window is
    by itself."""
    return "" if method.propagate is None else PROPAGATE[method.propagate].joined


def has_background(run: "Run") -> bool:
    """Whether one of the scored classes is the background."""
    return run.vocabulary.background is not None


def function(reference: str) -> Callable[..., Any]:
    """The function that `module:name` names, imported when it is asked for."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
