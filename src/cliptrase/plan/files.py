"""conf/suite/*.yaml and conf/table/*.yaml, read and checked: every key there, of the right kind."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag

from cliptrase.config import files, validation
from cliptrase.config.error_names import OF_LEDGER
from cliptrase.config.metric_names import LOST, METRICS
from cliptrase.config.validation import Frozen, PathText, Problem, number, one_of, validated, whole
from cliptrase.errors import UserError, nearest

ABOVE = "above"  # `versus: above`: each row is compared with the row above it
SUMMARIES = ("mean", "worst", "range")  # rows that `summary: true` adds to a group


Name = validation.Text
Text = Annotated[validation.Text, Field(description="text")]
Flag = Annotated[bool, one_of(True, False), Field(description="true or false")]
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
    unsupervised: Names = ()
    words: Names = ()


class Suite(Frozen):
    """conf/suite/<name>.yaml. data: the folder of its archives and datasets. pictures: the table
    whose runs and benchmarks the page shows pictures of, if it is one of `tables`."""

    title: Text
    model: Text
    protocol: Text
    published: Flag
    roles: Roles = Field(description="a mapping from roles to lists of benchmarks")
    tables: Names
    overrides: Overrides
    data: PathText = Field("data", description="a folder")
    pictures: Name | None = Field(None, description="a table")


class RowFile(Frozen):
    """One row of a table's YAML. only: the columns that it stands in, or column → the benchmark
    that is scored there. per_benchmark: column → overrides of that column alone, after `run`."""

    row: Text
    run: Overrides
    image_size: Count | None = Field(None, description="a whole number above 0")
    only: Annotated[tuple[Name, ...] | dict[Name, Name], Field(min_length=1)] | None = Field(
        None, description="a list of benchmarks, or a mapping from columns to benchmarks"
    )
    otherwise: Name | None = Field(
        None, description="the reason, as text, that other columns stay empty for"
    )
    per_benchmark: dict[Name, Overrides] = Field(
        {}, description="a mapping from columns to lists of overrides"
    )
    note: Name | None = Field(None, description="text, the footnote of the row")


class QuotedRow(Frozen):
    """A row of published.csv."""

    row: Text
    quoted: Annotated[Literal[True], one_of(True)] = Field(description="true")


def _row_kind(row: Any) -> str:
    return "quoted" if isinstance(row, dict) and "quoted" in row else "run"


AnyRow = Annotated[
    Annotated[RowFile, Tag("run")] | Annotated[QuotedRow, Tag("quoted")], Discriminator(_row_kind)
]


class Group(Frozen):
    """Rows that are compared with one another. run: overrides of every row that is run, before its
    own. summary: rows below them with the mean, the worst and the range of each column."""

    name: Text
    rows: tuple[AnyRow, ...] = Field(min_length=1, description="a list of rows")
    run: Overrides = ()
    summary: Flag = False
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

    groups: tuple[Group, ...] = Field(min_length=1, description="a list of groups")
    average: Flag = False
    quoted: dict[Name, Name] | None = Field(
        None, description="a mapping from columns of published.csv to values"
    )
    versus: Name = Field(
        ABOVE, description="`above` or the name of a row of every group of several"
    )
    compare_to_best: Flag = False
    figure: Flag = False
    across: Annotated[str, one_of("benchmarks", "metrics")] = Field(
        "benchmarks", description="benchmarks or metrics"
    )


class GridTable(_Table):
    """A table of eps × min_samples."""

    run: Overrides
    eps: tuple[Annotated[float, number(0)], ...] = Field(
        min_length=1, description="a list of numbers"
    )
    min_samples: tuple[Annotated[int, whole(1)], ...] = Field(
        min_length=1, description="a list of whole numbers"
    )


OF_A_SUITE = ("limit", "save_maps")  # what overrides set for all runs of a suite alone
# What an override may not set: the plan sets it from the suite, the roles and the row.
OF_THE_PLAN = {
    "benchmark": "the suite's `roles` say which",
    "model": "a suite has one, its `model`",
    "protocol": "a table has one, its own `protocol` or the suite's",
    "protocol.name": "a table has one, its own `protocol` or the suite's",
    "image_size": "write it as the row's or the table's `image_size`",
    **dict.fromkeys(OF_A_SUITE, "write it in the suite's `overrides`"),
    **dict.fromkeys(
        ("device", "batch_size", "workers", "out", "data"),
        "it does not affect results; give it to the command that runs the suite",
    ),
    "ledger": "tables whose `metrics` are of the ledger set it",
}
# What a row may set below a key of the plan
OF_A_ROW: dict[str, tuple[str, ...]] = {
    "benchmark": ("background", "templates"),
    "model": ("precision",),
    "protocol": ("rule", "logit_scale", "background_threshold", "short_side", "stride"),
}


def read_suite(name: str) -> Suite:
    """conf/suite/<name>.yaml. Raises UserError naming the file and the key that is wrong."""
    where = f"suite {name}"
    suite = _checked(Suite, files.load("suite", name), where)
    _refuse_overrides(where, "overrides", suite.overrides)
    for role, benchmarks in suite.roles:
        _refuse_doubles(f"{where}, role {role}", benchmarks)
    _refuse_doubles(f"{where}, tables", suite.tables)
    if suite.pictures is not None:
        _exists(f"{where}, pictures", "table", suite.pictures)
    return suite


def read_table(name: str) -> MetricsTable | GridTable:
    """conf/table/<name>.yaml. Raises UserError naming the file, the row and the key."""
    where, content = f"table {name}", files.load("table", name)
    kind = content.get("kind")
    if kind not in ("metrics", "grid"):
        raise UserError(f"{where}: kind={kind!r}; {nearest('', ('metrics', 'grid'))}")
    model: type[MetricsTable | GridTable] = MetricsTable if kind == "metrics" else GridTable
    table = _checked(model, content, where)
    for key, names, known in (
        ("role", (table.role,), Roles.model_fields),
        (
            "metric",
            table.metrics,
            METRICS if kind == "grid" else (*METRICS, LOST, *OF_LEDGER),
        ),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"{where}: unknown {key} {name!r}; {nearest(name, known)}")
    _refuse_doubles(f"{where}, metrics", table.metrics)
    if table.protocol is not None:
        _exists(where, "protocol", table.protocol)
    if isinstance(table, GridTable):
        for axis in ("eps", "min_samples"):
            _refuse_doubles(f"{where}, {axis}", getattr(table, axis))
        _refuse_overrides(where, "run", table.run)
        return table
    for group in table.groups:
        _check_group(where, group, table.versus)
    _refuse_doubles(where, (group.name for group in table.groups))
    return table


def _check_group(table: str, group: Group, versus: str) -> None:
    where = f"{table}, group {group.name!r}"
    _refuse_overrides(where, "run", group.run)
    own = SUMMARIES if group.summary else ()
    _refuse_doubles(where, (*(row.row for row in group.rows), *own))
    rows = {row.row: row for row in group.rows if isinstance(row, RowFile)}
    for name, row in rows.items():
        _check_row(f"{table}, row {name!r}", row)
    if versus != ABOVE and versus not in rows and len(rows) > 1:
        raise UserError(
            f"{where}: no row {versus!r} that is run, with which `versus` compares; "
            f"{nearest(versus, [ABOVE, *rows])}"
        )


def _check_row(where: str, row: RowFile) -> None:
    _refuse_overrides(where, "run", row.run)
    for benchmark, overrides in row.per_benchmark.items():
        _exists(f"{where}, per_benchmark", "benchmark", benchmark)
        _refuse_overrides(f"{where}, per_benchmark, {benchmark}", "run", overrides)
    if (row.only is None) != (row.otherwise is None):
        there, gone = ("only", "otherwise") if row.only is not None else ("otherwise", "only")
        wanted = RowFile.model_fields[gone].description
        raise UserError(f"{where}: `{there}` needs `{gone}`; give {wanted}")
    where, only = f"{where}, only", row.only or ()
    for benchmark in [*only, *only.values()] if isinstance(only, dict) else only:
        _exists(where, "benchmark", benchmark)
    _refuse_doubles(where, list(only))


def _exists(where: str, group: str, name: str) -> None:
    """Refuse a name that conf/<group>/ has no file of."""
    try:
        files.load(group, str(name))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


M = TypeVar("M", bound=Frozen)


def _checked(model: type[M], content: Any, where: str) -> M:
    """`content` as a `model`. Raises UserError naming the group or row, the key and what it is."""

    def sentence(problem: Problem) -> str:
        path, place, part = problem.path.split("."), where, content
        inside: type[Frozen] = model
        if path[0] == "roles" and len(path) > 1:
            place, part, inside, path = f"{where}, roles", part["roles"], Roles, path[1:]
        if path[0] == "groups" and len(path) > 2:
            part, inside, path = part["groups"][int(path[1])], Group, path[2:]
            place = f"{where}, group {part.get('name', '')!r}"
        if path[0] == "rows" and len(path) > 3:  # rows, its place, its kind, a key
            part, inside, path = (
                part["rows"][int(path[1])],
                RowFile if path[2] == "run" else QuotedRow,
                path[3:],
            )
            place = f"{where}, row {part.get('row', '')!r}"
        key = path[0]
        if problem.kind == "unknown":
            return f"{place}: unknown key {key!r}; {problem.fault}"
        wanted = inside.model_fields[key].description
        if problem.kind == "missing":
            return f"{place}: `{key}` is missing; give {wanted}"
        return f"{place}: {key}={part[key]!r}; give {wanted}"

    return validated(model, content, sentence=sentence)


def _refuse_overrides(where: str, key: str, overrides: Iterable[str]) -> None:
    """Refuse what the plan sets; of OF_A_SUITE and what OF_A_ROW does not name, only in a `run`."""
    for override in overrides:
        name = override.partition("=")[0].strip()
        part, _, leaf = name.partition(".")
        reason = OF_THE_PLAN.get(name, "")
        if not reason and key == "run" and leaf and leaf not in OF_A_ROW.get(part, (leaf,)):
            may = " ".join(f"{part}.{each}=" for each in OF_A_ROW[part])
            reason = f"of the {part} it may set {may}"
        if reason and not (key == "overrides" and name in OF_A_SUITE):
            raise UserError(f"{where}: `{key}` must not set {name}=; {reason}")


def _refuse_doubles(where: str, names: Iterable[Any]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{where}: {name!r} is listed twice; names must be unique")
