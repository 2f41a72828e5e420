"""What `--config` says, and the options of `cliptrase estimate`: all keys are checked here."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from cliptrase.config.settings import check_device
from cliptrase.config.validation import Frozen, Text, one_of, validated
from cliptrase.config.written import text_of
from cliptrase.data.fetch.sources import mirror_of
from cliptrase.errors import UserError
from cliptrase.plan import benchmark_names
from cliptrase.publish import MODES

MOST_SHARDS = 1000


def _flag(value: Any) -> bool:
    """Snakemake hands on true and false as they were typed, and only True and False as values."""
    word = text_of(value).lower()
    if word not in ("true", "false"):
        raise ValueError("must be true or false")
    return word == "true"


def _count_of(what: str) -> BeforeValidator:
    """Annotates an int or None: a number, also as text."""

    def check(value: Any) -> int | None:
        if value is not None and not (text_of(value).isascii() and text_of(value).isdigit()):
            raise ValueError(f"must be {what}")
        return None if value is None else int(value)

    return BeforeValidator(check)


def _shards(value: Any) -> int:
    """A whole number, also as text; every shard is a job that Snakemake plans at each start."""
    text = text_of(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_SHARDS):
        raise ValueError(f"must be into how many parts each pass is cut, 1 to {MOST_SHARDS}")
    return int(text)


def _hours(value: Any) -> float:
    """A number, also as text."""
    try:
        hours = float(text_of(value))
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise ValueError("must be how many hours a job may take, such as 2 or 0.5")
    return hours


class Settings(Frozen):
    """The settings of a start. benchmarks: None for all. mirror: a server that has every archive.
    gpus: how many the passes share, None for all. shards: that each pass is cut into; hours: that a
    job may take, by which passes are cut instead. save_maps: label maps that each run keeps, None
    for what the suite says. tracking: how W&B publishes. san: the experiment of Figure 8."""

    suite: Text = "shapes"
    benchmarks: Annotated[tuple[str, ...] | None, BeforeValidator(benchmark_names)] = None
    mirror: str | None = None
    freeze_code: Annotated[bool, BeforeValidator(_flag)] = False
    device: Annotated[str, BeforeValidator(check_device)] = "auto"
    gpus: Annotated[int | None, _count_of("how many GPUs the passes share, 0 for the CPU")] = None
    shards: Annotated[int | None, BeforeValidator(_shards)] = None
    hours: Annotated[float | None, BeforeValidator(_hours)] = None
    save_maps: Annotated[int | None, _count_of("how many label maps each run keeps")] = None
    tracking: Annotated[str, one_of(*MODES)] = "offline"
    san: Text = "shapes"

    @model_validator(mode="after")
    def _one_way_of_cutting(self) -> Self:
        if self.shards is not None and self.hours is not None:
            raise UserError(
                f"shards={self.shards} and hours={self.hours:g}: give one of them; by hours each "
                "pass is cut into as many shards as it needs"
            )
        return self


def read_settings(given: Mapping[str, Any]) -> Settings:
    """The settings that `--config` gives; one without a value (`mirror=`) is as if it were not
    there. The mirror may come from the environment.

    Raises UserError for an unknown key and for a value that is wrong.
    """
    fields = Settings.model_fields
    said = {key: value for key, value in given.items() if value is not None or key not in fields}
    mirror = mirror_of(said.pop("mirror", None))
    return validated(Settings, said | {"mirror": mirror})
