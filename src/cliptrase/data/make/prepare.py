"""Prepare a dataset: `python -m cliptrase.data.make.prepare DATASET [--data data]`.

Archives that are not there are fetched first. The dataset is made in a folder beside its place, and
renamed once it is whole and checked: after a kill there is a whole dataset or none.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from cliptrase.data.fetch import download, receipts
from cliptrase.data.fetch.sources import (
    Archive,
    how_to_get,
    mirror_of,
    missing_gated,
    raw_path,
    read_sources,
)
from cliptrase.data.make import recipes
from cliptrase.data.make.recipes import Recipe, check_figures
from cliptrase.data.read import prepared
from cliptrase.data.read.ordered import at_most
from cliptrase.data.read.selfcheck import SELFCHECK, SelfCheck, prepared_folder, read_selfcheck
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import atomic_write, naming_the_path, sha256_file, write_json
from cliptrase.machine import positive

LOG = logging.getLogger(__name__)


def prepare(
    dataset: str,
    data: Path | str = "data",
    *,
    force: bool = False,
    mirror: str | None = None,
    optional: bool = True,
) -> Path:
    """Make a dataset below the data folder, unless it is there, whole and of this code: that one
    may be on a disk that is read only.

    Fetches the archives that it needs, from `mirror` where one is given, and the optional ones too;
    without `optional` it takes those of them that are there. Returns its folder.

    Raises UserError, and leaves nothing: unknown dataset, an archive that cannot be had, is damaged
    or another one, an image that fails a check, a full disk, a folder that cannot be written.
    """
    recipe = recipes.recipe(dataset, data)
    target = prepared_folder(dataset, data)
    if not force and _complete(target, recipe, optional):
        return target
    with naming_the_path(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with download.alone(target.parent / f".{dataset}.lock", dataset):
            check = None if force else _current(target, recipe)
            if check is not None:
                used = check.get("archives", {})
                unused = [archive for archive in recipe.optional if archive.name not in used]
                without = _optional(dataset, unused, data, mirror, fetch=optional)
                if len(without) == len(unused):
                    if optional and without != check.get("without", {}):
                        write_json(target / SELFCHECK, {**check, "without": without})
                    return target
            if recipe.source and mirror_of(mirror) is None:
                gated = missing_gated(recipe.source, data)
                if gated:
                    ways = "; ".join(how_to_get(archive, data) for archive in gated)
                    raise UserError(f"{dataset}: everybody has to ask for its archives: {ways}")
            for archive in recipe.archives:
                download.fetch(archive, data, mirror=mirror)
            without = _optional(dataset, recipe.optional, data, mirror, fetch=optional)
            _put(target, recipe, without)
    return target


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cliptrase prepare", description="Prepare a dataset: data/prepared/DATASET."
    )
    names = ", ".join((*recipes.DRAWN, *read_sources().datasets))
    parser.add_argument("dataset", metavar="DATASET", help=names)
    parser.add_argument("--force", action="store_true", help="make it again where it exists")
    parser.add_argument(
        "--without-optional",
        dest="optional",
        action="store_false",
        help="do not fetch what it can do without (of coco: the list of images of coco27)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="as many as cores, 4 at most")
    options = vars(download.parsed(parser, arguments))
    with at_most(options.pop("threads")):
        folder = prepare(**options)
    check = read_selfcheck(folder) or {}
    sys.stdout.write(f"{folder}: {check.get('count')} samples\n")


def _optional(
    dataset: str, archives: Iterable[Archive], data: Path | str, mirror: str | None, *, fetch: bool
) -> dict[str, str]:
    """Fetch and check archives; name → reason, of those that cannot be had.

    Without `fetch` only those that are there are checked.
    """
    without = {}
    for archive in archives:
        try:
            if not fetch and not raw_path(archive, data).is_file():
                raise UserError("it was not asked for")
            download.fetch(archive, data, mirror=mirror)
        except UserError as error:
            without[archive.name] = str(error)
            LOG.warning("%s: without %s: %s", dataset, archive.name, error)
    return without


def _put(target: Path, recipe: Recipe, without: dict[str, str]) -> None:
    """Make a dataset beside its place and put it there, whole."""
    for leftover in target.parent.glob(f".{target.name}.[0-9]*"):
        shutil.rmtree(leftover)
    folder = target.parent / f".{target.name}.{os.getpid()}"
    try:
        _make(folder, target.name, recipe, without)
        old = folder.with_name(f"{folder.name}.old")
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
        shutil.rmtree(old, ignore_errors=True)
    except UserError as error:
        raise UserError(_with_cure(str(error), target.name, recipe)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_cure(fault: str, dataset: str, recipe: Recipe) -> str:
    """A message that begins with the dataset's name and ends with what to delete before a retry."""
    text = fault if fault.startswith((f"{dataset}:", f"{dataset},")) else f"{dataset}: {fault}"
    if not recipe.archives:
        return text
    paths = ", ".join(str(raw_path(archive, recipe.data)) for archive in recipe.archives)
    if any(receipts.first_path(archive, recipe.data).exists() for archive in recipe.archives):
        paths += " with what is called *.first.json beside it"
    where = "" if recipe.data == Path("data") else f" --data {recipe.data}"
    return (
        f"{text}; if the archives are at fault, delete {paths} and run `cliptrase prepare "
        f"{dataset}{where}` again"
    )


def _make(folder: Path, dataset: str, recipe: Recipe, without: dict[str, str]) -> None:
    """Write all files of a dataset into a folder, and check them.

    without: as `_optional` returns it; archives at fault are added.
    """
    folder.mkdir()
    arrow = folder / prepared.ARROW
    records = recipe.records()
    prepared.write_arrow(
        arrow, tqdm(records, desc=dataset, total=recipe.count, unit=" images", disable=None)
    )
    samples = prepared.PreparedSamples(folder, dataset)
    values = recipe.source.expected.label_values if recipe.source else None
    check = prepared.self_check(samples, values)
    if check["count"] != recipe.count:
        raise UserError(f"{dataset}: {check['count']} samples instead of {recipe.count}")
    if recipe.source:
        check_figures(recipe.source, check)
        check["subsets"] = _write_subsets(folder, dataset, recipe, samples.ids, without)
        used = [archive for archive in recipe.optional if archive.name not in without]
        check["archives"] = _digests([*recipe.archives, *used], recipe.data)
        check["stated"] = recipe.stated(check["archives"])
        check["without"] = without
    check["dataset"] = dataset
    check["sums_sha256"] = samples.write_sums()
    check["recipe_sha256"] = recipe.digest()
    check["arrow_bytes"] = arrow.stat().st_size
    write_json(folder / SELFCHECK, {**check})


def _write_subsets(
    folder: Path, dataset: str, recipe: Recipe, ids: list[str], without: dict[str, str]
) -> dict[str, str]:
    """Write the lists of ids of the optional archives; name → sha256.

    An archive at fault is added to `without`: only its own lists are lost.
    """
    digests = {}
    for archive in recipe.optional:
        if archive.name in without:
            continue
        try:
            subsets = recipe.subsets(ids, archive)
        except UserError as error:
            without[archive.name] = str(error)
            LOG.warning("%s: without %s: %s", dataset, archive.name, error)
            continue
        for name, subset in subsets.items():
            path = folder / prepared.SUBSETS / f"{name}.txt"
            with atomic_write(path, "w") as text:
                text.writelines(f"{id}\n" for id in subset)
            digests[name] = sha256_file(path)
    return digests


def _current(target: Path, recipe: Recipe) -> SelfCheck | None:
    """The self-check of a dataset that is whole, of this code, these sources and these archives.

    None for any other. An archive that was deleted since, as large ones are, does not count.
    """
    check, data = read_selfcheck(target), target.parent.parent
    if check is None or recipe.outdated(check):
        return None
    used = check.get("archives", {})
    if used != used | _digests([*recipe.archives, *recipe.optional], recipe.data):
        return None
    try:
        prepared.open_prepared(target.name, data)
        for name in check.get("subsets", {}):
            prepared.read_subset(target.name, name, data)
    except UserError:
        return None
    return check


def _complete(target: Path, recipe: Recipe, optional: bool) -> bool:
    """Whether a dataset is current and has of the optional archives what can be had: those that are
    there, or with `optional` all."""
    check = _current(target, recipe)
    used = {} if check is None else check.get("archives", {})
    unused = (archive for archive in recipe.optional if archive.name not in used)
    more = any(optional or raw_path(archive, recipe.data).is_file() for archive in unused)
    return check is not None and not more


def _digests(archives: Iterable[Archive], data: Path | str) -> dict[str, str]:
    """Name → sha256 of the archives that were checked, by their receipts."""
    pairs = ((archive, receipts.read_receipt(archive, data) or {}) for archive in archives)
    return {archive.name: receipt["sha256"] for archive, receipt in pairs if "sha256" in receipt}


if __name__ == "__main__":
    main()
