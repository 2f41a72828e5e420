"""Every call of this process that changes a folder, and the moments before, within and after it.

`watch` replaces the functions of `os` and `open` by ones that tell. A write that a library makes in
C, as an encoder of pictures may, is not seen; the calls around it are.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Functions of `os` that change a folder, and the argument that names what is changed.
CHANGES = {
    **dict.fromkeys(("replace", "rename", "link", "symlink"), 1),
    **dict.fromkeys(("unlink", "remove", "rmdir", "mkdir", "utime", "chmod"), 0),
    **dict.fromkeys(("fsync", "ftruncate", "truncate"), 0),
}


@dataclass(frozen=True)
class Moment:
    """The `number`-th call, counted from 1; of a write also after `half` of its bytes."""

    number: int
    when: Literal["before", "half", "after"]


@dataclass(frozen=True)
class Call:
    """The function, what it changes in the folder, and of a write how many bytes it has."""

    kind: str
    path: str
    size: int = 0


Reached = Callable[[Moment, Call], None]


def watch(folder: Path, reached: Reached) -> None:
    """Count the calls that change `folder` from here on, and say when a moment is `reached`.

    Until that returns, no thread makes such a call. A write is made in two halves.
    """
    calls = _Calls(os.path.realpath(folder), reached)
    for name, place in CHANGES.items():
        setattr(os, name, _counting(calls, name, getattr(os, name), place))
    for name in ("write", "pwrite"):
        setattr(os, name, _counting_bytes(calls, getattr(os, name)))
    os.open = _opening(calls, os.open)  # type: ignore[assignment]
    builtins.open = io.open = _files(calls, io.open)  # type: ignore[assignment]
    import numpy.lib.format as arrays

    arrays.isfileobj = lambda _: False  # else NumPy writes arrays in C


class _Calls:
    def __init__(self, folder: str, reached: Reached) -> None:
        self.folder, self.reached = folder, reached
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

    @contextlib.contextmanager
    def counted(self, call: Call) -> Iterator[Callable[[], None]]:
        """A call that changes the folder, if it has a path there; what to do when half is done."""
        if not call.path:
            yield lambda: None
            return
        with self.lock:
            self.count += 1
            number = self.count
            self.reached(Moment(number, "before"), call)
            try:
                yield lambda: self.reached(Moment(number, "half"), call)
            finally:
                self.reached(Moment(number, "after"), call)

    def written(self, path: str, data: Any, write: Callable[[memoryview, int], int]) -> int:
        """Write `data` to `path` by `write(part, offset)`; returns how many bytes are written."""
        whole = memoryview(data).cast("B")
        middle = len(whole) // 2
        with self.counted(Call("write", path, len(whole))) as half:
            first = write(whole[:middle], 0)
            half()
            return first if first < middle else first + write(whole[middle:], middle)


def _counting(calls: _Calls, name: str, function: Callable[..., Any], place: int) -> Any:
    def counted(*arguments: Any, **options: Any) -> Any:
        within = options.get("dir_fd", options.get("dst_dir_fd"))
        with calls.counted(Call(name, calls.names(arguments[place], within))):
            return function(*arguments, **options)

    return counted


def _counting_bytes(calls: _Calls, function: Callable[..., int]) -> Any:
    def counted(handle: int, data: Any, *at: int) -> int:
        path = calls.names(handle)
        if not path:
            return function(handle, data, *at)
        return calls.written(
            path, data, lambda part, offset: function(handle, part, *(a + offset for a in at))
        )

    return counted


def _opening(calls: _Calls, function: Callable[..., int]) -> Any:
    def opened(path: Any, flags: int, *more: Any, **options: Any) -> int:
        changes = flags & (os.O_CREAT | os.O_TRUNC)
        name = calls.names(path, options.get("dir_fd")) if changes else ""
        with calls.counted(Call("open", name)):
            return function(path, flags, *more, **options)

    return opened


def _files(calls: _Calls, function: Callable[..., Any]) -> Any:
    class Raw(io.FileIO):
        """A file whose writes are counted."""

        path = ""

        def write(self, data: Any) -> int:
            write = super().write
            return calls.written(self.path, data, lambda part, _: write(part))

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
        with calls.counted(Call("open", kind)):
            raw = Raw(file, plain, closefd, opener)
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
