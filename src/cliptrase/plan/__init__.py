"""Which runs the tables of a suite need, and how they share passes over the images.

Expands conf/suite × conf/table; imports neither torch nor Hydra. `python -m cliptrase.plan SUITE`
prints one line a run: pass, run, benchmark, method, image_size.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cliptrase.config import Run, names
from cliptrase.config.schema import Folder
from cliptrase.errors import UserError, exit_on_user_error, nearest
from cliptrase.plan.files import read_suite
from cliptrase.plan.tables import Expander, Table

# What lies in results/ beside the folders of suites
TAKEN = ("README.md", "logs", "markers", "passes", "runs", "speed.json", "sweeps")


@dataclass(frozen=True)
class Pass:
    """The runs that one stream over a dataset's images can make together.

    Named `<dataset>.<model>.<image size>.<protocol>`, then how its pictures are resized where the
    protocol's own YAML says otherwise, `precision-bf16` where the model is not in fp32, and ten
    digits of the digest of label maps that come from files. A user's folder is the dataset
    `folder-<benchmark>`, by the first benchmark that scores it.
    """

    name: str
    dataset: str
    model: str
    image_size: int
    protocol: str
    runs: dict[str, Run] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A suite, expanded. `runs` maps a run's name to its resolved configuration.

    `data` is the folder that its archives and datasets lie in, as seen from the working directory.
    """

    suite: str
    title: str
    published: bool
    passes: dict[str, Pass]
    tables: dict[str, Table]
    runs: dict[str, Run]
    data: str = "data"
    pictures: str = ""  # the table whose runs the page shows pictures of, if any

    @property
    def datasets(self) -> list[str]:
        """Datasets that the passes read, sorted."""
        return sorted({each.dataset for each in self.passes.values()})

    @property
    def main_runs(self) -> list[str]:
        """Runs that a table other than a grid shows: what is published one by one."""
        shown = (table for table in self.tables.values() if table.kind != "grid")
        names = {cell.run for table in shown for row in table.rows for cell in row.cells}
        return [name for name in self.runs if name in names]

    def check_benchmarks(self, names: Iterable[str]) -> None:
        """Raise UserError for a benchmark that is not in the suite."""
        there = {run.benchmark.name for run in self.runs.values()}
        for name in names:
            if name not in there:
                raise UserError(
                    f"suite {self.suite} has no benchmark {name!r}; {nearest(name, there)}"
                )


def benchmark_names(value: Any) -> tuple[str, ...] | None:
    """The benchmarks of a list, or of a text such as `[voc20,ade150]` or `voc20`; None for all.

    Raises ValueError with the end of a sentence for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = value.strip("[]").split(",")
    names = tuple(str(name).strip() for name in value) if isinstance(value, list | tuple) else ()
    if not all(names) or not names:
        raise ValueError("must be a list of benchmarks, as in benchmarks=[voc20,ade150]")
    return names


def load(suite: str, save_maps: int | None = None) -> Plan:
    """The plan of conf/suite/<suite>.yaml. save_maps: label maps of a run, None for what it says.

    Raises UserError for an unknown suite, table, benchmark, key or value, for a name that no rule
    of the workflow can have, and for a suite's name that cannot be a folder of its own in results/.
    """
    spec = read_suite(suite)
    if save_maps is not None:
        overrides = (*spec.overrides, f"save_maps={save_maps}")
        spec = spec.model_copy(update={"overrides": overrides})
    expander = Expander(spec)
    tables = {name: expander.table(name) for name in spec.tables}
    passes = _passes(expander.runs)
    for name in (suite, spec.data, *tables, *passes):
        if re.search(r"[{}\x00-\x1f]", name):  # wildcards of Snakemake
            raise UserError(f"suite {suite}: {name!r} names files; no braces, no line ends in it")
    if suite[0] in "-." or "/" in suite or suite in TAKEN:
        raise UserError(
            f"suite {suite}: its name is a folder of results/ and a word on command lines; it must "
            f"not begin with - or ., hold a / or be one of {', '.join(TAKEN)}; rename its file"
        )
    return Plan(
        suite,
        spec.title,
        spec.published,
        passes,
        tables,
        expander.runs,
        spec.data,
        spec.pictures if spec.pictures in tables else "",
    )


def suites() -> list[str]:
    """The suites of conf/suite."""
    return names("suite")


def _passes(runs: dict[str, Run]) -> dict[str, Pass]:
    passes: dict[str, Pass] = {}
    folders: dict[Folder, str] = {}
    for name, run in runs.items():
        dataset, model = run.benchmark.dataset, run.model.label
        if folder := run.benchmark.folder:
            dataset = folders.setdefault(folder, f"folder-{run.benchmark.name}")
        size, protocol = run.image_size, run.protocol.name
        precision = [f"{key}-{value}" for key, value in run.model.changed.items()]
        changed = run.changed_settings
        resized = [f"{key}-{changed[key]}" for key in ("short_side", "stride") if key in changed]
        files = [run.method.digest[:10]] if run.method.digest else []
        key = ".".join([dataset, model, str(size), protocol, *resized, *precision, *files])
        passes.setdefault(key, Pass(key, dataset, model, size, protocol)).runs[name] = run
    return passes


@exit_on_user_error
def main(arguments: list[str] | None = None) -> None:
    """Print the runs of a suite as tab-separated lines."""
    words, listed = sys.argv[1:] if arguments is None else arguments, ", ".join(suites())
    if words in (["-h"], ["--help"]):
        print(f"{__doc__}\nSuites: {listed}")
        return
    if len(words) != 1:
        raise UserError(f"write python -m cliptrase.plan SUITE. There is: {listed}")
    passes = load(words[0]).passes
    print("pass", "run", "benchmark", "method", "image_size", sep="\t")
    for each in passes.values():
        for name, run in each.runs.items():
            print(each.name, name, run.benchmark.name, run.method.name, run.image_size, sep="\t")
