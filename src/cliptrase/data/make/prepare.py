"""Prepare a dataset: `python -m cliptrase.data.make.prepare DATASET [--data data]`.

Archives that are not there are fetched first. What it made is held against the source's figures.
Made in a folder of its own beside its place and renamed when it is whole and checked: killed at any
moment, what stands there is a whole dataset or none, and the next run starts afresh.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cliptrase.data.fetch import receipts
from cliptrase.data.fetch.lock import alone
from cliptrase.data.fetch.sources import Archive, how_to_get, mirror_of, raw_path, sources_path
from cliptrase.data.make import expected, recipes
from cliptrase.data.make.recipes import Recipe
from cliptrase.data.read import prepared
from cliptrase.data.read.ordered import at_most
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import atomic_write, naming_the_path, sha256_file, write_json

_log = logging.getLogger(__name__)


def prepare(
    dataset: str,
    data: Path | str = "data",
    *,
    force: bool = False,
    mirror: str | None = None,
    optional: bool = True,
) -> Path:
    """Make a dataset below the data folder, unless it is there, whole and of this code.

    Fetches the archives that it needs, from `mirror` where one is given, and the optional ones too,
    or (not `optional`) takes of these what is there. Returns its folder.

    Raises UserError: unknown dataset, an archive that cannot be had, is damaged or another one, an
    image that fails a check, a full disk, a folder that cannot be written. Nothing is left then.
    """
    chosen = recipes.recipe(dataset, data)
    target = prepared.prepared_folder(dataset, data)
    with naming_the_path(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.parent / f".{dataset}.lock", dataset):
            if not force and _is_current(target, chosen, data):
                used = (prepared.read_selfcheck(target) or {}).get("archives", {})
                more = [one for one in chosen.optional if one.name not in used]
                failed = _optional(more, data, mirror, fetch=optional)
                if len(failed) == len(more):
                    if optional:
                        _note(target, failed)
                    return target
            without: dict[str, str] = {}
            if chosen.archives:
                _fetch(dataset, chosen, data, mirror)
                without = _optional(chosen.optional, data, mirror, fetch=optional)
            check = _put(target, chosen, data, without)
            if chosen.archives:
                expected.keep_first(target, check, chosen.stated())
                for archive in (*chosen.archives, *chosen.optional):
                    if archive.name in check["archives"]:
                        receipts.confirm_first(archive, data)
    return target


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from cliptrase.data.fetch.download import log_progress, take_mirror

    words, mirror = take_mirror(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="cliptrase prepare", description="Prepare a dataset: data/prepared/DATASET."
    )
    known = ", ".join(("shapes", "shapes_clean", *recipes.ARCHIVED))
    parser.add_argument("dataset", metavar="DATASET", help=known)
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument("--force", action="store_true", help="make it again where it exists")
    parser.add_argument("--mirror", metavar="URL", help="a server that has all archives")
    parser.add_argument(
        "--without-optional",
        action="store_true",
        help="do not fetch what it can do without (of coco: the list of images of coco27)",
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="as many as cores, 4 at most")
    options = parser.parse_args(words)
    log_progress()
    try:
        with at_most(options.threads):
            folder = prepare(
                options.dataset,
                options.data,
                force=options.force,
                mirror=options.mirror or mirror,
                optional=not options.without_optional,
            )
    except KeyboardInterrupt:
        sys.stderr.write(
            "stopped; another run fetches on where this one was, and prepares afresh\n"
        )
        raise SystemExit(130) from None
    check = prepared.read_selfcheck(folder) or {}
    sys.stdout.write(f"{folder}: {check.get('count')} samples\n")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _fetch(dataset: str, chosen: Recipe, data: Path | str, mirror: str | None) -> None:
    """Bring and check the archives that it cannot do without."""
    from cliptrase.data.fetch import download  # httpx: only where something is fetched

    if mirror_of(mirror) is None:
        gated = [one for one in chosen.archives if one.gated and not raw_path(one, data).is_file()]
        if gated:
            ways = "; ".join(how_to_get(one, data) for one in gated)
            raise UserError(f"{dataset}: everybody has to ask for its archives: {ways}")
    for archive in chosen.archives:
        download.fetch(archive, data, mirror=mirror)


def _optional(
    archives: Iterable[Archive], data: Path | str, mirror: str | None, *, fetch: bool
) -> dict[str, str]:
    """Bring and check archives; name → why it cannot be had, of those that cannot.

    Without `fetch` only those that are there count as asked for.
    """
    from cliptrase.data.fetch import download

    without = {}
    for archive in archives:
        if not fetch and not raw_path(archive, data).is_file():
            without[archive.name] = "it was not asked for"
            continue
        try:
            download.fetch(archive, data, mirror=mirror)
        except UserError as error:
            without[archive.name] = str(error)
    return without


def _note(target: Path, failed: dict[str, str]) -> None:
    """Keep in the self-check why it is still without optional archives."""
    check = prepared.read_selfcheck(target) or {}
    known = check.get("without", {})
    if known != known | failed:
        _write(target, check | {"without": known | failed})
    for name, reason in failed.items():
        _log.warning("%s: still without %s: %s", target.name, name, reason)


def _put(target: Path, chosen: Recipe, data: Path | str, without: dict[str, str]) -> dict[str, Any]:
    """Make a dataset beside its place and put it there, whole; its self-check."""
    for left_over in target.parent.glob(f".{target.name}.[0-9]*"):
        shutil.rmtree(left_over)
    making = target.parent / f".{target.name}.{os.getpid()}"
    try:
        check = _make(making, target, chosen, data, without)
        _replace(making, target)
    except UserError as error:
        for archive in chosen.archives:  # a foreign one must not stand against the right one
            receipts.forget_first(archive, data)
        raise UserError(_with_cure(str(error), target.name, chosen, data)) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return check


def _with_cure(fault: str, dataset: str, chosen: Recipe, data: Path | str) -> str:
    """A message with the dataset's name before it, and after it what to delete for another try."""
    text = fault if fault.startswith((f"{dataset}:", f"{dataset},")) else f"{dataset}: {fault}"
    if not chosen.archives:
        return text
    paths = ", ".join(str(raw_path(archive, data)) for archive in chosen.archives)
    where = "" if Path(data) == Path("data") else f" --data {data}"
    return (
        f"{text}; if the archives are at fault, delete {paths} and run `cliptrase prepare "
        f"{dataset}{where}` again"
    )


def _make(
    folder: Path, target: Path, chosen: Recipe, data: Path | str, without: dict[str, str]
) -> dict[str, Any]:
    """Everything into a folder; its self-check. `without`: as `_optional` says, more is added."""
    folder.mkdir()
    dataset, arrow = target.name, folder / prepared.ARROW
    values = expected.ranges(dataset, chosen.expected)
    expected.shares(dataset, chosen.expected)  # said before all is made if it is no list
    progress = tqdm(
        chosen.records(), desc=dataset, total=chosen.count, unit=" images", disable=None
    )
    prepared.write_arrow(arrow, progress)
    with open(arrow, "rb") as file:
        os.fsync(file.fileno())
    samples = prepared.PreparedSamples(folder, dataset)
    check = prepared.self_check(samples, values)
    if check["count"] != chosen.count:
        fault = f"{dataset}: {check['count']} samples instead of {chosen.count}"
        if chosen.archives:
            fault += f", the `count:` of {dataset} in {sources_path(data)}; is that right?"
        raise UserError(fault)
    expected.check_ids(dataset, samples.ids, chosen.ids())
    if chosen.archives:
        expected.check(dataset, chosen.expected, check)
        expected.check_first(target, check, chosen.stated())
    subsets = _subsets(folder, chosen, samples.ids, data, without)
    for name, reason in without.items():
        _log.warning("%s: without %s: %s", dataset, name, reason)
    if chosen.archives:
        digests = _digests(chosen, data)
        check["archives"] = {name: digests[name] for name in digests if name not in without}
        check |= {"stated": chosen.stated(check["archives"])}
        check |= {"subsets": subsets, "without": without}
    check |= {
        "dataset": dataset,
        "sums_sha256": prepared.write_sums(folder, samples),
        "recipe_sha256": chosen.digest(),
        "arrow_bytes": arrow.stat().st_size,
    }
    _write(folder, check)
    return check


def _write(folder: Path, check: dict[str, Any]) -> None:
    write_json(folder / prepared.SELFCHECK, check)


def _subsets(
    folder: Path, chosen: Recipe, ids: list[str], data: Path | str, without: dict[str, str]
) -> dict[str, str]:
    """Write the lists of ids of the optional archives; the sha256 of each.

    An archive that is at fault joins `without`: it costs its own lists alone.
    """
    written = {}
    for archive in chosen.optional:
        if archive.name in without:
            continue
        try:
            found = chosen.subsets(ids, archive)
        except UserError as error:
            without[archive.name] = str(error)
            receipts.forget_first(archive, data)
            continue
        for name, part in found.items():
            path = folder / prepared.SUBSETS / f"{name}.txt"
            with atomic_write(path, "w") as text:
                text.writelines(f"{one}\n" for one in part)
            written[name] = sha256_file(path)
    return written


def _is_current(target: Path, chosen: Recipe, data: Path | str) -> bool:
    """Whether a dataset is whole, of this code and these sources, of the archives there now.

    An archive that was deleted since, as large ones are, asks for nothing.
    """
    check = prepared.read_selfcheck(target)
    if check is None or chosen.outdated(check) or check.get("count") != chosen.count:
        return False
    known = check.get("archives", {})
    if known != known | _digests(chosen, data):
        return False
    subsets = {
        target / prepared.SUBSETS / f"{k}.txt": v for k, v in check.get("subsets", {}).items()
    }
    if not all(path.is_file() and sha256_file(path) == digest for path, digest in subsets.items()):
        return False
    arrow = target / prepared.ARROW
    return arrow.is_file() and arrow.stat().st_size == check.get("arrow_bytes")


def _digests(chosen: Recipe, data: Path | str) -> dict[str, str]:
    """Name → sha256 of the archives that are there and checked, by their receipts."""
    found = {}
    for archive in (*chosen.archives, *chosen.optional):
        receipt = receipts.read_receipt(archive, data) or {}
        if "sha256" in receipt:
            found[archive.name] = str(receipt["sha256"])
    return found


def _replace(made: Path, target: Path) -> None:
    """Put a whole folder in the place of another, or of none."""
    if target.exists():
        old = made.with_name(f"{made.name}.old")
        os.replace(target, old)
        os.replace(made, target)
        shutil.rmtree(old)
    else:
        os.replace(made, target)


if __name__ == "__main__":
    main()
