"""conf/suite/*.yaml and conf/table/*.yaml, read and checked: every key there, of the right kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cliptrase import config
from cliptrase.config.metric_names import METRICS
from cliptrase.errors import UserError, nearest

ROLES = ("main", "ablation", "grid", "slide")
ABOVE = "above"  # `versus: above`: each row is compared with the row above it


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _some(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value != [] and _list_of(fits)(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_choice(value: Any) -> bool:
    names = [*value, *value.values()] if isinstance(value, dict) else value
    return _some(_is_text)(names)


# key → what its value must be, and the test of it
TEXT = ("text", _is_text)
COUNT = ("a whole number above 0", _is_count)
FLAG = ("true or false", lambda value: isinstance(value, bool))
TEXTS = ("a list of texts", _list_of(_is_text))
OVERRIDES = ("a list of overrides, as in [method=clip]", _list_of(_is_text))
SUITE = {
    "title": TEXT,
    "model": TEXT,
    "protocol": TEXT,
    "published": FLAG,
    "roles": ("a mapping from roles to lists of benchmarks", _is_mapping),
    "tables": TEXTS,
    "overrides": OVERRIDES,
}
PART_SUITE = {"data": TEXT}  # the data folder, where it is not data/
TABLE = {
    "title": TEXT,
    "kind": TEXT,
    "role": TEXT,
    "metrics": ("a list of metrics", _some(_is_text)),
    "image_size": COUNT,
}
GROUP_LIST = ("a list of groups", _some(_is_mapping))
KINDS: dict[str, dict[str, Any]] = {
    "metrics": TABLE | {"groups": GROUP_LIST},
    "grid": TABLE
    | {
        "run": OVERRIDES,
        "eps": ("a list of numbers", _some(_is_number)),
        "min_samples": ("a list of whole numbers", _some(_is_count)),
    },
}
OPTIONAL: dict[str, dict[str, Any]] = {
    "metrics": {
        "average": FLAG,
        "quoted": ("a mapping from columns of published.csv to values", _is_mapping),
        "versus": ("`above` or the name of a row of every group", _is_text),
        "compare_to_best": FLAG,
        "figure": FLAG,
        "protocol": TEXT,
    },
    "grid": {"protocol": TEXT},
}
GROUP = {"name": TEXT, "rows": ("a list of rows", _some(_is_mapping))}
PART_GROUP = {"flops": FLAG, "cumulative": FLAG}
ROW = {"row": ("text (quote a number)", _is_text)}
RUN_ROW = ROW | {"run": OVERRIDES}
PART_ROW = {
    "image_size": COUNT,
    "only": ("a list of benchmarks, or a mapping from columns to benchmarks", _is_choice),
    "otherwise": ("the reason, as text, that other columns stay empty for", _is_text),
    "note": ("text, the footnote of the row", _is_text),
}

# What an override may not set: the plan sets it from the suite, the roles and the row.
OF_THE_PLAN = {
    "benchmark": "the suite's `roles` say which",
    "model": "a suite has one, its `model`",
    **dict.fromkeys(
        ("protocol", "protocol.name"), "a table has one, its own `protocol` or the suite's"
    ),
    "image_size": "write it as the row's or the table's `image_size`",
    **dict.fromkeys(
        ("device", "batch_size", "workers", "out", "data"),
        "no number hangs on it; give it to the command that runs the suite",
    ),
}
OF_THE_SUITE = {"limit": "write it in the suite's `overrides`"}
# What a row may set below a key of the plan
OF_A_ROW: dict[str, tuple[str, ...]] = {
    "benchmark": ("background",),
    "model": ("precision",),
    "protocol": ("rule", "logit_scale", "background_threshold", "short_side"),
}


def read_suite(name: str) -> dict[str, Any]:
    """conf/suite/<name>.yaml. Raises UserError naming the file and the key that is wrong."""
    where, spec = f"suite {name}", config.load("suite", name)
    _check(where, spec, SUITE, PART_SUITE)
    _check(f"{where}, roles", spec["roles"], {}, dict.fromkeys(ROLES, TEXTS))
    _refuse_overrides(where, "overrides", spec["overrides"], OF_THE_PLAN)
    for role, benchmarks in spec["roles"].items():
        _refuse_doubles(f"{where}, role {role}", benchmarks)
    _refuse_doubles(f"{where}, tables", spec["tables"])
    return spec


def read_table(name: str) -> dict[str, Any]:
    """conf/table/<name>.yaml. Raises UserError naming the file, the row and the key."""
    where, spec = f"table {name}", config.load("table", name)
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: kind={kind!r}; {nearest('', KINDS)}")
    _check(where, spec, KINDS[kind], OPTIONAL[kind])
    if spec["role"] not in ROLES:
        raise UserError(f"{where}: unknown role {spec['role']!r}; {nearest(spec['role'], ROLES)}")
    for metric in spec["metrics"]:
        if metric not in METRICS:
            raise UserError(f"{where}: unknown metric {metric!r}; {nearest(metric, METRICS)}")
    _refuse_doubles(f"{where}, metrics", spec["metrics"])
    if "protocol" in spec:
        _exists(where, "protocol", spec["protocol"])
    if kind == "grid":
        for axis in ("eps", "min_samples"):
            _refuse_doubles(f"{where}, {axis}", spec[axis])
        _refuse_overrides(where, "run", spec["run"], OF_THE_PLAN | OF_THE_SUITE, OF_A_ROW)
        return spec
    for group in spec["groups"]:
        _check(f"{where}, group {group.get('name', '')!r}", group, GROUP, PART_GROUP)
        for row in group["rows"]:
            _row(where, row)
        _refuse_doubles(f"{where}, group {group['name']!r}", (row["row"] for row in group["rows"]))
        _versus(f"{where}, group {group['name']!r}", group, spec.get("versus", ABOVE))
    _refuse_doubles(where, (group["name"] for group in spec["groups"]))
    return spec


def _row(table: str, row: dict[str, Any]) -> None:
    where = f"{table}, row {row.get('row', '')!r}"
    if "quoted" in row:
        _check(where, row, ROW | {"quoted": ("true", lambda value: value is True)})
        return
    _check(where, row, RUN_ROW, PART_ROW)
    _refuse_overrides(where, "run", row["run"], OF_THE_PLAN | OF_THE_SUITE, OF_A_ROW)
    if ("only" in row) != ("otherwise" in row):
        there, gone = ("only", "otherwise") if "only" in row else ("otherwise", "only")
        raise UserError(f"{where}: `{there}` needs `{gone}`; give {PART_ROW[gone][0]}")
    only = row.get("only", [])
    for benchmark in [*only, *only.values()] if isinstance(only, dict) else only:
        _exists(f"{where}, only", "benchmark", benchmark)
    if isinstance(only, list):
        _refuse_doubles(f"{where}, only", only)


def _versus(where: str, group: dict[str, Any], versus: str) -> None:
    """The row that all others of a group are compared with is there, and is run."""
    names = [row["row"] for row in group["rows"] if "run" in row]
    if versus != ABOVE and versus not in names:
        raise UserError(
            f"{where}: no row {versus!r} that is run, with which `versus` compares; "
            f"{nearest(versus, [ABOVE, *names])}"
        )


def _exists(where: str, group: str, name: str) -> None:
    """Refuse a name that conf/<group>/ has no file of."""
    try:
        config.load(group, name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check(
    where: str,
    found: dict[str, Any],
    needed: dict[str, Any],
    optional: dict[str, Any] | None = None,
) -> None:
    known = needed | (optional or {})
    for key in found:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")
    for key, (kind, fits) in known.items():
        if key not in found:
            if key in needed:
                raise UserError(f"{where}: `{key}` is missing; give {kind}")
        elif not fits(found[key]):
            raise UserError(f"{where}: {key}={found[key]!r}; give {kind}")


def _refuse_overrides(
    where: str,
    key: str,
    overrides: list[str],
    fixed: dict[str, str],
    allowed: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Refuse what the plan sets, and below `allowed`'s keys all that is not named there."""
    for override in overrides:
        name = override.partition("=")[0].strip()
        part, _, leaf = name.partition(".")
        if name in fixed:
            raise UserError(f"{where}: `{key}` must not set {name}=; {fixed[name]}")
        if allowed is not None and leaf and part in allowed and leaf not in allowed[part]:
            may = " ".join(f"{part}.{each}=" for each in allowed[part])
            raise UserError(
                f"{where}: `{key}` must not set {name}=; of the {part} it may set {may}"
            )


def _refuse_doubles(where: str, names: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: {name!r} is there twice; each must be another")
        seen.add(name)
