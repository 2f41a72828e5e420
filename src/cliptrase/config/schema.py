"""The schema of a run: types, choices, ranges and defaults, each said once.

A field with a default may be left out of a YAML, and is left out of a run's identity where it is at
its default: runs keep their names when the schema learns an option. A field with `exclude=True`
cannot change a number and is no part of the identity.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cliptrase.config.method import BackboneNames, Method
from cliptrase.config.method_attention import Attention
from cliptrase.config.method_regions import Correlation, CutOptions, Regions, SamOptions
from cliptrase.config.metric_names import RULES
from cliptrase.config.validation import (
    Count,
    Flag,
    Frozen,
    OptionalPath,
    OptionalText,
    PathText,
    Scale,
    Text,
    defaults,
    is_number,
    one_of,
    that,
)
from cliptrase.config.written import text_of
from cliptrase.errors import UserError

Rule = Annotated[str, one_of(*RULES)]
Precision = Annotated[str, one_of("fp32", "bf16", "fp16")]

# --- protocol ---------------------------------------------------------------------------------


class Crop(Frozen):
    """The paper's: a centre crop is shown, and scored."""

    name: Literal["crop"]
    logit_scale: Scale
    rule: Rule


class Slide(Frozen):
    """SCLIP's and most peers': windows slide over the whole picture, scored at its own size."""

    name: Literal["slide"]
    short_side: Count
    stride: Count
    logit_scale: Scale
    background_threshold: Annotated[
        float,
        that(
            lambda value: is_number(value) and 0 <= value < 1,
            "must be a probability, 0 (none) or more and below 1",
        ),
    ]
    vocabularies: Annotated[  # which lists it chose is in the run's vocabulary
        str | None,
        that(
            lambda value: value in ("sclip", None),
            "must be sclip, or null for the benchmarks' own lists; vocabulary=… chooses any other",
        ),
    ] = Field(exclude=True)
    rule: Rule


Protocol = Crop | Slide
PROTOCOLS: dict[str, type[Crop] | type[Slide]] = {"crop": Crop, "slide": Slide}


# --- model ------------------------------------------------------------------------------------


class WrittenModel(Frozen):
    """A model as its YAML says it."""

    label: Text
    kind: Annotated[str, one_of("local", "open_clip", "openai_file")]
    name: OptionalText = None
    pretrained: OptionalPath = None
    path: OptionalPath = None
    precision: Precision = "fp32"
    substitutes: BackboneNames = BackboneNames()

    @model_validator(mode="after")
    def _named(self) -> Self:
        for key in ("name", "pretrained"):
            if self.kind == "open_clip" and getattr(self, key) is None:
                raise UserError(f"model.{key}=null: must be a name or a path")
        if self.kind == "openai_file" and self.path is None:
            raise UserError("model.path=null: must be the path of OpenAI's file")
        return self


class Model(Frozen):
    """A model and its weights: `weights_sha256` and `config_sha256` wherever the files are at hand.

    path: where the weights lie, None where open_clip knows. patch: in pixels. depth: blocks.
    substitutes: the networks that `auto` means beside it.
    """

    label: str
    kind: str  # local | open_clip | openai_file
    name: str | None
    pretrained: str | None
    path: str | None = Field(exclude=True)
    patch: int
    depth: int = Field(exclude=True)
    weights_sha256: str | None
    config_sha256: str | None
    precision: Precision = "fp32"
    substitutes: BackboneNames = Field(BackboneNames(), exclude=True)

    @property
    def changed(self) -> dict[str, str]:
        """The optional keys that are not at their default, as `precision`: `bf16`."""
        return self.model_dump(include=set(defaults(Model)), exclude_defaults=True)


# --- benchmark and vocabulary -----------------------------------------------------------------


def _is_raw(value: Any) -> bool:
    return is_number(value, int) and 0 <= value <= 65535


def _is_background(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and all(map(_is_raw, value))
    return listed or value in (None, "ignored")


class Labels(Frozen):
    """How raw labels are scored: a table, the ignored value, what the background is."""

    map: OptionalPath
    ignore: Annotated[int, that(lambda value: value in (255, 65535), "must be 255 or 65535")]
    background: Annotated[
        tuple[int, ...] | str | None,
        that(
            _is_background,
            "must be null, ignored (every ignored pixel is background) or a list of raw labels, "
            "as [0]",
        ),
    ]
    scored: Count | None = None
    skip: Annotated[
        int | str | None,
        that(
            lambda value: value in (None, "none") or _is_raw(value),
            "must be a label value, or none",
        ),
    ] = None
    reduce_zero_label: Flag = False  # raw 0 is ignored, raw 1 is class 0
    ignored: int | None = None  # the raw value that is ignored, where it is not `ignore`

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        if self.map is not None and (self.reduce_zero_label or self.ignored is not None):
            raise UserError("benchmark.labels: reduce_zero_label and ignored need map: null")
        return self


class Folder(Frozen):
    """A user's pictures and masks: their content, where they lie, and how they are read.

    image, mask: patterns of their names. colours_path: the table of coloured masks.
    """

    images_path: str = Field(exclude=True)
    labels_path: str = Field(exclude=True)
    image: str | None = Field(None, exclude=True)
    mask: str | None = Field(None, exclude=True)
    colours_path: str | None = Field(None, exclude=True)
    digest: str
    orientation: str = "exif"
    colours: str | None = None  # sha256 of the table

    @property
    def names(self) -> tuple[str, str, str | None, str | None]:
        """Both folders and both patterns, as `data.read.folder` takes them."""
        return self.images_path, self.labels_path, self.image, self.mask


class FolderFiles(Frozen):
    """What a benchmark over a folder says in the place of `labels`."""

    images: PathText
    labels: PathText
    map: OptionalPath = None
    image: OptionalText = None
    mask: OptionalText = None
    colours: OptionalPath = None
    orientation: Annotated[str, one_of("exif", "stored")] = "exif"
    reduce_zero_label: Flag = False
    ignore: Annotated[
        int | None,
        that(
            lambda value: value is None or _is_raw(value),
            "must be a label value, 0 to 65535, or null",
        ),
    ] = None

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        """Refuse what another key says already."""
        keys = ("map", "colours", "ignore", "reduce_zero_label")
        given = [key for key in keys if getattr(self, key) != defaults(FolderFiles)[key]]
        if len(given) > 1 and given[0] in ("map", "colours"):
            raise UserError(
                f"benchmark.{given[1]}={text_of(getattr(self, given[1]))}: benchmark.{given[0]} "
                "says already what every value of a mask means; leave one of them out"
            )
        return self


class Benchmark(Frozen):
    """What is scored: the images of a dataset (or a part of it), and what their labels mean.

    classes, background, templates: lists, where the run names no others; model: what `model=auto`
    means; short_side: what `protocol.short_side=auto` does. A run says itself what they came to.
    """

    name: Text
    dataset: Text
    cls_logits: Annotated[bool, that(lambda value: isinstance(value, bool), "true or false")]
    labels: Labels
    subset: OptionalText = None
    folder: Folder | None = None
    classes: PathText = Field(exclude=True)
    background: OptionalPath = Field(exclude=True)
    templates: PathText = Field(exclude=True)
    model: Text = Field("auto", exclude=True)
    short_side: Count | None = Field(None, exclude=True)

    @model_validator(mode="after")
    def _has_a_table(self) -> Self:
        if self.labels.map is None and self.dataset != "folder":
            raise UserError("benchmark.labels.map=null: must be a name or a path")
        return self


class WordList(Frozen):
    """A text file of names or templates. count: its lines, that is classes, however many names a
    line holds."""

    name: str
    path: str = Field(exclude=True)
    count: int
    sha256: str


class Distractors(Frozen):
    """Names beside those of the benchmark (`config.distractors`): a pixel that gets one is lost.

    seed: of the draw. sha256: of the names.
    """

    count: int
    seed: int
    sha256: str
    names: tuple[str, ...] = Field(exclude=True)


class Vocabulary(Frozen):
    """background: None where the benchmark scores no background."""

    classes: WordList
    background: WordList | None
    templates: WordList
    distractors: Distractors | None = None

    @property
    def lists(self) -> dict[str, WordList | None]:
        """Its files by key."""
        return {key: getattr(self, key) for key in ("classes", "background", "templates")}


# The sections of a run whose YAML may leave keys out
OPTIONAL: dict[str, type[Frozen]] = {
    "method": Method,
    "method.attention": Attention,
    "method.regions": Regions,
    "method.regions.sam": SamOptions,
    "method.regions.cut": CutOptions,
    "method.regions.correlation": Correlation,
    "model": Model,
}
