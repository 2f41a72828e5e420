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
from cliptrase.data.fetch.transfer import Policy, Unavailable, discard, transfer
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import naming_the_path

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
    job = _Fetch(archive, Path(data), mirror_of(mirror), policy or Policy())
    with naming_the_path(job.target.parent):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    with alone(job.target.with_name(f".{archive.name}.lock"), archive.name):
        receipt = job.check_present() or job.download()
        discard(job.part)
        write_receipt(archive, data, receipt)
    return job.target


@contextlib.contextmanager
def alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock, which ends with the process. Another process that wants `name` logs and waits.

    Raises UserError naming a file that cannot be written.
    """
    lock = FileLock(path, fallback_to_soft=False)
    with naming_the_path(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOG.info("%s: another process is at it; waiting", name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """A command line with --data and --mirror, also as data.mirror=URL; then shows progress."""
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument("--mirror", metavar="URL", help="a server that has all archives")
    words = sys.argv[1:] if arguments is None else arguments
    words = [re.sub(r"^data\.mirror=", "--mirror=", word) for word in words]
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
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
    options = parsed(parser, arguments)
    sources = read_sources(options.data)
    for archive in [sources.archive(name) for name in options.names]:
        try:
            path = fetch(archive, options.data, mirror=options.mirror)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; another run goes on where this one was\n")
            raise SystemExit(130) from None
        sys.stdout.write(f"{path}: complete, {readable(path.stat().st_size)}\n")


class _Fetch:
    """The work on one archive."""

    def __init__(self, archive: Archive, data: Path, mirror: str | None, policy: Policy) -> None:
        self.archive, self.data, self.mirror, self.policy = archive, data, mirror, policy
        self.target, self.part = raw_path(archive, data), part_path(archive, data)
        self.urls = (f"{mirror}/{archive.name}",) if mirror else archive.urls

    def check_present(self) -> Receipt | None:
        """Check the file that has the archive's name; None where it must be fetched.

        Raises UserError for a damaged one that cannot be fetched.
        """
        receipt = receipt_path(self.archive, self.data)
        if self.target.is_dir():
            raise UserError(
                f"{self.target}: a folder stands where the archive belongs; move it away"
            )
        if not self.target.exists():
            receipt.unlink(missing_ok=True)
            return None
        try:
            return check(self.target, self.archive, self.data)
        except Damaged as fault:
            receipt.unlink(missing_ok=True)  # it is not true any more
            if not self.urls:
                way = how_to_get(self.archive, self.data)
                raise UserError(f"{self.target}: {fault}. Get it again: {way}") from None
            LOG.warning("%s: %s; it is fetched again", self.target, fault)
            return None
        except OSError as error:
            raise UserError(f"{self.target}: cannot be read ({error.strerror})") from error

    def download(self) -> Receipt:
        """Fetch, check and put into place. Raises UserError naming every address and its fault."""
        way = how_to_get(self.archive, self.data)
        gated = self.archive.gated
        cure = f"Its owner alone gives it: {way}" if gated else way[:1].upper() + way[1:]
        if not self.urls:
            raise UserError(f"{self.target}: missing. {cure}")
        faults = []
        for url in self.urls:
            try:
                receipt = self._from(url)
            except Unavailable as fault:
                faults.append(f"{url}: {fault}")
                LOG.warning("%s: %s: %s", self.archive.name, url, fault)
                continue
            with naming_the_path(self.target):
                os.replace(self.part, self.target)
            return receipt
        size = size_of_part(self.part)
        kept = f" ({readable(size)} are kept; another run goes on from there)" if size else ""
        reason = "; ".join(faults)
        if self.mirror:
            reason = f"the mirror does not give it: {reason}"
        raise UserError(f"{self.archive.name} could not be fetched{kept}: {reason}. {cure}")

    def _from(self, url: str) -> Receipt:
        """The archive as `part`, checked. If a continued one is wrong, it is fetched anew once."""
        published = self.archive.checksum is not None
        checkable = published or read_first(self.archive, self.data) is not None
        again = False
        while True:
            continued = transfer(url, self.part, self.archive, self.policy, checkable=checkable)
            try:
                return {**check(self.part, self.archive, self.data), "url": url}
            except Damaged as fault:
                discard(self.part)
                if again or not continued:
                    raise Unavailable(str(fault)) from fault
                again = True
                LOG.warning("%s: %s; from the first byte again", self.archive.name, fault)


if __name__ == "__main__":
    main()
