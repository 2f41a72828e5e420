"""Runs and tables of a suite → W&B, from files alone; a ledger remembers what was published.

`python -m cliptrase.publish wandb SUITE`, or `cliptrase publish SUITE`. Offline by default: no
account, no network; `wandb sync` can send the offline folders later. Where W&B fails there is a
warning, and the next time tries again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd

from cliptrase import config, plan
from cliptrase.config import Run
from cliptrase.errors import UserError, exit_on_user_error, nearest
from cliptrase.files import atomic_write
from cliptrase.plan import Plan
from cliptrase.publish.cells import COLUMNS, tidy
from cliptrase.publish.render import distinctly_named, to_csv
from cliptrase.publish.results import FinishedRun, Shelf
from cliptrase.publish.tables import common_arguments

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")
TABLES = "tables"  # the ledger's name for the W&B run that holds a suite's tables
# No output, and nothing about this machine but what is logged.
QUIET: Any = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
QUIET |= {"x_disable_stats": True, "x_disable_machine_info": True}
ONLINE_PATIENCE = 60.0  # seconds that W&B may take to start a run


@dataclass(frozen=True)
class Tracking:
    """Where to publish: conf/tracking/wandb.yaml and `tracking.…=` overrides."""

    mode: str
    project: str
    entity: str | None

    @property
    def place(self) -> str:
        """The same place has the same name: nothing is published twice to one."""
        return f"{self.mode}:{self.entity or ''}/{self.project}"


@dataclass
class Ledger:
    """results/<suite>/wandb/ledger.json: by place, what was published under which id, what failed.

    An entry: {"sha256": of what was published, "id": W&B's, "folder": an offline run's folder}.
    """

    path: Path
    places: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger at `path`, empty without a file. Raises UserError for a damaged one."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, {name: dict(entries) for name, entries in content["places"].items()})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}: not a ledger that can be read; delete it to publish everything again"
            ) from None

    def write(self, tracking: Tracking) -> None:
        """Write it whole, sorted."""
        content = asdict(tracking) | {"places": self.places, "failed": self.failed}
        with atomic_write(self.path, "w") as file:
            json.dump(content, file, indent=1, sort_keys=True, ensure_ascii=False)
            file.write("\n")


@dataclass(frozen=True)
class Item:
    """What one W&B run will hold. `tables`: name → a table to log."""

    name: str
    sha256: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, object]
    summary: Mapping[str, object]
    tables: Mapping[str, pd.DataFrame]


def publish(suite: Plan, results: Path, data: Path, tracking: Tracking) -> Ledger:
    """Publish what is not in the ledger yet; returns the ledger, which is also written.

    Whatever W&B raises becomes a warning and an entry under `failed`. Raises UserError only for a
    ledger that cannot be read or written.
    """
    folder = results / suite.suite / "wandb"
    ledger = Ledger.read(folder / "ledger.json")
    if tracking.mode != "disabled":
        entries = ledger.places.setdefault(tracking.place, {})
        for item in _items(suite, Shelf(suite, results, data)):
            if entries.get(item.name, {}).get("sha256") == item.sha256:
                continue
            try:
                entry = _send(item, suite.suite, folder, tracking)
            except Exception as error:  # whatever W&B raises: its failure is not ours
                reason = f"{type(error).__name__}: {error}".strip().replace("\n", " ")
                ledger.failed[item.name] = reason
                log.warning("W&B: %s was not published: %s", item.name, reason)
                if isinstance(error, ImportError | TimeoutError) or _gives_up(error):
                    log.warning("W&B: giving up for now; the next time tries again")
                    break
                continue
            entries[item.name] = entry
            ledger.write(tracking)  # at once: if it is killed now, the next time goes on from here
            _forget_folders(folder, entry)
    ledger.write(tracking)
    return ledger


def _items(suite: Plan, shelf: Shelf) -> Iterator[Item]:
    """The runs that a table other than a grid shows, then the tables, in one W&B run."""
    for name in suite.main_runs:
        result, _ = shelf.find(name)
        if result is not None:
            yield _run_item(result, suite.runs[name])
    frames = {name: tidy(suite, shelf, table) for name, table in suite.tables.items()}
    text = "".join(to_csv(frame) for frame in frames.values())
    yield Item(
        name=TABLES,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        job_type="tables",
        tags=(TABLES,),
        config={"suite": suite.suite, "title": suite.title, "tables": list(frames)},
        summary={},
        tables={name: _numeric(distinctly_named(frame)) for name, frame in frames.items()},
    )


def _numeric(frame: pd.DataFrame) -> pd.DataFrame:
    """The CSV's columns. W&B's columns have one type each: printed numbers become numbers."""
    table = frame[list(COLUMNS)]
    return table.assign(published=pd.to_numeric(table["published"].replace("", None)))


def _run_item(result: FinishedRun, run: Run) -> Item:
    metrics = result.metrics
    summary = {
        key: metrics[key] for key in ("rule", "images", "skipped", "classes", "vocabulary", "flops")
    }
    for metric, (low, high) in metrics["ci"].items():
        summary |= {metric: result.value(metric), f"{metric}/low": low, f"{metric}/high": high}
    for rule, values in metrics["rules"].items():
        summary |= {f"rules/{rule}/{metric}": value for metric, value in values.items()}
    ious = [(each["name"], each["value"]) for each in metrics["iou"]]
    return Item(
        name=result.name,
        sha256=result.sha256,
        job_type="evaluate",
        tags=(run.benchmark.name, run.method.name, str(run.image_size)),
        config=run.identity | {"commit": result.commit, "run": result.name},
        summary=summary,
        tables={"iou": pd.DataFrame(ious, columns=["class", "IoU"])},
    )


def _send(item: Item, suite: str, folder: Path, tracking: Tracking) -> dict[str, str]:
    """Publish one item and return its entry for the ledger. Raises what W&B raises."""
    import wandb  # takes half a second: only where there is something to publish

    folder.mkdir(parents=True, exist_ok=True)
    if tracking.mode == "online" and not wandb.login(prompt=False):
        raise wandb.errors.UsageError("no account: run `wandb login`, or use tracking.mode=offline")
    begun = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        id=_wandb_id(tracking, suite, item.name),
        name=f"{suite} {TABLES}" if item.name == TABLES else item.name,
        group=suite,
        job_type=item.job_type,
        tags=list(item.tags),
        config=dict(item.config),
        mode=cast(Literal["online", "offline"], tracking.mode),
        dir=folder.parent,
        resume="allow" if tracking.mode == "online" else None,
        settings=wandb.Settings(**QUIET, init_timeout=ONLINE_PATIENCE),
    )
    with begun:
        begun.summary.update(dict(item.summary))
        for name, table in item.tables.items():
            rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
            begun.log({name: wandb.Table(columns=list(table.columns), data=rows)})
    entry = {"sha256": item.sha256, "id": begun.id}
    if tracking.mode == "offline":
        entry["folder"] = Path(begun.settings.sync_dir).name
    return entry


def _wandb_id(tracking: Tracking, suite: str, name: str) -> str:
    """The same id for the same run in the same project: a second publication updates the first."""
    text = f"{tracking.entity or ''}/{tracking.project}/{suite}/{name}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _forget_folders(folder: Path, entry: dict[str, str]) -> None:
    """Remove older offline folders of what has just been published anew under the same id."""
    if "folder" in entry:
        for path in folder.glob(f"offline-run-*-{entry['id']}"):
            if path.name != entry["folder"]:
                shutil.rmtree(path, ignore_errors=True)


def _gives_up(error: Exception) -> bool:
    """Whether the next item would fail in the same way: no account, no network."""
    return type(error).__name__ in {"UsageError", "AuthenticationError", "CommError"}


def read_tracking(mode: str | None, overrides: Sequence[str]) -> Tracking:
    """conf/tracking/wandb.yaml, changed by `tracking.mode=online` and the like.

    Raises UserError for an unknown key or mode.
    """
    values = config.load("tracking", "wandb")
    for override in overrides:
        key, equals, text = override.partition("=")
        name = key.removeprefix("tracking.")
        if not equals or not key.startswith("tracking."):
            raise UserError(f"override {override!r}: write tracking.mode=online")
        if name not in values:
            raise UserError(f"unknown key {key!r}; {nearest(name, values)}")
        values[name] = config.parse_value(text)
    values |= {} if mode is None else {"mode": mode}
    if values["mode"] not in MODES:
        raise UserError(f"tracking.mode={values['mode']}: {nearest(values['mode'], MODES)}")
    entity = values["entity"]
    return Tracking(values["mode"], str(values["project"]), None if entity is None else str(entity))


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Publish a suite. Exit code 0 also where W&B failed: stderr and the ledger say what."""
    parser = argparse.ArgumentParser(prog="cliptrase publish", description=__doc__)
    common_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE")
    parser.add_argument("--mode", choices=MODES, help="the same as tracking.mode=")
    args = parser.parse_intermixed_args(arguments)
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING, stream=sys.stderr)
    tracking = read_tracking(args.mode, args.overrides)
    suite = plan.load(args.suite)
    ledger = publish(suite, args.results, args.data or Path(suite.data), tracking)
    published = len(ledger.places.get(tracking.place, {}))
    sys.stdout.write(
        f"{tracking.place}: {published} published, {len(ledger.failed)} failed; {ledger.path}\n"
    )


if __name__ == "__main__":
    main()
