"""One address → one growing file: resumed with Range, tried again, given up where it is hopeless.

With httpx: pooch (1.9) and fsspec's HTTP file system start every download from the first byte.
"""

import errno
import logging
import os
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exception
from tqdm import tqdm

import cliptrase
from cliptrase.data.fetch.receipts import HEAD, Damaged, check_head, size_of_part
from cliptrase.data.fetch.sources import Archive, readable
from cliptrase.errors import UserError, counted
from cliptrase.files import naming_the_path, read_json, write_json

LOG = logging.getLogger(__name__)
_LATER = {408, 425, 429}  # besides 5xx: statuses that may pass
_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN)


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


class _Again(Exception):
    """This attempt failed; another may not. `wait`: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Offline(_Again):
    """There is no network, or no server of that name: hopeless, unless it breaks in the middle."""


def transfer(url: str, part: Path, archive: Archive, policy: Policy, *, checkable: bool) -> bool:
    """Make `part` a whole file of this address, from what is there of it already.

    checkable: a checksum will tell whether the file is right, so that a part from another address
    may be continued; else only if the server says that its file is the same.
    Returns whether it was continued, and not one answer from its first byte.
    Raises Unavailable; UserError where the disk refuses.
    """
    failures, best = 0, size_of_part(part)
    begun = best

    def attempt() -> bool:
        nonlocal failures, best
        try:
            return _Attempt(client, url, part, archive, policy, checkable, bar).run()
        except _Again as error:
            if isinstance(error, _Offline) and size_of_part(part) <= begun:
                raise Unavailable(str(error)) from error
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
    with _client(url, policy) as client, _bar(archive.name) as bar:
        try:
            return retrying(attempt)
        except _Again as error:
            raise Unavailable(f"{error} ({counted(failures, 'time')} in a row)") from error


def discard(part: Path) -> None:
    """Delete the part of a download, and the note about it, also where a kill left half of one."""
    for path in (part, _note_path(part), *part.parent.glob(f".{_note_path(part).name}.*")):
        path.unlink(missing_ok=True)


def url_of_whole(part: Path) -> str | None:
    """The address that a part came from which was put into place, if a kill left the note about it;
    None where the note is gone, or is of a part that is still there."""
    url = None if part.exists() else (read_json(_note_path(part)) or {}).get("url")
    return url if isinstance(url, str) else None


def need_space(folder: Path, needed: int, policy: Policy) -> None:
    """Raise UserError where the disk lacks room for `needed` bytes and the margin."""
    free = shutil.disk_usage(folder).free
    if needed and needed + policy.margin > free:
        raise UserError(
            f"{folder}: {readable(needed)} are to be fetched and {readable(free)} are free on this "
            f"disk, of which {readable(policy.margin)} must stay free; free some, or choose "
            "another data folder, and run again"
        )


@dataclass(frozen=True)
class _Attempt:
    """One request, whose answer goes into the part."""

    client: httpx.Client
    url: str
    part: Path
    archive: Archive
    policy: Policy
    checkable: bool
    bar: tqdm

    def run(self) -> bool:
        """Go on to the end of the file. Returns whether the part was continued."""
        start, validator, total = self._continued()
        if start and start == (self.archive.bytes or total):
            return True  # whole, and not yet checked
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
        try:
            with self.client.stream("GET", self.url, headers=headers) as response:
                start, total = self._span(response, start, total, validator)
                if start == total and total:
                    return True
                need_space(
                    self.part.parent, (total or self.archive.bytes or start) - start, self.policy
                )
                note = {"url": self.url, "validator": _validator(response), "total": total}
                write_json(_note_path(self.part), note)
                self._write(response, start, total)
        except Damaged as fault:
            discard(self.part)
            raise Unavailable(str(fault)) from fault
        except httpx.TooManyRedirects as error:
            raise Unavailable(f"redirects more than {self.policy.redirects} times") from error
        except httpx.UnsupportedProtocol as error:
            raise Unavailable(f"is, or redirects to, no address of http ({error})") from error
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Unavailable(f"its certificate is not valid ({error})") from error
            if "location header" in str(error):
                raise Unavailable(f"redirects to a broken address ({error})") from error
            if _offline(error):
                detail = " ".join(str(error).split())[:200]
                raise _Offline(f"no network, or no server of that name ({detail})") from error
            raise _Again(_reason(error, size_of_part(self.part))) from error
        size = size_of_part(self.part)
        if total is not None and size < total:
            raise _Again(f"the connection ended after {size:,} of {total:,} bytes")
        return start > 0

    def _continued(self) -> tuple[int, str, int | None]:
        """The byte to go on from, the server's mark of that version ("" for none), the size."""
        size, note = size_of_part(self.part), read_json(_note_path(self.part)) or {}
        validator = str(note.get("validator", ""))
        if note.get("url") == self.url and size and (self.checkable or validator):
            return size, validator, note.get("total")
        return (size if self.checkable else 0), "", None

    def _span(
        self, response: httpx.Response, start: int, total: int | None, validator: str
    ) -> tuple[int, int | None]:
        """The byte from which the answer goes on, and the size of the whole, None if unknown.

        Raises Unavailable or _Again for an answer that is of no use.
        """
        status, headers = response.status_code, response.headers
        span = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
        whole = int(span[2]) if span and span[2] != "*" else None
        if status == 416 and start:
            if whole == start:
                return start, start
            discard(self.part)
            raise _Again("the file changed since the download began")
        if status in _LATER or status >= 500:
            wait = float(_number(headers.get("Retry-After", "")) or 0)
            raise _Again(f"status {status} {response.reason_phrase}".strip(), wait)
        if status not in (200, 206):
            raise Unavailable(f"status {status} {response.reason_phrase}".strip())
        if headers.get("Content-Type", "").lower().startswith("text/html"):
            raise Unavailable("an HTML page instead of the archive")
        if status == 206:
            same = not validator or _validator(response) in ("", validator)
            begins = int(span[1]) if span and span[1] else None
            if not start or begins != start or not same or (total and whole and whole != total):
                discard(self.part)
                raise _Again("the server does not continue what is there")
        else:
            start, whole = 0, _number(headers.get("Content-Length", ""))
        if self.archive.bytes is not None and whole not in (None, self.archive.bytes):
            raise Unavailable(f"offers {whole:,} bytes instead of {self.archive.bytes:,}")
        return start, whole

    def _write(self, response: httpx.Response, start: int, total: int | None) -> None:
        """Write the answer as it comes. Discards it as soon as it is no archive, or too long."""
        head = b""
        limit, written = self.archive.bytes or total, start
        self.bar.total, self.bar.n = total, start
        mode = "r+b" if start else "wb"
        with naming_the_path(self.part), open(self.part, mode, buffering=0) as file:
            file.seek(start)
            for chunk in response.iter_raw():
                if start == 0 and len(head) < HEAD:
                    head += chunk[:HEAD]
                    if len(head) >= HEAD:
                        check_head(head[:HEAD], self.archive)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
                written += len(chunk)
                self.bar.update(len(chunk))
                if limit is not None and written > limit:
                    discard(self.part)
                    raise Unavailable(f"sends more than {limit:,} bytes")
            os.fsync(file.fileno())


def _note_path(part: Path) -> Path:
    """The file that says of which version of the archive a part is."""
    return part.with_name(f"{part.name}.json")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _validator(response: httpx.Response) -> str:
    """What If-Range may hold: a strong ETag, or a date."""
    etag = str(response.headers.get("ETag", ""))
    strong = etag and not etag.startswith("W/")
    return etag if strong else str(response.headers.get("Last-Modified", ""))


def _offline(error: BaseException | None) -> bool:
    """Whether a name did not resolve, or no network leads to its address."""
    if error is None or isinstance(error, socket.gaierror):
        return error is not None
    return getattr(error, "errno", None) in _NO_NETWORK or _offline(error.__context__)


def _reason(error: httpx.TransportError, size: int) -> str:
    if isinstance(error, httpx.TimeoutException):
        reason = "the server does not answer in time"
    elif isinstance(error, httpx.ConnectError):
        reason = "no connection"
    else:
        reason = "the connection broke"
    detail = " ".join(str(error).split())[:200]
    return f"{reason} after {size:,} bytes" + (f" ({detail})" if detail else "")


def _client(url: str, policy: Policy) -> httpx.Client:
    def stay_secure(request: httpx.Request) -> None:
        if url.startswith("https:") and request.url.scheme == "http":
            raise Unavailable(f"redirects to {request.url}, which is not followed from {url}")

    return httpx.Client(
        timeout=httpx.Timeout(policy.read, connect=policy.connect),
        headers={"User-Agent": f"cliptrase/{cliptrase.__version__}"},
        mounts=dict.fromkeys(("all://127.0.0.1", "all://localhost")),  # never through a proxy
        follow_redirects=True,
        max_redirects=policy.redirects,
        event_hooks={"request": [stay_secure]},
    )


def _bar(name: str) -> tqdm:
    """Progress: a bar on a terminal, elsewhere one print a minute."""
    every = 0.1 if sys.stderr.isatty() else 60
    return tqdm(desc=name, unit="B", unit_scale=True, leave=False, mininterval=every, delay=every)
