"""Is a run finished? The one answer, for the pass, the plan, the Snakefile and the tables.

A run is finished when the files of its folder are those that were written (provenance.json holds
their digests), and were made by this code from this data. What is missing says what it costs:
"predict" streams the images again, "rescore" makes metrics.json again from the saved counts, and of
an unsupervised run the counts from the saved regions; "ledger" streams the images again for the
ledger of errors that is asked for, "maps" some of them for the label maps.

Loads neither numpy nor torch: every start of Snakemake asks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from cliptrase.config import Run
from cliptrase.data.read.selfcheck import prepared_folder, read_selfcheck, subset_digests
from cliptrase.errors import UserError
from cliptrase.files import read_json, read_sealed, sha256_file, sha256_text, write_json
from cliptrase.runs import code

PROVENANCE = "provenance.json"
PREDICTED = ("confusion.npz", "per_image.npz")
SCORED = ("metrics.json", "config.yaml")
SEALED = ("metrics.json", "confusion.npz", "per_image.npz", "config.yaml")
FILES = (*SEALED, PROVENANCE)
REGIONS = "regions.npz"  # of an unsupervised run: its counts are made of it
LEDGER = "ledger.npz"  # of a run that keeps a ledger of its errors
SOME = (REGIONS, LEDGER)  # files that not every run has
MAPS, LEGEND = "maps", ("legend.png", "legend.json")  # of a run that keeps label maps
NOT_RUN = "not run yet"
TABLES = Path(__file__).parents[1] / "data" / "labels"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built


@dataclass(frozen=True)
class Status:
    """What a run needs, and why; the reason of a finished run is empty."""

    state: Literal["finished", "maps", "ledger", "rescore", "predict"]
    reason: str = ""

    @property
    def finished(self) -> bool:
        """Whether it needs nothing."""
        return self.state == "finished"

    @property
    def streams(self) -> bool:
        """Whether all its images must be streamed."""
        return self.state in ("predict", "ledger")

    @property
    def scored(self) -> bool:
        """Whether its numbers stand, with or without the label maps and the ledger that are asked
        for."""
        return self.state in ("finished", "maps", "ledger")


def status(
    run: Run, runs_folder: Path | str, data: Path | str = "data", *, freeze_code: bool = False
) -> Status:
    """What the folder of `run` in `runs_folder` still needs.

    `freeze_code` lets a run stand whatever code predicted and scored it: one of other code gains no
    ledger. Raises UserError as `unwritten`.
    """
    folder = Path(runs_folder) / run.name
    if reason := unwritten(folder, run):
        return Status("predict", reason)
    made = read_provenance(folder)
    predicted, scored = _predicted_and_scored(run)
    if reason := _damage(folder, predicted, made):
        return Status("predict", reason)
    if not freeze_code and made.get("code") != code.prediction_digest():
        return Status("predict", "made by other prediction code")
    pixels = data_digest(run, data)
    if made.get("labels") != labels_digest(run) or pixels not in (None, made.get("data")):
        return Status("predict", "made from other data or labels")
    reason = _damage(folder, scored, made)
    if not reason and not freeze_code and made.get("scoring") != code.scoring_digest():
        reason = "its scores are of other scoring code"
    lacking = _lacking_ledger(folder, run, made) if run.ledger else ""
    if reason:  # metrics.json holds one number that the counts do not
        scorable = "flops" in made and not any((folder / name).is_dir() for name in scored)
        return Status("rescore" if scorable and not lacking else "predict", reason)
    if lacking:
        return Status("ledger", lacking)
    reason = _lacking_maps(folder, run, made)
    return Status("maps" if reason else "finished", reason)


def without_maps(
    runs: Mapping[str, Run],
    runs_folder: Path | str,
    data: Path | str = "data",
    *,
    freeze_code: bool = False,
) -> dict[str, Run]:
    """Those of `runs` whose numbers stand and that lack label maps which they ask for."""
    return {
        name: run
        for name, run in runs.items()
        if run.save_maps and status(run, runs_folder, data, freeze_code=freeze_code).state == "maps"
    }


def pass_file(suite: str, name: str, results: Path | str = "results") -> Path:
    """Where a pass writes which runs it made."""
    return Path(results) / "passes" / suite / f"{name}.json"


def write_pass(file: Path, runs: Iterable[str], runs_folder: Path | str) -> None:
    """Write the pass file: run → sha256 of its metrics.json."""
    folder = Path(runs_folder)
    write_json(file, {run: sha256_file(folder / run / "metrics.json") for run in runs})


def stale_pass(
    file: Path,
    runs: Mapping[str, Run],
    runs_folder: Path | str,
    data: Path | str = "data",
    *,
    freeze_code: bool = False,
) -> str:
    """Why a pass must be made (again): its file, or the first run that is not finished; "" where
    all is there. A run folder of another configuration is such a reason: the pass will refuse it.
    """
    if not file.is_file():
        return f"{file.name} is missing"
    written = read_json(file) or {}
    if written.keys() != runs.keys():
        return f"{file.name} names other runs"
    for name, run in runs.items():
        try:
            reason = status(run, runs_folder, data, freeze_code=freeze_code).reason
        except UserError as error:
            return str(error)
        if not reason and sha256_file(Path(runs_folder) / name / "metrics.json") != written[name]:
            reason = f"its metrics.json is not the one that {file.name} names"
        if reason:
            return f"{name}: {reason}"
    return ""


def unwritten(folder: Path, run: Run) -> str:
    """Why `folder` is not one that `run` was written to, and may be written anew; "" for its own.

    A folder is the run's own by config.yaml or, where that is lost or changed, by what
    provenance.json says of it. Raises UserError where it holds another configuration, or files that
    are no run's, and for a file that is not empty.
    """
    cure = "delete it, or choose another folder with out=…"
    if folder.is_file():
        if folder.stat().st_size:
            raise UserError(f"{folder}: is a file; {cure}")
        return "an empty file stands where its folder belongs"
    if not folder.is_dir() or not any(folder.iterdir()):
        return NOT_RUN
    config = folder / "config.yaml"
    try:
        written = yaml.load(config.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        written = None
    digests = read_provenance(folder).get("files")
    if written == run.identity or (
        isinstance(digests, dict) and digests.get(config.name) == sha256_text(run.text)
    ):
        return ""
    if isinstance(written, dict):
        fault = "holds another configuration than this run"
    else:
        fault = f"config.yaml is {'damaged' if config.is_file() else 'missing'}"
        names = {each.name for each in folder.iterdir() if each.name[0] != "."}
        strange = sorted(names - {*FILES, *SOME, MAPS, *LEGEND})
        if not strange:
            return fault
        fault += f", and {strange[0]} is no file of a run"
    raise UserError(f"{folder}: {fault}; {cure}")


def _predicted_and_scored(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that the images are needed for, and those that are made of them."""
    if run.method.unsupervised is None:
        return PREDICTED, SCORED
    return (REGIONS,), (*PREDICTED, *SCORED)


def ledger_damage(folder: Path, made: Mapping[str, Any]) -> str:
    """Why the ledger of errors in a run folder cannot be used, "" where it can.

    made: what provenance.json holds.
    """
    if LEDGER not in made["files"]:
        return "it keeps no ledger of its errors, and ledger=true asks for one"
    return _damage(folder, [LEDGER], made)


def _lacking_ledger(folder: Path, run: Run, made: Mapping[str, Any]) -> str:
    """Why the ledger of errors that `run` asks for must be made; "" where it is there, and where
    other code made the run.

    made: what provenance.json holds.
    """
    reason = ledger_damage(folder, made)
    return reason if reason and made.get("code") == code.prediction_digest() else ""


def _lacking_maps(folder: Path, run: Run, made: Mapping[str, Any]) -> str:
    """Why the label maps that `run` asks for must be made; "" where none must.

    made: what provenance.json holds; of maps, how many were asked for and the digests of the files.
    """
    kept = made.get("maps") or {"asked": 0, "files": {}}
    if kept["asked"] < run.save_maps:
        return f"it keeps {kept['asked']} label maps, and save_maps={run.save_maps} asks for more"
    return _damage(folder, kept["files"], kept) if run.save_maps else ""


def read_provenance(folder: Path) -> Mapping[str, Any]:
    """What provenance.json of a run folder holds; nothing where it is missing or damaged."""
    return read_sealed(folder / PROVENANCE) or {}


def file_digests(folder: Path) -> dict[str, str]:
    """File → sha256 of the files that provenance.json answers for."""
    some = [name for name in SOME if (folder / name).is_file()]
    return {name: sha256_file(folder / name) for name in (*SEALED, *some)}


def damage_of(folder: Path) -> str:
    """What is wrong with the files of a run folder, "" where all are as they were written."""
    made = read_provenance(folder)
    written = made.get("files")
    return _damage(folder, written if isinstance(written, dict) else SEALED, made)


def _damage(folder: Path, names: Iterable[str], made: Mapping[str, Any]) -> str:
    """What is wrong with the first of the files that is not as it was written; "" where all are.

    made: what provenance.json holds.
    A provenance.json that was edited to fit an edited file is noticed by `stale_pass` only.
    """
    for name in (*names, PROVENANCE):
        if not (folder / name).is_file():
            return f"{name} is missing"
    written = made.get("files")
    if not isinstance(written, dict):
        return f"{PROVENANCE} is damaged"
    for name in names:
        try:
            digest = sha256_file(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != written.get(name):
            return f"{name} is not what was written"
    return ""


def data_digest(run: Run, data: Path | str = "data") -> str | None:
    """The digest of the prepared dataset's pixels and labels, from its self-check; of the list of
    images too, where the run is scored on some of them.

    None where it is not prepared, and for a user's folder, whose digest is in the run's identity.
    """
    dataset, subset = run.benchmark.dataset, run.benchmark.subset
    pixels = dataset_digest(dataset, data)
    if pixels is None or subset is None:
        return pixels
    listed = subset_digests(dataset, data).get(subset)
    return sha256_text(f"{pixels} {listed}") if listed else pixels


def dataset_digest(dataset: str, data: Path | str = "data") -> str | None:
    """The digest of a prepared dataset's pixels and labels alone, as `data_digest`."""
    check = read_selfcheck(prepared_folder(dataset, data))
    return None if check is None else check.get("pixels_sha256")


def labels_digest(run: Run) -> str | None:
    """The digest of the table from raw labels to classes, None where there is none."""
    table = run.benchmark.labels.map
    return None if table is None else sha256_file(TABLES / f"{table}.csv")
