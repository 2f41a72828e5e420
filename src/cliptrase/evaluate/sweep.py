"""The points of a sweep: listed from its overrides, and made in as few passes as they need."""

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Hashable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypedDict, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException

from cliptrase import config
from cliptrase.config import Run
from cliptrase.config.compose import GROUPS, quoted
from cliptrase.config.written import unquoted
from cliptrase.data.read.prepared import open_prepared
from cliptrase.errors import PassError, UserError
from cliptrase.files import make_ready
from cliptrase.machine import check_gpu
from cliptrase.runs import finished, store

MOST = 10_000  # points of a sweep
TOO_MANY = f"a sweep of more than {MOST:,} points; split it into several"
Point = list[str]  # overrides
Outcome = Path | UserError  # of a point: its run folder, or why it has none


def listed(overrides: Sequence[str], multirun: bool) -> list[Point]:
    """The points of a sweep in Hydra's order; without `multirun` the overrides are the only one.

    Raises UserError for an override that Hydra's grammar does not have, a sweep without a list of
    values, several values without `multirun`, more than MOST points, and a name or key that does
    not exist in any of the points.
    """
    values = dict(map(_values, overrides))  # the last one wins
    if multirun:
        if math.prod(map(len, values.values())) > MOST:
            raise UserError(TOO_MANY)
        pairs = [[f"{key}={value}" for value in some] for key, some in values.items()]
        points = [list(point) for point in itertools.product(*pairs)]
    else:
        points = [[as_hydra_reads(override, multirun=False) for override in overrides]]
    for point in points:
        config.compose(point)
    return points


def as_hydra_reads(override: str, multirun: bool) -> str:
    """An override with quotes around what Hydra would read in another way than it is written, and
    the values of a sweep in a list. Raises UserError as `listed`."""
    key, values = _values(override)
    if not multirun and _parse(override).is_sweep_override():
        raise UserError(f"{override}: several values; add -m for a sweep")
    return f"{key}={','.join(values)}"


def make(points: Sequence[Point]) -> Iterator[tuple[Outcome, bool]]:
    """The run folder of each point in order, or why it has none; and whether it was there already.

    Every point is resolved before the first image. Those that can share a pass are made together;
    finished runs are left as they are.
    """
    runs = wanted(points)
    passes: dict[Hashable, dict[str, Run]] = {}
    for run in runs:
        if isinstance(run, Run):
            passes.setdefault(_pass_key(run), {})[run.name] = run
    made: dict[str, Outcome] = {}
    for run in runs:
        if not isinstance(run, Run):
            yield run, isinstance(run, Path)
            continue
        if run.name not in made:
            made |= _make_together(passes[_pass_key(run)])
        yield made[run.name], False


def together(runs: Sequence[Run | Outcome], points: Sequence[Point]) -> list[list[Point]]:
    """The points that have a run to be made, those of a pass together. runs: of `wanted`."""
    passes: dict[Hashable, list[Point]] = {}
    for run, point in zip(runs, points, strict=True):
        if isinstance(run, Run):
            passes.setdefault(_pass_key(run), []).append(point)
    return list(passes.values())


def wanted(points: Sequence[Point], *, here: bool = True) -> list[Run | Outcome]:
    """The run of each point, or its folder if it is finished, or what is wrong with it: all that
    can be seen before torch is loaded, which takes seconds. here: it is made on this machine, which
    must have its GPU."""
    clear, ready = functools.cache(store.clear_folders), functools.cache(make_ready)
    look_at = functools.cache(open_prepared)

    def run_of(point: Point) -> Run | Outcome:
        try:
            run = config.resolve(point)
            clear(Path(run.out))
            lacking = store.rescore({run.name: run}, Path(run.out), run.data, cleared=True)
            lacking |= finished.without_maps({run.name: run}, run.out, run.data)
            if lacking:
                if here:
                    check_gpu(run.device)
                ready(Path(run.out))
                if run.benchmark.folder is None:  # a folder was looked at when it was resolved
                    look_at(run.benchmark.dataset, run.data)
        except UserError as error:
            return error
        return run if lacking else Path(run.out) / run.name

    return list(map(run_of, points))


def _pass_key(run: Run) -> Hashable:
    """The same for runs that can be made in one pass."""
    from cliptrase.evaluate.passes import shared  # torch: not where all runs are finished

    return shared(run), *_options(run).values()


class _Options(TypedDict):
    """What `run_pass` and `save_maps` are told beside the runs."""

    out: str
    data: str
    device: str
    batch_size: int
    workers: int | None


def _options(run: Run) -> _Options:
    return _Options(
        out=run.out,
        data=run.data,
        device=run.device,
        batch_size=run.batch_size,
        workers=run.workers,
    )


def _make_together(runs: dict[str, Run]) -> dict[str, Outcome]:
    """The folders of runs made in one pass; where it cannot start, each alone shows which one is
    wrong. An error that the runs share is given to all whose folders were not written before."""
    import cliptrase.model.lean  # noqa: F401
    from cliptrase.evaluate.passes import run_pass
    from cliptrase.evaluate.saved_maps import save_maps

    name, run = next(iter(runs.items()))
    try:
        partial = Path(run.out) / f".{name}.partial.npz"
        folders = run_pass(runs, partial=partial, **_options(run))
        save_maps(runs, **_options(run))
        return {**folders}
    except UserError as error:
        if len(runs) == 1 or isinstance(error, PassError):
            return {
                name: Path(run.out) / name if _is_written(run) else error
                for name, run in runs.items()
            }
    alone = [_make_together({name: run}) for name, run in runs.items()]
    return {name: outcome for made in alone for name, outcome in made.items()}


def _is_written(run: Run) -> bool:
    """Whether its folder is there, whole."""
    with contextlib.suppress(UserError):
        return finished.status(run, run.out, run.data).state == "finished"
    return False


def _parse(override: str) -> Override:
    """An override by Hydra's grammar, with quotes around what that has no signs for (~, é, #)."""
    key, equals, text = override.partition("=")
    lines = [quoted(override)]
    if equals and not re.search(r"""[()\[\]{}'"\\]""", text):
        lines.append(f"{key}=" + ",".join(f"'{each.strip()}'" for each in text.split(",")))
    for line in lines:
        with contextlib.suppress(HydraException):
            parsed = OverridesParser.create().parse_override(line)
            if parsed.type is OverrideType.CHANGE:
                return parsed
    raise UserError(
        f"override {override!r}: write key=value; a value with signs needs quotes "
        "within quotes, as \"benchmark.images='my photos'\"; a sweep is 0.5,0.7 or range(0.5,1,0.2)"
    )


def _values(override: str) -> tuple[str, list[str]]:
    """The key of an override and its values as text, those of glob(…) names of files in conf/.

    Raises UserError where there is none.
    """
    parsed = _parse(override)
    key, value = parsed.get_key_element(), cast(object, parsed.value())
    if isinstance(value, IntervalSweep):
        raise UserError(
            f"{override}: an interval has no list of values to sweep; write them, as 0.5,0.7,0.9 "
            "or range(0.5,1,0.2)"
        )
    if isinstance(value, Glob) and key not in GROUPS:
        raise UserError(f"{override}: glob(…) is for {', '.join(GROUPS)}; write the values")
    if isinstance(value, RangeSweep):
        ends = {end: getattr(value, end) for end in ("start", "stop", "step")}
        if any(isinstance(number, float) for number in ends.values()):  # 0.5 + 0.2 is 0.7
            vars(value).update({end: Decimal(f"{number:.12g}") for end, number in ends.items()})
    try:
        if isinstance(value, Glob):
            values = value.filter(config.names(key))
        elif parsed.is_sweep_override():
            values = list(itertools.islice(parsed.sweep_string_iterator(), MOST + 1))
        else:
            as_yaml = isinstance(value, dict)
            values = [parsed.get_value_element_as_str(space_after_sep=as_yaml)]
    except (ArithmeticError, HydraException, TypeError, ValueError):
        values = []
    if not values:
        raise UserError(f"{override}: no value to sweep; write them, as 0.5,0.7,0.9")
    if len(values) > MOST:
        raise UserError(f"{override}: {TOO_MANY}")
    return key, _as_written(values, parsed)


def _as_written(values: list[str], override: Override) -> list[str]:
    """Numbers and flags as they were written (007, 1e3, 2024_05_01), in quotes where Hydra would
    write them in another way: a key that is a text keeps the text."""
    words = re.findall(r"[^\s,()=]+", override.get_value_string())
    found = []
    for value in values:
        plain = unquoted(value)
        same = [word for word in words if repr(unquoted(word)) == repr(plain)]
        if value in words or isinstance(plain, str) or not same:
            found.append(value)
        else:
            words.remove(same[0])
            found.append(f"'{same[0]}'")
    return found
