"""One address → one growing file: resumed with Range, tried again, given up where it is hopeless.

With httpx: pooch (1.9) and fsspec's HTTP file system start every download from the first byte.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exception
from tqdm import tqdm

import cliptrase
from cliptrase.data.fetch.receipts import HEAD, Damaged, check_head
from cliptrase.data.fetch.sources import Archive, readable
from cliptrase.errors import UserError
from cliptrase.files import naming_the_path, read_json, write_json

LOG = logging.getLogger(__name__)
_LATER = {408, 425, 429}  # besides 5xx: statuses that may pass


@dataclass(frozen=True)
class Policy:
    """How patient a download is; times in seconds, sizes in bytes."""

    attempts: int = 5  # in a row that bring nothing new
    backoff: float = 1.0  # before the second attempt; doubled each time, at most `longest`
    longest: float = 60.0
    connect: float = 30.0
    read: float = 60.0  # without a byte
    redirects: int = 10
    margin: int = 64 << 20  # what stays free on the disk


class Unavailable(Exception):
    """This address will not do: its text says why."""


class _Worthless(Unavailable):
    """This address will not do, and the part that it gave must be discarded."""


class _Stale(Exception):
    """The part cannot be continued: start over."""


class _Again(Exception):
    """This attempt failed; another may not. `wait`: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def transfer(
    url: str, part: Path, archive: Archive, policy: Policy, *, known: bool, progress: bool
) -> bool:
    """Make `part` a whole file of this address, from what is there of it already.

    known: a checksum will tell whether the file is right, so that a part from another address may
    be continued; else only if the server says that its file is the same.
    Returns whether it was continued, and not one answer from its first byte.
    Raises Unavailable; UserError where the disk refuses.
    """
    failures, best = 0, size_of_part(part)

    def attempt() -> bool:
        nonlocal failures, best
        try:
            return _attempt(client, url, part, archive, policy, bar, known=known)
        except _Again:
            failures = 0 if size_of_part(part) > best else failures + 1
            best = max(best, size_of_part(part))
            raise

    def wait(error: BaseException) -> float:
        growing = policy.backoff * 2 ** max(0, failures - 1)
        return min(policy.longest, max(growing, getattr(error, "wait", 0.0)))

    def log(state: RetryCallState) -> None:
        reason = state.outcome and state.outcome.exception()
        LOG.warning("%s: %s: %s; again in %.0f s", archive.name, url, reason, state.upcoming_sleep)

    retrying = Retrying(
        retry=retry_if_exception_type(_Again),
        stop=lambda _: failures >= policy.attempts,
        wait=wait_exception(wait),
        before_sleep=log,
        reraise=True,
    )
    with _client(policy) as client, _Bar(archive.name, progress) as bar:
        try:
            return retrying(attempt)
        except _Again as error:
            raise Unavailable(f"{error} ({failures} times in a row)") from error


def discard(part: Path) -> None:
    """Delete the part of a download, and the note about it."""
    for path in (part, _note_path(part)):
        path.unlink(missing_ok=True)


def size_of_part(part: Path) -> int:
    """The bytes that a download has so far."""
    return part.stat().st_size if part.is_file() else 0


def need_space(folder: Path, needed: int, policy: Policy) -> None:
    """Raise UserError where the disk lacks room for `needed` bytes and the margin."""
    free = shutil.disk_usage(folder).free
    if needed and needed + policy.margin > free:
        raise UserError(
            f"{folder}: {readable(needed)} are to be fetched and {readable(free)} are free on this "
            f"disk, of which {readable(policy.margin)} must stay free; free some, or choose "
            "another data folder, and run again"
        )


def _attempt(
    client: httpx.Client,
    url: str,
    part: Path,
    archive: Archive,
    policy: Policy,
    bar: _Bar,
    *,
    known: bool,
) -> bool:
    """One request, to the end of the file. Returns whether it continued the part."""
    start, validator, total = _start(url, part, known)
    if start and start == (archive.bytes or total):
        return True  # whole, and not yet checked
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        with _answer(client, url, headers, policy) as response:
            start, total = _span(response, start, total, validator, archive)
            if start == total and total:
                return True
            need_space(part.parent, (total or archive.bytes or start) - start, policy)
            _write_note(part, url, response, total)
            bar.at(start, total)
            _write(response, part, start, total, archive, bar)
    except _Worthless:
        discard(part)
        raise
    except _Stale as error:
        discard(part)
        raise _Again(str(error)) from error
    except httpx.UnsupportedProtocol as error:
        raise Unavailable(f"not an address of http or https ({error})") from error
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Unavailable(f"its certificate is not valid ({error})") from error
        if "location header" in str(error):
            raise Unavailable(f"redirects to a broken address ({error})") from error
        raise _Again(_what_broke(error, size_of_part(part))) from error
    if total is not None and size_of_part(part) < total:
        raise _Again(f"the connection ended after {size_of_part(part):,} of {total:,} bytes")
    return start > 0


@contextlib.contextmanager
def _answer(
    client: httpx.Client, url: str, headers: dict[str, str], policy: Policy
) -> Iterator[httpx.Response]:
    """The answer after redirects: of http and https alone, never from https back to http."""
    address = httpx.URL(url)
    for _ in range(policy.redirects + 1):
        with client.stream("GET", address, headers=headers) as response:
            if response.next_request is None:
                yield response
                return
            following = response.next_request.url
        safe = {"http", "https"} if address.scheme == "http" else {"https"}
        if following.scheme not in safe or not following.host:
            raise Unavailable(f"redirects to {following}, which is not followed from {address}")
        address = following
    raise Unavailable(f"redirects more than {policy.redirects} times, in the end to {address}")


def _span(
    response: httpx.Response, start: int, total: int | None, validator: str, archive: Archive
) -> tuple[int, int | None]:
    """The byte from which the answer goes on, and the size of the whole, None if it is unknown.

    Raises Unavailable, _Again or _Stale for an answer that is of no use.
    """
    status = response.status_code
    span = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    whole = int(span[2]) if span and span[2] != "*" else None
    if status == 416 and start:
        if whole == start:
            return start, start
        raise _Stale("the file changed since the download began")
    if status in _LATER or status >= 500:
        after = response.headers.get("Retry-After", "")
        wait = float(after) if after.isascii() and after.isdigit() else 0.0
        raise _Again(f"status {status} {response.reason_phrase}".strip(), wait)
    if status not in (200, 206):
        raise Unavailable(f"status {status} {response.reason_phrase}".strip())
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Unavailable("an HTML page instead of the archive")
    if status == 206:
        same = not validator or _validator(response) in ("", validator)
        begins = int(span[1]) if span and span[1] else None
        if not start or begins != start or not same or (total and whole and whole != total):
            raise _Stale("the server does not continue what is there")
    else:
        start = 0
        length = response.headers.get("Content-Length", "")
        whole = int(length) if length.isascii() and length.isdigit() else None
    if archive.bytes is not None and whole not in (None, archive.bytes):
        raise Unavailable(f"offers {whole:,} bytes instead of {archive.bytes:,}")
    return start, whole


def _write(
    response: httpx.Response,
    part: Path,
    start: int,
    total: int | None,
    archive: Archive,
    bar: _Bar,
) -> None:
    """Write the answer as it comes. Raises _Worthless as soon as it is no archive, or too long."""
    head = bytearray() if start == 0 else None
    limit = archive.bytes or total
    written = start
    with naming_the_path(part), open(part, "r+b" if start else "wb", buffering=0) as file:
        file.seek(start)
        for chunk in response.iter_raw():
            if head is not None:
                head += chunk
                if len(head) >= HEAD:
                    try:
                        check_head(bytes(head[:HEAD]), archive)
                    except Damaged as fault:
                        raise _Worthless(str(fault)) from fault
                    head = None
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
            written += len(chunk)
            bar.at(written, total)
            if limit is not None and written > limit:
                raise _Worthless(f"sends more than {limit:,} bytes")
        os.fsync(file.fileno())


def _start(url: str, part: Path, known: bool) -> tuple[int, str, int | None]:
    """The byte to go on from, the server's mark of that version ("" for none), and the size."""
    size, note = size_of_part(part), read_json(_note_path(part)) or {}
    validator = str(note.get("validator", ""))
    if note.get("url") == url and size and (known or validator):
        return size, validator, note.get("total")
    return (size if known else 0), "", None


def _write_note(part: Path, url: str, response: httpx.Response, total: int | None) -> None:
    write_json(_note_path(part), {"url": url, "validator": _validator(response), "total": total})


def _note_path(part: Path) -> Path:
    """Where the version of the file is kept that a part belongs to."""
    return part.with_name(f"{part.name}.json")


def _validator(response: httpx.Response) -> str:
    """What If-Range may hold: a strong ETag, or a date."""
    etag = str(response.headers.get("ETag", ""))
    strong = etag and not etag.startswith("W/")
    return etag if strong else str(response.headers.get("Last-Modified", ""))


def _what_broke(error: httpx.TransportError, there: int) -> str:
    if isinstance(error, httpx.TimeoutException):
        reason = "the server does not answer in time"
    elif isinstance(error, httpx.ConnectError):
        reason = "no connection"
    else:
        reason = "the connection broke"
    detail = " ".join(str(error).split())[:200]
    return f"{reason} after {there:,} bytes" + (f" ({detail})" if detail else "")


def _client(policy: Policy) -> httpx.Client:
    times = httpx.Timeout(policy.read, connect=policy.connect)
    agent = {"User-Agent": f"cliptrase/{cliptrase.__version__}"}
    here = dict.fromkeys(("all://127.0.0.1", "all://localhost"))  # never through a proxy
    return httpx.Client(timeout=times, headers=agent, mounts=here, follow_redirects=False)


class _Bar:
    """Progress: a bar on a terminal, elsewhere a line a minute."""

    def __init__(self, name: str, shown: bool) -> None:
        self._name, self._shown, self._logged = name, shown, time.monotonic()
        self._bar: tqdm | None = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(desc=name, unit="B", unit_scale=True, leave=False)

    def at(self, written: int, total: int | None) -> None:
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(written - self._bar.n)
        elif self._shown and time.monotonic() - self._logged >= 60:
            self._logged = time.monotonic()
            of = f" of {readable(total)}" if total else ""
            LOG.info("%s: %s%s", self._name, readable(written), of)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
