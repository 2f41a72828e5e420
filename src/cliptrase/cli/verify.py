"""`cliptrase verify`: which archives and prepared datasets there are, and whether they are whole.

Nothing is fetched, written or repaired.
"""

import argparse
from functools import partial
from pathlib import Path

from cliptrase.config import files
from cliptrase.config.backbones import WEIGHTS, described, read_backbone
from cliptrase.config.method import WrittenBackbone
from cliptrase.data.fetch.receipts import State, free_space, state, to_fetch
from cliptrase.data.fetch.sources import (
    Archive,
    Sources,
    how_to_get,
    raw_path,
    read_sources,
    readable,
    size_of,
)
from cliptrase.errors import UserError, counted, nearest
from cliptrase.files import user_path

_say = partial(print, flush=True)
HELP = "say which archives and prepared datasets are there, whole, damaged or missing"
EPILOG = (
    "Without NAME: every archive of conf/sources.yaml (or <data>/sources.yaml), every network of "
    "conf/backbone, every prepared dataset, the free space and what is still to fetch; exit code 1 "
    "where something is damaged (what is only missing is none). With NAME: exit code 1 where one "
    "of them is not complete; a dataset is complete when it is prepared and none of its archives "
    "is damaged."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, add = EPILOG, parser.add_argument
    add("names", nargs="*", metavar="NAME", help="archive file, network or dataset (default: all)")
    add("--data", type=user_path, default=Path("data"), help="data folder (data)")
    quick = "believe sizes, receipts and self-checks; else every file is read"
    add("--quick", action="store_true", help=quick)


def run(args: argparse.Namespace) -> None:
    """One line an archive or dataset. Raises UserError for the faults, once all were looked at."""
    sources, data, deep = read_sources(args.data), args.data, not args.quick
    prepared = _prepared(data)
    needed = {one.name for dataset in sources.datasets.values() for one in dataset.needed()}
    states, faults = list[State](), list[str]()
    for item in _asked(args.names, sources, prepared):
        if isinstance(item, WrittenBackbone):
            faults += _network(item, deep=deep, named=item.label in args.names)
            continue
        if isinstance(item, str):
            faults += _dataset(item, data, deep=deep)
            continue
        found = state(item, data, deep=deep)
        states.append(found)
        _say(_line(found, data) + (", optional" if item.name not in needed else ""))
        if found.status == "damaged" or (item.name in args.names and found.status != "complete"):
            faults.append(_fault(found, data))
    if not args.names:
        if not prepared:
            _say("no prepared dataset; make one with `cliptrase prepare shapes`")
        _say(_space(states, data))
        _say(_weights())
    if faults:
        raise UserError("; ".join(dict.fromkeys(faults)))


def _asked(
    names: list[str], sources: Sources, prepared: list[str]
) -> list[Archive | WrittenBackbone | str]:
    """Archives, networks and names of datasets: those of the command line, a dataset after its
    archives.

    Raises UserError for a name that is neither. Without any name: everything.
    """
    networks = {label: read_backbone(label) for label in files.names("backbone")}
    if not names:
        return [*sources.archives.values(), *networks.values(), *prepared]
    asked = list[Archive | WrittenBackbone | str]()
    known = {"shapes", "shapes_clean", *prepared, *sources.datasets, *networks}
    for name in names:
        if name in networks:
            asked.append(networks[name])
            continue
        if name in sources.archives:
            asked.append(sources.archives[name])
            continue
        if name not in known:
            hint = nearest(name, known | sources.archives.keys())
            raise UserError(f"unknown dataset, archive or network {name!r}; {hint}")
        if dataset := sources.datasets.get(name):
            asked += [*dataset.needed(), *dataset.optional.values()]
        asked.append(name)
    return asked


def _line(found: State, data: Path) -> str:
    name, there = found.archive.name, readable(found.bytes_there)
    match found.status:
        case "complete":
            return f"{name}: complete, {there}, {found.message}"
        case "unverified":
            return f"{name}: present but never checked, {there}, {found.message}"
        case "damaged":
            return f"{name}: damaged, {there}, {found.message}"
        case "partial":
            return f"{name}: partial, {there} of {size_of(found.archive)}"
    if found.archive.gated:
        how = how_to_get(found.archive, data)
        return f"{name}: gated and missing, {size_of(found.archive)}; {how}"
    return f"{name}: missing, {size_of(found.archive)}"


def _fault(found: State, data: Path) -> str:
    """What keeps an archive from being complete, and the cure."""
    reasons = {"unverified": "never checked", "partial": "not whole yet", "missing": "missing"}
    reason = reasons.get(found.status, found.message)
    return f"{raw_path(found.archive, data)}: {reason}; {_cure(found, data)}"


def _cure(found: State, data: Path) -> str:
    archive, path = found.archive, raw_path(found.archive, data)
    if path.is_dir():
        return "move it away"
    if archive.urls or found.status == "unverified":
        return f"run `python -m cliptrase.data.fetch.download {archive.name} --data {data}`"
    return how_to_get(archive, data)


def _network(written: WrittenBackbone, *, deep: bool, named: bool) -> list[str]:
    """Say where the weights of a network beside CLIP are; else why they are not."""
    from cliptrase.model.hub import folder_of, is_cached

    network = described(written.label)
    if not is_cached(network):
        how = f"from {network.repo} of the hub, by the first pass that needs it"
        if written.gated:
            how = "of the hub, gated: accept its licence there, or read a folder with "
            how += f"method.{network.role}=local-dir:DIR"
        _say(f"{network.label}: missing, {readable(written.bytes or 0)} {how}")
        missing = f"{network.label}: missing; run `python -m cliptrase.model.receipt "
        return [f"{missing}{network.label} data/weights/{network.label}.json`"] if named else []
    try:
        folder = folder_of(network) if deep or network.path else None
    except UserError as error:
        return [str(error)]
    size = written.bytes or (folder / WEIGHTS).stat().st_size if folder else written.bytes
    _say(f"{network.label}: complete, {readable(size or 0)}")
    return []


def _dataset(name: str, data: Path, *, deep: bool) -> list[str]:
    """Say that a prepared dataset is complete; else why it is not."""
    from cliptrase.data.read import prepared  # numpy and PIL: not for --help

    try:
        opened = prepared.open_prepared
        count = prepared.verify_prepared(name, data)["count"] if deep else len(opened(name, data))
    except UserError as error:
        return [str(error)]
    _say(f"{name}: complete, {counted(count, 'sample')}")
    return []


def _prepared(data: Path) -> list[str]:
    folders = (data / "prepared").glob("*")
    return sorted(path.name for path in folders if path.is_dir() and path.name[0] != ".")


def _space(states: list[State], data: Path) -> str:
    """How much is free, and how much is still to fetch."""
    absent = [one for one in states if one.status in ("missing", "partial")]
    fetched = [one for one in absent if not one.archive.gated]
    needed, words = to_fetch(fetched)
    by_hand = f"{len(absent) - len(fetched)} gated by hand" if len(absent) > len(fetched) else ""
    wanted = ", ".join(filter(None, (words, by_hand))) or "nothing"
    there = free_space(data)
    short = ": NOT ENOUGH" if needed > there else ""
    return f"free on the disk of {data}: {readable(there)}; to fetch: {wanted}{short}"


def _weights() -> str:
    """The same of the networks of conf/backbone, on the disk of the hub's cache."""
    from cliptrase.model.hub import is_cached
    from cliptrase.model.receipt import cache

    networks = [read_backbone(label) for label in files.names("backbone")]
    absent = [each for each in networks if not is_cached(described(each.label))]
    fetched = [each.bytes or 0 for each in absent if not each.gated]
    by_hand = f", {len(absent) - len(fetched)} gated by hand" if len(absent) > len(fetched) else ""
    needed, there = sum(fetched), free_space(cache())
    short = ": NOT ENOUGH" if needed > there else ""
    wanted = f"about {readable(needed)}" if needed else "nothing"
    return f"free for networks in {cache()}: {readable(there)}; to fetch: {wanted}{by_hand}{short}"
