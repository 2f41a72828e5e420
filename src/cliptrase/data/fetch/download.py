"""Fetch an archive: `python -m cliptrase.data.fetch.download NAME [--data data] [--mirror URL]`.

It grows as `<data>/raw/.<name>.part` and gets its name when it is whole and checked: killed at any
moment, what bears the name is the archive, and the next run goes on where this one stopped.
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
    Checked,
    Damaged,
    OtherChecksum,
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
    of those that are gated (None: what the environment's CLIPTRASE_MIRROR says). Other processes
    that want the same archive wait for this one. Raises UserError naming the file, the address,
    the reason and the cure.
    """
    policy = policy or Policy()
    mirror = _mirror(mirror)
    target = raw_path(archive, data)
    with naming_the_path(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target.with_name(f".{archive.name}.lock"), archive.name):
        _tidy(target)
        others: list[str] = []  # checksums of whole files that are not the published one
        checked, url = _there(archive, data, mirror, others), None
        if checked is None:
            checked, url = _download(archive, data, mirror, progress, policy, others)
        discard(part_path(archive, data))
        write_receipt(archive, data, checked, url)
    return target


def log_progress() -> None:
    """What a download says of its progress goes to stderr, as a command shows it."""
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


def _there(
    archive: Archive, data: Path | str, mirror: str | None, others: list[str]
) -> Checked | None:
    """What the file is that bears the archive's name, None where it must be fetched."""
    target = raw_path(archive, data)
    if target.is_dir():
        raise UserError(f"{target}: a folder stands where the archive belongs; move it away")
    if not target.exists():
        receipt_path(archive, data).unlink(missing_ok=True)
        return None
    try:
        return check(target, archive, data)
    except Damaged as fault:
        receipt_path(archive, data).unlink(missing_ok=True)  # nobody may go by it any more
        if isinstance(fault, OtherChecksum):
            others.append(fault.digits)
        if not _addresses(archive, mirror):
            raise UserError(
                f"{target}: {fault}. Get it again: {how_to_get(archive, data)}"
                + _if_published_wrong(archive, data, others)
            ) from None
        LOG.warning("%s: %s; it is fetched again", target, fault)
        return None
    except OSError as error:
        raise UserError(f"{target}: cannot be read ({error.strerror}); see to the file") from error


def _download(
    archive: Archive,
    data: Path | str,
    mirror: str | None,
    progress: bool,
    policy: Policy,
    others: list[str],
) -> tuple[Checked, str]:
    """Fetch, check and put into place; what it is, and the address that gave it."""
    addresses = _addresses(archive, mirror)
    if not addresses:
        raise UserError(f"{raw_path(archive, data)}: missing. {_cure(archive, data)}")
    part = part_path(archive, data)
    if archive.bytes is not None:
        if size_of_part(part) > archive.bytes:
            discard(part)
        need_space(part.parent, archive.bytes - size_of_part(part), policy)
    faults = []
    for url in addresses:
        try:
            checked = _from(url, part, archive, data, progress, policy)
        except Unavailable as fault:
            faults.append(f"{url}: {fault}")
            if isinstance(fault.__cause__, OtherChecksum):
                others.append(fault.__cause__.digits)
            LOG.warning("%s: %s: %s", archive.name, url, fault)
            continue
        with naming_the_path(raw_path(archive, data)):
            os.replace(part, raw_path(archive, data))
            _sync(part.parent)
        return checked, url
    kept = size_of_part(part)
    rest = f" ({readable(kept)} are kept; another run goes on from there)" if kept else ""
    why = "; ".join(faults)
    if mirror:
        lacks = "status 404" in why or "status 410" in why
        away = "no connection" in why or "does not answer in time" in why
        what = "lacks it" if lacks else "cannot be reached" if away else "does not give it"
        why = f"the mirror {what}: {why}"
    raise UserError(
        f"{archive.name} could not be fetched{rest}: {why}. {_cure(archive, data)}"
        + _if_published_wrong(archive, data, others)
    )


def _from(
    url: str, part: Path, archive: Archive, data: Path | str, progress: bool, policy: Policy
) -> Checked:
    """The archive as `part`, checked; once from the first byte if what was continued is wrong."""
    known = archive.checksum is not None or read_first(archive, data) is not None
    again = False
    while True:
        continued = transfer(url, part, archive, policy, known=known, progress=progress)
        try:
            return check(part, archive, data)
        except Damaged as fault:
            discard(part)
            if again or not continued:
                raise Unavailable(str(fault)) from fault
            again = True
            LOG.warning("%s: %s; from the first byte again", archive.name, fault)


def _tidy(target: Path) -> None:
    """Remove what a killed process left half written of receipts; its part is kept."""
    name = target.name
    for written in (f".{name}.json.*", f".{name}.first.json.*", f"..{name}.part.*"):
        for left in target.parent.glob(written):
            left.unlink(missing_ok=True)


def _addresses(archive: Archive, mirror: str | None) -> tuple[str, ...]:
    return (f"{mirror}/{archive.name}",) if mirror else archive.urls


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


def _cure(archive: Archive, data: Path | str) -> str:
    text = how_to_get(archive, data)
    return f"Its owner alone gives it: {text}" if archive.gated else text[:1].upper() + text[1:]


def _if_published_wrong(archive: Archive, data: Path | str, others: list[str]) -> str:
    """What to do where every whole copy is one and the same file, and not the published one."""
    if archive.checksum is None or len(set(others)) != 1:
        return ""
    return (
        f". Every whole copy has the {archive.checksum[0]} {others[0]}: if that is what its owner "
        f"gives, `checksum:` of {archive.name} in {sources_path(data)} is wrong; correct it, or "
        "set it to null"
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
