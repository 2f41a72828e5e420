"""Runs, tables and the page of a suite → W&B, from files alone; a ledger remembers what was
published.

`python -m cliptrase.publish wandb SUITE`, or `cliptrase publish SUITE`. Offline by default: no
account, no network; `wandb sync` can send the offline folders later. Where W&B fails there is a
warning, and the next time tries again.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from cliptrase import config, plan
from cliptrase.config import Run
from cliptrase.config.validation import Frozen, OptionalText, Text, one_of, validated
from cliptrase.errors import UserError, exit_on_user_error, start_log
from cliptrase.files import check_writable, read_json, sha256_file, sha256_text, write_json
from cliptrase.plan import Plan
from cliptrase.publish import MODES
from cliptrase.publish.command_line import add_places, command_line
from cliptrase.publish.results import Shelf

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

TABLES = "tables"  # the ledger's name for the W&B run that holds a suite's tables
# No output, and nothing about this machine but what is logged.
QUIET: Any = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
QUIET |= {"x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False}
# Errors after which the next item would fail in the same way: no account, no network, a full disk.
GIVE_UP = ("NoAccount", "AuthenticationError", "CommError", "ImportError", "OSError")
TAG, NAME = 64, 128  # characters that W&B takes
ONLINE_PATIENCE = 60.0  # seconds that W&B may take to start a run


class NoAccount(Exception):
    """Online, where nobody is logged in."""


class Tracking(Frozen):
    """Where to publish: conf/tracking/wandb.yaml and `tracking.…=` overrides."""

    mode: Annotated[str, one_of(*MODES)]
    project: Text
    entity: OptionalText

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
    def read(cls, path: Path) -> Self:
        """The ledger at `path`, empty without a file. Raises UserError for a damaged one."""
        if not path.exists():
            return cls(path)
        places = (read_json(path) or {}).get("places")
        whole = isinstance(places, dict) and all(
            isinstance(place, dict) and all(isinstance(entry, dict) for entry in place.values())
            for place in places.values()
        )
        if not isinstance(places, dict) or not whole:
            cure = "delete it to publish everything again"
            raise UserError(f"{path}: not a ledger that can be read; {cure}")
        return cls(path, places)

    def write(self, tracking: Tracking) -> None:
        """Write it whole, sorted."""
        places = {"places": self.places, "failed": self.failed}
        write_json(self.path, tracking.model_dump() | places)


@dataclass(frozen=True)
class Item:
    """What one W&B run will hold. `tables`: name → a table to log; `files`: of an artifact."""

    name: str
    sha256: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, object]
    summary: Mapping[str, object]
    tables: Mapping[str, "pd.DataFrame"]
    files: tuple[Path, ...] = ()


def publish(suite: Plan, results: Path, data: Path, tracking: Tracking) -> Ledger:
    """Publish what is not in the ledger yet; returns the ledger, which is also written.

    Whatever W&B raises becomes a warning and an entry under `failed`. Raises UserError only for a
    ledger that cannot be read or written, and where there is no run.
    """
    folder = results / suite.suite / "wandb"
    ledger = Ledger.read(folder / "ledger.json")
    check_writable(ledger.path)
    if tracking.mode != "disabled":
        shelf = Shelf(suite, results, data)
        shelf.refuse_none()
        entries = ledger.places.setdefault(tracking.place, {})
        for name, make in _items(suite, shelf):
            try:
                item = make()
                if item is None or entries.get(name, {}).get("sha256") == item.sha256:
                    continue
                entry = _send(item, suite.suite, folder, tracking)
            except Exception as error:  # whatever W&B raises: its failure is not ours
                kind = type(error).__name__
                reason = f"{kind}: {error}".strip().replace("\n", " ")
                ledger.failed[name] = reason
                log.warning("W&B: %s was not published: %s", name, reason)
                if any(each.__name__ in GIVE_UP for each in type(error).__mro__):
                    log.warning("W&B: giving up for now; the next time tries again")
                    break
                continue
            entries[name] = entry
            ledger.write(tracking)  # at once: if it is killed now, the next time goes on from here
            for path in folder.glob(f"offline-run-*-{entry['id']}"):
                if path.name != entry.get("folder", path.name):
                    shutil.rmtree(path, ignore_errors=True)  # an older one, under the same id
    ledger.write(tracking)
    return ledger


def _items(suite: Plan, shelf: Shelf) -> Iterator[tuple[str, Callable[[], Item | None]]]:
    """Name → what makes it, None where there is no run: the runs that a table other than a grid
    shows, then the tables, in one W&B run."""
    for name in suite.main_runs:
        yield name, partial(_run_item, shelf, name, suite.runs[name])
    yield TABLES, partial(_tables_item, suite, shelf)


def _tables_item(suite: Plan, shelf: Shelf) -> Item:
    from cliptrase.publish.tables.cells import (
        tidy,  # pandas: half a second, after what fails quickly
    )
    from cliptrase.publish.tables.render import csv_table, to_csv

    frames = {name: tidy(suite, shelf, table) for name, table in suite.tables.items()}
    folder = shelf.results / suite.suite
    pictures = (folder / "figures" / "label_maps.png", *sorted(folder.glob("pictures/*.npz")))
    page = folder / "index.html"
    files = tuple(path for path in (page, *pictures) if path.is_file()) if page.is_file() else ()
    text = "".join(to_csv(frame) for frame in frames.values())
    return Item(
        name=TABLES,
        # the page's bytes follow from the numbers, but for the dates of runs that were repeated
        sha256=sha256_text(text + "".join(map(sha256_file, files[1:])) + str(len(files))),
        job_type="tables",
        tags=(TABLES,),
        config={"suite": suite.suite, "title": suite.title, "tables": list(frames)},
        summary={},
        tables={name: csv_table(frame) for name, frame in frames.items()},
        files=files,
    )


def _run_item(shelf: Shelf, name: str, run: Run) -> Item | None:
    import pandas as pd

    result, _ = shelf.find(name)
    if result is None:
        return None
    metrics = result.metrics
    facts = ("rule", "images", "skipped", "classes", "vocabulary", "flops")
    summary = {key: metrics[key] for key in facts}
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


def cut(text: str, most: int) -> str:
    """The text; a longer one than `most` characters has a digest of it in place of its end."""
    digest = sha256_text(text)[:10]
    return text if len(text) <= most else f"{text[: most - 11]}-{digest}"


def _send(item: Item, suite: str, folder: Path, tracking: Tracking) -> dict[str, str]:
    """Publish one item and return its entry for the ledger. Raises what W&B raises."""
    import wandb  # takes half a second: only where there is something to publish

    folder.mkdir(parents=True, exist_ok=True)
    if tracking.mode == "online" and not wandb.login(prompt=False):
        raise NoAccount("run `wandb login`, or use tracking.mode=offline")
    # The same id for the same run in the same project: a second publication updates the first.
    identity = f"{tracking.entity or ''}/{tracking.project}/{suite}/{item.name}"
    begun = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        id=sha256_text(identity)[:16],
        name=cut(f"{suite} {TABLES}" if item.name == TABLES else item.name, NAME),
        group=cut(suite, NAME),
        job_type=item.job_type,
        tags=[cut(tag, TAG) for tag in item.tags],
        config=dict(item.config),
        mode=cast(Literal["online", "offline"], tracking.mode),
        dir=folder.parent,
        resume="allow" if tracking.mode == "online" else None,
        settings=wandb.Settings(**QUIET, init_timeout=ONLINE_PATIENCE),
    )
    failed = 1  # not `with begun`, which prints the traceback of what fails in it
    try:
        begun.summary.update(dict(item.summary))
        for name, table in item.tables.items():
            rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
            begun.log({name: wandb.Table(columns=list(table.columns), data=rows)})
        if item.files:
            artifact = wandb.Artifact(cut(f"page-{begun.id}", NAME), type="page")
            for path in item.files:  # read where it lies: no copy in the user's home
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
            begun.log_artifact(artifact)
        failed = 0
    finally:
        begun.finish(exit_code=failed)
    entry = {"sha256": item.sha256, "id": begun.id}
    if tracking.mode == "offline":
        entry["folder"] = Path(begun.settings.sync_dir).name
    return entry


def read_tracking(mode: str | None, overrides: Sequence[str]) -> Tracking:
    """conf/tracking/wandb.yaml, changed by `tracking.mode=online` and the like.

    Raises UserError for an unknown key or mode.
    """
    content = config.load("tracking", "wandb")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.startswith("tracking."):
            raise UserError(f"override {override!r}: write tracking.mode=online")
        content[key.removeprefix("tracking.")] = config.parse_value(text)
    if mode is not None:
        content["mode"] = mode
    return validated(Tracking, content, "tracking")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cliptrase publish`."""
    add_places(parser)
    parser.add_argument("--mode", choices=MODES, help="the same as tracking.mode=")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Publish a suite. Exit code 0 also where W&B failed: stderr and the ledger say what."""
    parser = command_line("publish", __doc__, add_options)
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE")
    args = parser.parse_intermixed_args(arguments)
    start_log("warning: %(message)s")
    logging.raiseExceptions = False  # W&B's log files on a full disk: pages of tracebacks
    tracking = read_tracking(args.mode, args.overrides)
    suite = plan.load(args.suite)
    ledger = publish(suite, args.results, args.data or Path(suite.data), tracking)
    done, failed = len(ledger.places.get(tracking.place, {})), len(ledger.failed)
    sys.stdout.write(f"{tracking.place}: {done} published, {failed} failed; {ledger.path}\n")
