"""A web server on 127.0.0.1 that serves a folder, with faults on demand.

    with Server(folder, {"/a.zip": Fault(cuts=(100, 200))}) as server: … server.url …
    python -m tests.miniature.server FOLDER --port-file FILE    (until it is terminated)

It answers GET with Range and If-Range, as the servers of archives do, and keeps what it was asked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

_PIECE = 1 << 16
_PAGE = b"<!DOCTYPE html>\n<html><body>Please accept our terms.</body></html>\n"


@dataclass
class Fault:
    """What goes wrong with a path; the faults of one path may be combined.

    times: answers with the fault, the later ones are fine (None: all of them).
    cuts: the connection breaks at each of these offsets of the file, once for each mention.
    status: answered instead of the file; page: an HTML page with status 200, of type `page`.
    redirect: where to go instead; a path, an address or "loop".
    """

    times: int | None = None
    cuts: tuple[int, ...] = ()
    first_cut: int = 0  # where every answer from the first byte breaks
    status: int = 0
    page: str = ""
    redirect: str = ""
    wrong_byte: int | None = None  # the offset of one byte that is sent inverted
    ranges: bool = True
    if_range: bool = True  # False: If-Range is not heeded
    whole_length: bool = True  # False: no Content-Length, the end of the connection ends the file
    more_length: int = 0  # added to the Content-Length, and to what Content-Range says
    wrong_range: bool = False  # 206 that begins one byte early
    stall: float = 0.0  # seconds without a byte, in the middle of the answer
    slow: float = 0.0  # seconds after each 64 kB
    etag: str | None = "auto"  # None: the answers have no ETag
    retry_after: str = ""


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    range: str
    if_range: str


class Server:
    """A running server: `url`, and `requests`, all that were answered or are being answered."""

    def __init__(self, folder: Path, faults: dict[str, Fault] | None = None, port: int = 0) -> None:
        self.folder, self.faults = Path(folder).resolve(), faults or {}
        self.requests: list[Request] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", port), type("Bound", (_Handler,), {"of": self})
        )
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    def serve(self) -> None:
        """Serve until `close`."""
        self._http.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    of: Server
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # whoever asked was killed
            super().handle()

    def do_GET(self) -> None:
        asked = Request(self.path, self.headers.get("Range", ""), self.headers.get("If-Range", ""))
        with self.of.lock:
            self.of.requests.append(asked)
            fault = self.of.faults.get(self.path, Fault())
            if fault.times is not None:
                fault.times -= 1
                if fault.times < 0:
                    fault = Fault()
        if fault.redirect:
            target = self.path if fault.redirect == "loop" else fault.redirect
            self._plain(302, b"", {"Location": target})
        elif fault.status:
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            self._plain(fault.status, b"not now", headers)
        elif fault.page:
            self._plain(200, _PAGE, {"Content-Type": fault.page})
        else:
            self._file(fault)

    def _file(self, fault: Fault) -> None:
        path = (self.of.folder / self.path.lstrip("/")).resolve()
        if not path.is_relative_to(self.of.folder) or not path.is_file():
            self._plain(404, b"no such file", {})
            return
        content = bytearray(path.read_bytes())
        etag = f'"{len(content)}-{path.stat().st_mtime_ns}"' if fault.etag == "auto" else fault.etag
        if fault.wrong_byte is not None:
            content[fault.wrong_byte] ^= 0xFF
        start = self._start(etag, fault.if_range) if fault.ranges else 0
        if start and start >= len(content):
            self._plain(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        if fault.wrong_range and start:
            start -= 1
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/octet-stream")
        if etag:
            self.send_header("ETag", etag)
        if start:
            total = len(content) + fault.more_length
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if fault.whole_length:
            self.send_header("Content-Length", str(len(content) - start + fault.more_length))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self._body(bytes(content), start, fault)

    def _body(self, content: bytes, start: int, fault: Fault) -> None:
        end = len(content)
        with self.of.lock:
            ahead = sorted(cut for cut in fault.cuts if cut >= start)
            if ahead:
                end, *later = ahead
                fault.cuts = (*(cut for cut in fault.cuts if cut < start), *later)
        if fault.first_cut and not start:
            end = min(end, fault.first_cut)
        middle = (start + end) // 2
        for at in range(start, end, _PIECE):
            if fault.stall and at + _PIECE > middle:
                self._send(content[at:middle])
                self.of.closing.wait(fault.stall)
                break
            self._send(content[at : min(end, at + _PIECE)])
            self.of.closing.wait(fault.slow)
        if end < len(content) or fault.more_length > 0 or fault.stall or not fault.whole_length:
            self.close_connection = True

    def _send(self, piece: bytes) -> None:
        try:
            self.wfile.write(piece)
            self.wfile.flush()
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def _start(self, etag: str | None, heeded: bool) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        wanted = self.headers.get("If-Range")
        return int(found[1]) if found and (wanted in (None, etag) or not heeded) else 0

    def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": "text/plain"} | headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: `Server.requests` has it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a folder until terminated; the port is in the file once the server answers."""
    parser = argparse.ArgumentParser(prog="python -m tests.miniature.server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port-file", type=Path, required=True)
    options = parser.parse_args(arguments)
    server = Server(options.folder)
    signal.signal(signal.SIGTERM, lambda *_: server.closing.set())
    signal.signal(signal.SIGINT, lambda *_: server.closing.set())
    with server:
        being_written = options.port_file.with_name(f".{options.port_file.name}.{os.getpid()}")
        being_written.write_text(f"{server.port}\n", encoding="ascii")
        being_written.replace(options.port_file)
        while not server.closing.is_set():
            time.sleep(0.1)


if __name__ == "__main__":
    main()
