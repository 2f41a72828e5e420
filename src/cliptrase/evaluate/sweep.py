"""The points of a sweep: listed from its overrides, and made in as few passes as they need."""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from cliptrase import config
from cliptrase.config import Run
from cliptrase.data.read.prepared import open_prepared
from cliptrase.errors import PassError, UserError
from cliptrase.runs import store

Point = list[str]  # overrides


def listed(overrides: Sequence[str], multirun: bool) -> list[Point]:
    """The points of a sweep in Hydra's order; without `multirun` the overrides are the only one.

    Raises UserError for an override that Hydra's grammar does not have, several values without
    `multirun`, and a name or key that does not exist in any of the points.
    """
    parsed = [_parse(override) for override in overrides]
    if multirun:
        values = {one.get_key_element(): _values(one) for one in parsed}  # the last one wins
        pairs = [[f"{key}={value}" for value in some] for key, some in values.items()]
        points = [list(point) for point in itertools.product(*pairs)]
    elif swept := [one for one in parsed if one.is_sweep_override()]:
        raise UserError(f"{swept[0].input_line}: several values; add -m for a sweep")
    else:
        points = [list(overrides)]
    for point in points:
        config.compose(point)
    return points


def make(points: Sequence[Point]) -> Iterator[Path | UserError]:
    """The run folder of each point in order, or why it has none.

    Every point is resolved before the first image. Those that can share a pass are made together;
    finished runs are left as they are.
    """
    wanted = [_wanted(point) for point in points]
    passes: dict[Hashable, dict[str, Run]] = {}
    for run in wanted:
        if isinstance(run, Run):
            passes.setdefault(_pass_key(run), {})[run.name] = run
    made: dict[str, Path | UserError] = {}
    for run in wanted:
        if not isinstance(run, Run):
            yield run
            continue
        if run.name not in made:
            made |= _make_together(passes[_pass_key(run)])
        yield made[run.name]


def _wanted(point: Point) -> Run | Path | UserError:
    """The run of a point, or its folder if it is finished, or what is wrong with it: all that can
    be seen before torch is loaded, which takes seconds."""
    try:
        run = config.resolve(point)
        lacking = store.rescore({run.name: run}, Path(run.out), run.data)
        if lacking:
            store.make_ready(Path(run.out))
            if run.benchmark.folder is None:  # a folder was looked at when it was resolved
                open_prepared(run.benchmark.dataset, run.data)
    except UserError as error:
        return error
    return run if lacking else Path(run.out) / run.name


def _pass_key(run: Run) -> Hashable:
    """The same for runs that can be made in one pass."""
    from cliptrase.evaluate.passes import shared  # torch: not where all runs are finished

    return shared(run), *_options(run).values()


def _options(run: Run) -> dict[str, Any]:
    """What `run_pass` is told beside the runs."""
    return {key: getattr(run, key) for key in ("out", "data", "device", "batch_size", "workers")}


def _make_together(runs: dict[str, Run]) -> dict[str, Path | UserError]:
    """The folders of runs made in one pass; where it cannot start, each alone shows which one is
    wrong. An error that the runs share is given to all."""
    from cliptrase.evaluate.passes import run_pass

    name, run = next(iter(runs.items()))
    try:
        partial = Path(run.out) / f".{name}.partial.npz"
        return {**run_pass(runs, partial=partial, **_options(run))}
    except UserError as error:
        if len(runs) == 1 or isinstance(error, PassError):
            return dict.fromkeys(runs, error)
    alone = [_make_together({name: run}) for name, run in runs.items()]
    return {name: outcome for made in alone for name, outcome in made.items()}


def _parse(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        raise UserError(
            f"override {override!r}: write key=value; a value with signs needs quotes "
            "within quotes, as \"benchmark.images='my photos'\""
        ) from None


def _values(override: Override) -> list[str]:
    """The values of an override as text; those of glob(…) are names of files in conf/."""
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        chosen: Any = override.value()
        return list(chosen.filter(config.names(override.get_key_element())))
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    if override.is_sweep_override():
        raise UserError(f"{override.input_line}: an interval has no list of values to sweep")
    return [override.get_value_element_as_str()]
