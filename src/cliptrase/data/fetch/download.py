"""Fetch an archive: `python -m cliptrase.data.fetch.download NAME [--data data] [--mirror URL]`.

It grows as `<data>/raw/.<name>.part` and gets its name once it is whole and checked. After a kill
the next run goes on where this one stopped.
"""

import argparse
import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from cliptrase.data.fetch.receipts import (
    Damaged,
    Receipt,
    check,
    part_path,
    read_first,
    size_of_part,
    write_receipt,
)
from cliptrase.data.fetch.sources import (
    Archive,
    how_to_get,
    mirror_of,
    raw_path,
    read_sources,
    readable,
    receipt_path,
)
from cliptrase.data.fetch.transfer import (
    Policy,
    Unavailable,
    discard,
    transfer,
    url_of_whole,
)
from cliptrase.errors import UserError, exit_on_user_error, start_log
from cliptrase.files import naming_the_path, user_path

LOG = logging.getLogger(__name__)


def fetch(
    archive: Archive,
    data: Path | str = "data",
    *,
    mirror: str | None = None,
    policy: Policy | None = None,
) -> Path:
    """The archive below the data folder, whole and checked; fetched unless it is there.

    mirror: a server that has all archives, `mirror/<name>`; it takes the place of their urls, also
    of those that are gated (None: the environment's CLIPTRASE_MIRROR). Other processes that want
    the same archive wait for this one. Raises UserError naming the file, the address, the reason
    and the cure.
    """
    data, server = Path(data), mirror_of(mirror)
    urls = (f"{server}/{archive.name}",) if server else archive.urls
    target = raw_path(archive, data)
    with naming_the_path(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target.with_name(f".{archive.name}.lock"), archive.name):
        receipt, wrong = _check_present(archive, data, fetchable=bool(urls))
        if receipt is None:
            blame = "the mirror does not give it: " if server else ""
            try:
                receipt = _download(archive, data, urls, policy or Policy(), blame)
            except UserError as error:
                raise UserError(f"{target}: {wrong}; {error}" if wrong else str(error)) from error
        write_receipt(archive, data, receipt)
        discard(part_path(archive, data))
    return target


@contextlib.contextmanager
def alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock, which ends with the process. Another process that wants `name` logs and waits.

    Raises UserError naming a file that cannot be written.
    """
    lock = FileLock(path, fallback_to_soft=False)
    with naming_the_path(path):
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            LOG.info("%s: another process is at it; waiting", name)
            held = lock.acquire()
    with held:
        yield


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where archives come from and go: --data and --mirror."""
    parser.add_argument("--data", type=user_path, default=Path("data"), help="data folder (data)")
    parser.add_argument("--mirror", metavar="URL", help="a server that has all archives")


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """A command line with `add_places`, also as data.mirror=URL; then shows progress."""
    words = sys.argv[1:] if arguments is None else arguments
    words = [re.sub(r"^data\.mirror=", "--mirror=", word) for word in words]
    start_log("%(message)s")
    logging.getLogger("cliptrase").setLevel(logging.INFO)
    return parser.parse_intermixed_args(words)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cliptrase.data.fetch.download",
        description="Fetch archives of conf/sources.yaml into <data>/raw, or check those there.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="file names, see cliptrase verify")
    add_places(parser)
    options = parsed(parser, arguments)
    sources = read_sources(options.data)
    for archive in [sources.archive(name) for name in options.names]:
        try:
            path = fetch(archive, options.data, mirror=options.mirror)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; another run goes on where this one was\n")
            raise SystemExit(130) from None
        sys.stdout.write(f"{path}: complete, {readable(path.stat().st_size)}\n")


def _check_present(archive: Archive, data: Path, *, fetchable: bool) -> tuple[Receipt | None, str]:
    """Check the file that has the archive's name: its receipt, None where it must be fetched, and
    what is wrong with it.

    Raises UserError for a damaged one that cannot be fetched.
    """
    target, receipt = raw_path(archive, data), receipt_path(archive, data)
    if target.is_dir():
        raise UserError(f"{target}: a folder stands where the archive belongs; move it away")
    if not target.exists():
        receipt.unlink(missing_ok=True)
        return None, ""
    try:
        url = url_of_whole(part_path(archive, data))
        return {**check(target, archive, data), "url": url}, ""
    except Damaged as fault:
        receipt.unlink(missing_ok=True)  # it is not true any more
        if not fetchable:
            way = how_to_get(archive, data)
            raise UserError(f"{target}: {fault}. Get it again: {way}") from None
        LOG.warning("%s: %s; it is fetched again", target, fault)
        return None, str(fault)
    except OSError as error:
        raise UserError(f"{target}: cannot be read ({error.strerror})") from error


def _download(
    archive: Archive, data: Path, urls: Sequence[str], policy: Policy, blame: str
) -> Receipt:
    """Fetch, check and put into place. Raises UserError naming every address and its fault."""
    target, part = raw_path(archive, data), part_path(archive, data)
    way = how_to_get(archive, data)
    cure = f"Its owner alone gives it: {way}" if archive.gated else way[:1].upper() + way[1:]
    if not urls:
        raise UserError(f"{target}: missing. {cure}")
    faults = []
    for url in urls:
        try:
            receipt = _from(url, archive, data, policy)
        except Unavailable as fault:
            faults.append(f"{url}: {fault}")
            if url != urls[-1]:
                LOG.warning("%s: %s: %s; the next address is tried", archive.name, url, fault)
            continue
        with naming_the_path(target):
            os.replace(part, target)
        return receipt
    size = size_of_part(part)
    kept = f" ({readable(size)} are kept; another run goes on from there)" if size else ""
    reason = blame + "; ".join(faults)
    raise UserError(f"{archive.name} could not be fetched{kept}: {reason}. {cure}")


def _from(url: str, archive: Archive, data: Path, policy: Policy) -> Receipt:
    """The archive as its part, checked. If a continued one is wrong, it is fetched anew once."""
    part = part_path(archive, data)
    checkable = archive.checksum is not None or read_first(archive, data) is not None
    again = False
    while True:
        continued = transfer(url, part, archive, policy, checkable=checkable)
        try:
            return {**check(part, archive, data), "url": url}
        except Damaged as fault:
            discard(part)
            if again or not continued:
                raise Unavailable(str(fault)) from fault
            again = True
            LOG.warning("%s: %s; from the first byte again", archive.name, fault)


if __name__ == "__main__":
    main()
