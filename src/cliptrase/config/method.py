"""A method: types, choices, ranges and defaults of its keys, as `schema` says them of a run."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from cliptrase.config.kinds import ATTENTION, PROPAGATE
from cliptrase.config.method_attention import Attention
from cliptrase.config.method_regions import Regions
from cliptrase.config.validation import (
    Count,
    Flag,
    Frozen,
    OptionalText,
    Text,
    defaults,
    is_number,
    one_of,
    that,
    whole,
)
from cliptrase.config.written import text_of, unquoted
from cliptrase.errors import UserError


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
