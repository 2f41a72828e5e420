"""Prepare a dataset: `python -m cliptrase.data.make.prepare DATASET [--data data]`.

Archives that are not there are fetched first. The dataset is made in a folder beside its place, and
renamed once it is whole and checked: after a kill there is a whole dataset or none. Its lists of
ids follow; the next time adds those that are missing.
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
from cliptrase.data.read.selfcheck import prepared_folder, read_selfcheck, write_selfcheck
from cliptrase.errors import UserError, counted, exit_on_user_error
from cliptrase.files import naming_the_path, sha256_file, write_text
from cliptrase.machine import positive

LOG = logging.getLogger(__name__)


def prepare(
    dataset: str,
    data: Path | str = "data",
    *,
    force: bool = False,
    mirror: str | None = None,
    optional: bool = True,
    folders: Path | str | Sequence[Path | str] = (),
) -> Path:
    """Make a dataset below the data folder, unless it is there, whole and of this code: that one
    may be on a disk that is read only.

    Fetches the archives that it needs, from `mirror` where one is given, and the optional ones too;
    without `optional` it takes those of them that are there. If `folders` are given (or one), to
    which the archives were extracted, it reads those and fetches nothing. Returns the folder of the
    dataset.

    Raises UserError, and leaves no half of a dataset: unknown dataset, an archive that cannot be
    had, is damaged or another one, an image that fails a check, a full disk, a folder that cannot
    be written.
    """
    recipe = recipes.recipe(dataset, data, folders)
    target = prepared_folder(dataset, data)
    if not force and _complete(target, recipe, optional):
        return target
    with naming_the_path(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with download.alone(target.parent / f".{dataset}.lock", dataset):
            if force or not _is_current(target, recipe):
                if not recipe.folders:
                    _fetch(recipe, mirror)
                _put(target, recipe)
            _add_lists(target, recipe, mirror, fetch=optional)
    return target


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cliptrase prepare`."""
    parser.add_argument("--force", action="store_true", help="make it again where it exists")
    parser.add_argument(
        "--without-optional",
        dest="optional",
        action="store_false",
        help="do not fetch what it can do without (of coco: the list of images of coco27)",
    )
    parser.add_argument(
        "--from",
        dest="folders",
        metavar="FOLDER",
        action="append",
        default=[],
        help="where its archives are extracted already, to read instead of fetching them; may be "
        "given several times",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="as many as cores, 4 at most")
    download.add_places(parser)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cliptrase prepare", description="Prepare a dataset: data/prepared/DATASET."
    )
    names = ", ".join((*recipes.DRAWN, *read_sources().datasets))
    parser.add_argument("dataset", metavar="DATASET", help=names)
    add_options(parser)
    options = vars(download.parsed(parser, arguments))
    with at_most(options.pop("threads")):
        folder = prepare(**options)
    check = read_selfcheck(folder) or {}
    sys.stdout.write(f"{folder}: {counted(check.get('count', 0), 'sample')}\n")


def _fetch(recipe: Recipe, mirror: str | None) -> None:
    """Fetch the archives that a dataset needs. Raises UserError for those that cannot be had."""
    if recipe.source and mirror_of(mirror) is None:
        gated = missing_gated(recipe.source, recipe.data)
        if gated:
            name = recipe.source.name
            ways = "; ".join(how_to_get(archive, recipe.data) for archive in gated)
            raise UserError(
                f"{name}: everybody has to ask for its archives: {ways}. If they are extracted "
                f"already: `cliptrase prepare {name} --from FOLDER`"
            )
    for archive in recipe.archives:
        download.fetch(archive, recipe.data, mirror=mirror)


def _add_lists(target: Path, recipe: Recipe, mirror: str | None, *, fetch: bool) -> None:
    """Add to a dataset the lists of ids of the optional archives that it was made without.

    They are fetched if `fetch` is set and the dataset is made from archives; folders may have them
    too. Why one cannot be had is logged and kept: only its own lists are lost.
    """
    before = read_selfcheck(target) or {}
    lacking = [each for each in recipe.optional if each.name not in before.get("archives", {})]
    if not lacking:
        return
    check, earlier = before.copy(), before["without"]
    check["without"] = {}
    ids = prepared.PreparedSamples(target).ids
    for archive in lacking:
        path = raw_path(archive, recipe.data)
        try:
            if path.is_file() or (fetch and not recipe.folders):
                download.fetch(archive, recipe.data, mirror=mirror)
            elif not recipe.folders:
                raise UserError(earlier.get(archive.name, "it was not asked for"))
            lists = recipe.subsets(ids, archive)
        except UserError as error:
            check["without"][archive.name] = str(error)
            LOG.warning("%s: without %s: %s", target.name, archive.name, error)
            continue
        for name, subset in lists.items():
            file = target / prepared.SUBSETS / f"{name}.txt"
            write_text(file, "".join(f"{id}\n" for id in subset))
            check["subsets"] = {**check["subsets"], name: sha256_file(file)}
        digests = _digests([archive], recipe.data) if path.is_file() else {archive.name: None}
        check["archives"] = {**check["archives"], **digests}
    check["stated"] = recipe.stated(check["archives"])
    if check != before:
        write_selfcheck(target, check)


def _put(target: Path, recipe: Recipe) -> None:
    """Make a dataset beside its place and put it there, whole."""
    for leftover in target.parent.glob(f".{target.name}.[0-9]*"):
        shutil.rmtree(leftover)
    folder = target.parent / f".{target.name}.{os.getpid()}"
    try:
        _make(folder, target.name, recipe)
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
    where = "" if recipe.data == Path("data") else f" --data {recipe.data}"
    if recipe.folders:
        names = " and ".join(archive.name for archive in recipe.archives)
        given = "".join(f" --from {folder}" for folder in recipe.folders)
        return (
            f"{text}; if these files are at fault, extract {names} again and run `cliptrase "
            f"prepare {dataset}{given}{where}` again"
        )
    paths = ", ".join(str(raw_path(archive, recipe.data)) for archive in recipe.archives)
    if any(receipts.first_path(archive, recipe.data).exists() for archive in recipe.archives):
        paths += " with what is called *.first.json beside it"
    return (
        f"{text}; if the archives are at fault, delete {paths} and run `cliptrase prepare "
        f"{dataset}{where}` again"
    )


def _make(folder: Path, dataset: str, recipe: Recipe) -> None:
    """Write all files of a dataset into a folder, but the lists of ids, and check them."""
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
        raise UserError(f"{dataset}: {counted(check['count'], 'sample')} instead of {recipe.count}")
    if recipe.source:
        check_figures(recipe.source, check)
        check["subsets"], check["without"] = {}, {}
        if recipe.folders:
            check["archives"] = dict.fromkeys(archive.name for archive in recipe.archives)
        else:
            check["archives"] = {**_digests(recipe.archives, recipe.data)}
        check["stated"] = recipe.stated(check["archives"])
    check["dataset"] = dataset
    check["sums_sha256"] = samples.write_sums()
    check["recipe_sha256"] = recipe.digest()
    check["arrow_bytes"] = arrow.stat().st_size
    write_selfcheck(folder, check)


def _is_current(target: Path, recipe: Recipe) -> bool:
    """Whether a dataset is there, whole, of this code, these sources and these archives.

    An archive that was deleted since, as large ones are, does not count, nor one that was extracted
    already when the dataset was made.
    """
    check, data = read_selfcheck(target), target.parent.parent
    if check is None or recipe.outdated(check):
        return False
    used = check.get("archives", {})
    now = _digests([*recipe.archives, *recipe.optional], recipe.data)
    if any(used.get(name) not in (None, sha256) for name, sha256 in now.items()):
        return False
    try:
        prepared.open_prepared(target.name, data)
        for name in check.get("subsets", {}):
            prepared.read_subset(target.name, name, data)
    except UserError:
        return False
    return True


def _complete(target: Path, recipe: Recipe, optional: bool) -> bool:
    """Whether a dataset is current and has of the optional archives what can be had: those that are
    there, or with `optional` all."""
    used = (read_selfcheck(target) or {}).get("archives", {})
    unused = (archive for archive in recipe.optional if archive.name not in used)
    asked = optional or bool(recipe.folders)
    more = any(asked or raw_path(archive, recipe.data).is_file() for archive in unused)
    return _is_current(target, recipe) and not more


def _digests(archives: Iterable[Archive], data: Path | str) -> dict[str, str]:
    """Name → sha256 of the archives that were checked, by their receipts."""
    pairs = ((archive, receipts.read_receipt(archive, data) or {}) for archive in archives)
    return {archive.name: receipt["sha256"] for archive, receipt in pairs if "sha256" in receipt}


if __name__ == "__main__":
    main()
