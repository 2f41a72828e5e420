"""conf/suite/*.yaml and conf/table/*.yaml, read and checked: every key there, of the right kind."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, PlainValidator, StrictBool

from cliptrase.config import files
from cliptrase.config.metric_names import METRICS
from cliptrase.config.validation import Frozen, Problem, number, validated, whole
from cliptrase.errors import UserError, nearest

ROLES = ("main", "ablation", "grid", "slide")
ABOVE = "above"  # `versus: above`: each row is compared with the row above it


def _mapping(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("no mapping")
    return value


def _mappings(value: Any) -> Any:
    """Rows or groups, each checked by itself, so that a message can name its place."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise ValueError("no list of mappings")
    return tuple(value)


def _columns(value: Any) -> dict[str, str]:
    """column → the benchmark that is scored there, of a list or a mapping of names."""
    names = [*value, *value.values()] if isinstance(value, dict) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError("no names")
    return value if isinstance(value, dict) else {name: name for name in names}


Name = Annotated[str, Field(min_length=1)]
Text = Annotated[str, Field(min_length=1, description="text")]
Flag = Annotated[StrictBool, Field(description="true or false")]
Count = Annotated[int, whole(1), Field(description="a whole number above 0")]
Names = Annotated[tuple[Name, ...], Field(description="a list of texts")]
Overrides = Annotated[
    tuple[Name, ...], Field(description="a list of overrides, as in [method=clip]")
]


class Roles(Frozen):
    """Which benchmarks play each role of a suite."""

    main: Names = ()
    ablation: Names = ()
    grid: Names = ()
    slide: Names = ()


class Suite(Frozen):
    """conf/suite/<name>.yaml. data: the folder of its archives and datasets."""

    title: Text
    model: Text
    protocol: Text
    published: Flag
    roles: Annotated[Roles, PlainValidator(_mapping)] = Field(
        description="a mapping from roles to lists of benchmarks"
    )
    tables: Names
    overrides: Overrides
    data: Text = "data"


class RowFile(Frozen):
    """One row of a table's YAML. only: column → the benchmark that is scored there."""

    row: str = Field(description="text (quote a number)")
    run: Overrides
    image_size: Count | None = Field(None, description="a whole number above 0")
    only: Annotated[dict[str, str] | None, BeforeValidator(_columns)] = Field(
        None, description="a list of benchmarks, or a mapping from columns to benchmarks"
    )
    otherwise: Name | None = Field(
        None, description="the reason, as text, that other columns stay empty for"
    )
    note: Name | None = Field(None, description="text, the footnote of the row")


class QuotedRow(Frozen):
    """A row of published.csv."""

    row: str = Field(description="text (quote a number)")
    quoted: Literal[True] = Field(description="true")


class Group(Frozen):
    """Rows that are compared with one another."""

    name: Text
    rows: Annotated[tuple[RowFile | QuotedRow, ...], PlainValidator(_mappings)] = Field(
        description="a list of rows"
    )
    flops: Flag = False
    cumulative: Flag = False


class _Table(Frozen):
    title: Text
    kind: str
    role: Text
    metrics: tuple[Name, ...] = Field(min_length=1, description="a list of metrics")
    image_size: Count
    protocol: Text | None = Field(None, description="text")


class MetricsTable(_Table):
    """A table of rows × benchmarks."""

    groups: Annotated[tuple[Group, ...], PlainValidator(_mappings)] = Field(
        description="a list of groups"
    )
    average: Flag = False
    quoted: dict[str, str] | None = Field(
        None, description="a mapping from columns of published.csv to values"
    )
    versus: Name = Field(ABOVE, description="`above` or the name of a row of every group")
    compare_to_best: Flag = False
    figure: Flag = False


class GridTable(_Table):
    """A table of eps × min_samples."""

    run: Overrides
    eps: tuple[Annotated[float, number(0)], ...] = Field(
        min_length=1, description="a list of numbers"
    )
    min_samples: tuple[Annotated[int, whole(1)], ...] = Field(
        min_length=1, description="a list of whole numbers"
    )


# What an override may not set: the plan sets it from the suite, the roles and the row.
OF_THE_PLAN = {
    "benchmark": "the suite's `roles` say which",
    "model": "a suite has one, its `model`",
    "protocol": "a table has one, its own `protocol` or the suite's",
    "protocol.name": "a table has one, its own `protocol` or the suite's",
    "image_size": "write it as the row's or the table's `image_size`",
    **dict.fromkeys(
        ("device", "batch_size", "workers", "out", "data"),
        "it does not affect results; give it to the command that runs the suite",
    ),
}
OF_THE_SUITE = {"limit": "write it in the suite's `overrides`"}
# What a row may set below a key of the plan
OF_A_ROW: dict[str, tuple[str, ...]] = {
    "benchmark": ("background",),
    "model": ("precision",),
    "protocol": ("rule", "logit_scale", "background_threshold", "short_side"),
}


def read_suite(name: str) -> Suite:
    """conf/suite/<name>.yaml. Raises UserError naming the file and the key that is wrong."""
    where = f"suite {name}"
    suite = _checked(Suite, files.load("suite", name), where)
    suite = suite.model_copy(update={"roles": _checked(Roles, suite.roles, f"{where}, roles")})
    _refuse_overrides(where, "overrides", suite.overrides, OF_THE_PLAN)
    for role, benchmarks in suite.roles:
        _refuse_doubles(f"{where}, role {role}", benchmarks)
    _refuse_doubles(f"{where}, tables", suite.tables)
    return suite


def read_table(name: str) -> MetricsTable | GridTable:
    """conf/table/<name>.yaml. Raises UserError naming the file, the row and the key."""
    where, content = f"table {name}", files.load("table", name)
    kind = content.get("kind")
    if kind not in ("metrics", "grid"):
        raise UserError(f"{where}: kind={kind!r}; {nearest('', ('metrics', 'grid'))}")
    model: type[MetricsTable | GridTable] = MetricsTable if kind == "metrics" else GridTable
    table = _checked(model, content, where)
    for key, names, known in ("role", (table.role,), ROLES), ("metric", table.metrics, METRICS):
        for name in names:
            if name not in known:
                raise UserError(f"{where}: unknown {key} {name!r}; {nearest(name, known)}")
    _refuse_doubles(f"{where}, metrics", table.metrics)
    if table.protocol is not None:
        _exists(where, "protocol", table.protocol)
    if isinstance(table, GridTable):
        for axis in ("eps", "min_samples"):
            _refuse_doubles(f"{where}, {axis}", getattr(table, axis))
        _refuse_overrides(where, "run", table.run, OF_THE_PLAN | OF_THE_SUITE, OF_A_ROW)
        return table
    groups = tuple(_group(where, content, table.versus) for content in table.groups)
    _refuse_doubles(where, (group.name for group in groups))
    return table.model_copy(update={"groups": groups})


def _group(table: str, content: Any, versus: str) -> Group:
    group = _checked(Group, content, f"{table}, group {content.get('name', '')!r}")
    where = f"{table}, group {group.name!r}"
    rows = tuple(_row(table, row) for row in group.rows)
    _refuse_doubles(where, (row.row for row in rows))
    names = [row.row for row in rows if isinstance(row, RowFile)]
    if versus != ABOVE and versus not in names:
        raise UserError(
            f"{where}: no row {versus!r} that is run, with which `versus` compares; "
            f"{nearest(versus, [ABOVE, *names])}"
        )
    return group.model_copy(update={"rows": rows})


def _row(table: str, content: Any) -> RowFile | QuotedRow:
    where = f"{table}, row {content.get('row', '')!r}"
    if "quoted" in content:
        return _checked(QuotedRow, content, where)
    row = _checked(RowFile, content, where)
    _refuse_overrides(where, "run", row.run, OF_THE_PLAN | OF_THE_SUITE, OF_A_ROW)
    if (row.only is None) != (row.otherwise is None):
        there, gone = ("only", "otherwise") if row.only is not None else ("otherwise", "only")
        wanted = RowFile.model_fields[gone].description
        raise UserError(f"{where}: `{there}` needs `{gone}`; give {wanted}")
    for benchmark in dict.fromkeys([*(row.only or {}), *(row.only or {}).values()]):
        _exists(f"{where}, only", "benchmark", benchmark)
    if isinstance(content.get("only"), list):
        _refuse_doubles(f"{where}, only", content["only"])
    return row


def _exists(where: str, group: str, name: str) -> None:
    """Refuse a name that conf/<group>/ has no file of."""
    try:
        files.load(group, str(name))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


M = TypeVar("M", bound=Frozen)


def _checked(model: type[M], content: Any, where: str) -> M:
    def sentence(problem: Problem) -> str:
        key = problem.path.split(".")[0]
        if problem.kind == "unknown":
            return f"{where}: unknown key {key!r}; {problem.fault}"
        if problem.kind == "missing":
            return f"{where}: `{key}` is missing; give {problem.wanted}"
        return f"{where}: {key}={content[key]!r}; give {problem.wanted}"

    return validated(model, content, sentence=sentence)


def _refuse_overrides(
    where: str,
    key: str,
    overrides: Iterable[str],
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
            reason = f"of the {part} it may set {may}"
            raise UserError(f"{where}: `{key}` must not set {name}=; {reason}")


def _refuse_doubles(where: str, names: Iterable[Any]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{where}: {name!r} is listed twice; names must be unique")
