"""Fetch an archive: `python -m cliptrase.data.fetch.download NAME [--data data] [--mirror URL]`.

It grows as `<data>/raw/.<name>.part` and gets its name once it is whole and checked. After a kill
the next run goes on where this one stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cliptrase.data.fetch.lock import alone
from cliptrase.data.fetch.receipts import (
    Damaged,
    OtherChecksum,
    Receipt,
    State,
    check,
    part_path,
    read_first,
    state,
    write_receipt,
)
from cliptrase.data.fetch.sources import (
    MIRROR,
    Archive,
    how_to_get,
    is_web_address,
    mirror_of,
    raw_path,
    read_sources,
    readable,
    receipt_path,
    sources_path,
)
from cliptrase.data.fetch.transfer import (
    Policy,
    Unavailable,
    discard,
    need_space,
    size_of_part,
    transfer,
)
from cliptrase.errors import UserError, exit_on_user_error
from cliptrase.files import naming_the_path

__all__ = ["MIRROR", "Policy", "State", "fetch", "main", "state", "take_mirror"]

LOG = logging.getLogger(__name__)


def fetch(
    archive: Archive,
    data: Path | str = "data",
    *,
    mirror: str | None = None,
    progress: bool = True,
    policy: Policy | None = None,
) -> Path:
    """The archive below the data folder, whole and checked; fetched unless it is there.

    mirror: a server that has all archives, `mirror/<name>`; it takes the place of their urls, also
    of those that are gated (None: the environment's CLIPTRASE_MIRROR). Other processes that want
    the same archive wait for this one. Raises UserError naming the file, the address, the reason
    and the cure.
    """
    policy = policy or Policy()
    mirror = _mirror(mirror)
    urls = (f"{mirror}/{archive.name}",) if mirror else archive.urls
    target = raw_path(archive, data)
    with naming_the_path(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target.with_name(f".{archive.name}.lock"), archive.name):
        _tidy(target)
        checksums: list[str] = []  # of whole copies that are not the published file
        receipt, url = _check_present(archive, data, urls, checksums), None
        if receipt is None:
            receipt, url = _download(archive, data, urls, mirror, progress, policy, checksums)
        discard(part_path(archive, data))
        write_receipt(archive, data, receipt, url)
    return target


def log_progress() -> None:
    """Show the progress of downloads on stderr."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("cliptrase").setLevel(logging.INFO)


def take_mirror(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of a command line less `data.mirror=URL`, and that URL."""
    given = [word.partition("=")[2] for word in words if word.startswith("data.mirror=")]
    rest = [word for word in words if not word.startswith("data.mirror=")]
    return rest, given[-1] if given else None


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cliptrase.data.fetch.download",
        description="Fetch archives of conf/sources.yaml into <data>/raw, or check those there.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="file names, see cliptrase verify")
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument(
        "--mirror", metavar="URL", help="a server that has them all; also as data.mirror=URL"
    )
    words, mirror = take_mirror(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    log_progress()
    sources = read_sources(options.data)
    for archive in [sources.archive(name) for name in options.names]:
        try:
            path = fetch(archive, options.data, mirror=options.mirror or mirror)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; another run goes on where this one was\n")
            raise SystemExit(130) from None
        sys.stdout.write(f"{path}: complete, {readable(path.stat().st_size)}\n")


def _check_present(
    archive: Archive, data: Path | str, urls: Sequence[str], checksums: list[str]
) -> Receipt | None:
    """Check the file that has the archive's name; None where it must be fetched.

    Raises UserError for a damaged one that cannot be fetched.
    """
    target = raw_path(archive, data)
    if target.is_dir():
        raise UserError(f"{target}: a folder stands where the archive belongs; move it away")
    if not target.exists():
        receipt_path(archive, data).unlink(missing_ok=True)
        return None
    try:
        return check(target, archive, data)
    except Damaged as fault:
        receipt_path(archive, data).unlink(missing_ok=True)  # it is not true any more
        if isinstance(fault, OtherChecksum):
            checksums.append(fault.digits)
        if not urls:
            raise UserError(
                f"{target}: {fault}. Get it again: {how_to_get(archive, data)}"
                + _if_published_wrong(archive, data, checksums)
            ) from None
        LOG.warning("%s: %s; it is fetched again", target, fault)
        return None
    except OSError as error:
        raise UserError(f"{target}: cannot be read ({error.strerror}); see to the file") from error


def _download(
    archive: Archive,
    data: Path | str,
    urls: Sequence[str],
    mirror: str | None,
    progress: bool,
    policy: Policy,
    checksums: list[str],
) -> tuple[Receipt, str]:
    """Fetch, check and put into place; its receipt, and the address that gave it."""
    target, part = raw_path(archive, data), part_path(archive, data)
    way = how_to_get(archive, data)
    cure = f"Its owner alone gives it: {way}" if archive.gated else way[:1].upper() + way[1:]
    if not urls:
        raise UserError(f"{target}: missing. {cure}")
    if archive.bytes is not None:
        if size_of_part(part) > archive.bytes:
            discard(part)
        need_space(part.parent, archive.bytes - size_of_part(part), policy)
    faults = []
    for url in urls:
        try:
            receipt = _from(url, part, archive, data, progress, policy)
        except Unavailable as fault:
            faults.append(f"{url}: {fault}")
            if isinstance(fault.__cause__, OtherChecksum):
                checksums.append(fault.__cause__.digits)
            LOG.warning("%s: %s: %s", archive.name, url, fault)
            continue
        with naming_the_path(target):
            os.replace(part, target)
            _sync(part.parent)
        return receipt, url
    kept = size_of_part(part)
    rest = f" ({readable(kept)} are kept; another run goes on from there)" if kept else ""
    reason = "; ".join(faults)
    if mirror:
        lacks = "status 404" in reason or "status 410" in reason
        away = "no connection" in reason or "does not answer in time" in reason
        problem = "lacks it" if lacks else "cannot be reached" if away else "does not give it"
        reason = f"the mirror {problem}: {reason}"
    raise UserError(
        f"{archive.name} could not be fetched{rest}: {reason}. {cure}"
        + _if_published_wrong(archive, data, checksums)
    )


def _from(
    url: str, part: Path, archive: Archive, data: Path | str, progress: bool, policy: Policy
) -> Receipt:
    """The archive as `part`, checked. If a continued one is wrong, it is fetched anew once."""
    known = archive.checksum is not None or read_first(archive, data) is not None
    for last in (False, True):
        continued = transfer(url, part, archive, policy, known=known, progress=progress)
        try:
            return check(part, archive, data)
        except Damaged as fault:
            discard(part)
            if last or not continued:
                raise Unavailable(str(fault)) from fault
            LOG.warning("%s: %s; from the first byte again", archive.name, fault)
    raise AssertionError("the second round returns or raises")


def _tidy(target: Path) -> None:
    """Remove the half-written receipts of a killed process; its part is kept."""
    name = target.name
    for written in (f".{name}.json.*", f".{name}.first.json.*", f"..{name}.part.*"):
        for path in target.parent.glob(written):
            path.unlink(missing_ok=True)


def _mirror(given: str | None) -> str | None:
    """The mirror without a slash at its end. Raises UserError for what is no web address."""
    url = mirror_of(given)
    if url is None:
        return None
    if not is_web_address(url) or urlsplit(url).query or urlsplit(url).fragment:
        raise UserError(
            f"data.mirror={url}: must be the http:// or https:// address of a folder that has the "
            "archives by name, without a user name or a question mark"
        )
    return url.rstrip("/")


def _if_published_wrong(archive: Archive, data: Path | str, checksums: list[str]) -> str:
    """What to do if all whole copies are the same file, but not the published one."""
    if archive.checksum is None or len(set(checksums)) != 1:
        return ""
    return (
        f". Every whole copy has the {archive.checksum[0]} {checksums[0]}: if that is what its "
        f"owner gives, `checksum:` of {archive.name} in {sources_path(data)} is wrong; correct "
        "it, or set it to null"
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
