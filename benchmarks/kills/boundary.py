"""Every call of this process that changes a folder, counted, so that it can be killed at any.

`watch` replaces the functions of `os` and `open` by ones that count. A write that a library makes
in C, as an encoder of pictures may, is not seen; the calls around it are.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Functions of `os` that change a folder, and the argument that names what is changed.
CHANGES = {
    **dict.fromkeys(("replace", "rename", "link", "symlink"), 1),
    **dict.fromkeys(("unlink", "remove", "rmdir", "mkdir", "utime", "chmod"), 0),
    **dict.fromkeys(("fsync", "ftruncate", "truncate"), 0),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Moment:
    """The `number`-th call, counted from 1; of a write also after `half` of its bytes."""

    number: int
    when: Literal["before", "half", "after"]


def watch(folder: Path, moment: Moment | None, seen: Callable[[str, str, int], None]) -> None:
    """Count the calls that change `folder` from here on, and end this process at `moment`.

    seen(kind, path, bytes) is called before each.
    """
    calls = _Calls(os.path.realpath(folder), moment, seen)
    for name, place in CHANGES.items():
        setattr(os, name, _counting(calls, name, getattr(os, name), place))
    for name in ("write", "pwrite"):
        setattr(os, name, _counting_bytes(calls, name, getattr(os, name)))
    os.open = _opening(calls, os.open)  # type: ignore[assignment]
    builtins.open = io.open = _files(calls, io.open)  # type: ignore[assignment]
    import numpy.lib.format as arrays

    arrays.isfileobj = lambda _: False  # else NumPy writes arrays in C


class _Calls:
    def __init__(
        self, folder: str, moment: Moment | None, seen: Callable[[str, str, int], None]
    ) -> None:
        self.folder, self.moment, self.seen = folder, moment, seen
        self.count, self.lock = 0, threading.Lock()

    def names(self, file: Any, within: int | None = None) -> str:
        """What a path or a descriptor names in the folder, "" for what is elsewhere."""
        if isinstance(file, int):
            path = os.readlink(f"/proc/self/fd/{file}")
        else:
            base = os.getcwd() if within is None else os.readlink(f"/proc/self/fd/{within}")
            path = os.path.join(base, os.fsdecode(file))
        path = os.path.normpath(path)
        return path[len(self.folder) + 1 :] if path.startswith(f"{self.folder}/") else ""

    def make(
        self,
        kind: str,
        path: str,
        call: Callable[[], Any],
        half: Callable[[], Any] | None = None,
        size: int = 0,
    ) -> Any:
        """Make a call that changes `path`, and end before, in the middle or after where asked."""
        if not path:
            return call()
        with self.lock:
            self.count += 1
            here = self.moment is not None and self.count == self.moment.number
            self.seen(kind, path, size)
            when = self.moment.when if here and self.moment else None
            if when == "half" and half is not None:
                half()
            if when in ("before", "half"):
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call()
            finally:
                if when == "after":
                    os.kill(os.getpid(), signal.SIGKILL)


def _counting(calls: _Calls, name: str, function: Callable[..., Any], place: int) -> Any:
    def counted(*arguments: Any, **options: Any) -> Any:
        within = options.get("dir_fd", options.get("dst_dir_fd"))
        path = calls.names(arguments[place], within)
        return calls.make(name, path, lambda: function(*arguments, **options))

    return counted


def _counting_bytes(calls: _Calls, name: str, function: Callable[..., int]) -> Any:
    def counted(handle: int, data: Any, *more: Any) -> int:
        half = memoryview(data).cast("B")[: len(data) // 2]
        made = calls.make(
            "write",
            calls.names(handle),
            lambda: function(handle, data, *more),
            lambda: function(handle, half, *more),
            len(data),
        )
        return int(made)

    return counted


def _opening(calls: _Calls, function: Callable[..., int]) -> Any:
    def opened(path: Any, flags: int, *more: Any, **options: Any) -> int:
        changes = flags & (os.O_CREAT | os.O_TRUNC)
        name = calls.names(path, options.get("dir_fd")) if changes else ""
        return int(calls.make("open", name, lambda: function(path, flags, *more, **options)))

    return opened


def _files(calls: _Calls, function: Callable[..., Any]) -> Any:
    class Raw(io.FileIO):
        """A file whose writes are counted."""

        path = ""

        def write(self, data: Any) -> int:
            part = memoryview(data).cast("B")
            write = super().write
            return int(
                calls.make(
                    "write",
                    self.path,
                    lambda: write(part),
                    lambda: write(part[: len(part) // 2]),
                    len(part),
                )
            )

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = calls.names(file) if {*mode} & {*"wax+"} else ""
        if not path:
            return function(file, mode, buffering, encoding, errors, newline, closefd, opener)
        plain = mode.replace("b", "").replace("t", "")
        kind = "" if isinstance(file, int) else path
        raw: Raw = calls.make("open", kind, lambda: Raw(file, plain, closefd, opener))
        raw.path = path
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline)
        text.mode = mode
        return text

    return opened
