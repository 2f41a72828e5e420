"""Files that are whole or absent: written under a temporary name, synced, then renamed."""

import ast
import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, TypeVarTuple

from cliptrase.errors import UserError

TEMPORARY = "[0-9a-f]" * 8  # the end of a temporary name, as a pattern
SEAL = "sha256"  # the key of a JSON file's digest of itself
STALE_SECONDS = 3600.0  # what is this old has no writer, on a disk without locks
More = TypeVarTuple("More")
Value = TypeVar("Value")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FULL, _CLOSED = (errno.ENOSPC, errno.EDQUOT), (errno.EACCES, errno.EROFS, errno.EPERM)
_TAKEN = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_REFUSALS = {
    **dict.fromkeys(_FULL, "no space left on the disk; free some and run again"),
    **dict.fromkeys(_CLOSED, "cannot be written; check the folder's permissions"),
    **dict.fromkeys(_TAKEN, "a file or folder of that name stands in the way"),
    errno.ENOENT: "its folder is not there and cannot be made; choose another place",
    errno.ENAMETOOLONG: "the name is too long; take a shorter one",
}


def local_path(text: str) -> str:
    """A path as a user writes it, with the home folder in the place of `~`.

    Raises UserError for an address: Path would show it as `https:/…`, and there is no such file.
    """
    if re.match(r"[A-Za-z][\w+.-]+://", text):
        raise UserError(f"{text}: an address; give a file or folder of this machine")
    return os.path.expanduser(text)


def user_path(text: str) -> Path:
    """`local_path` as a Path: the type of a command line's options."""
    return Path(local_path(text))


@contextlib.contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only once the block has ended without an error.

    `mode` is "wb" or "w" (UTF-8). Of a link the target is written, a pipe or a device as it is. If
    the block or the disk fails, the earlier file at `path` stays as it is. What killed processes
    left of it is deleted first. Raises UserError naming the path where the disk refuses.
    """
    target = Path(os.path.realpath(path))
    encoding = None if "b" in mode else "utf-8"
    with naming_the_path(path):
        if _is_stream(path):
            with open(path, mode, encoding=encoding) as stream:
                yield stream
            return
    with naming_the_path(path):
        clear_leftovers(target)
        temporary, handle = claimed(target, _new_file)
    try:
        with naming_the_path(path), open(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)  # while it is locked
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_writable(path: Path | str) -> None:
    """Raise UserError where `atomic_write` could not write, as far as that can be seen before.

    Nothing is made, not even a folder.
    """
    target = Path(os.path.realpath(path))
    with naming_the_path(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_stream(path):
            return
        with contextlib.suppress(FileNotFoundError):
            target.stat()  # a link may lead to itself
        with contextlib.suppress(FileNotFoundError):
            beside(target).lstat()  # the name may be too long
        _try(next(each for each in target.parents if each.exists()))


def make_ready(folder: Path) -> None:
    """Make a folder and write into it, so that long work does not end at one that it cannot.

    Raises UserError where that is not possible, or a file stands there.
    """
    with naming_the_path(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _try(folder)


def _try(folder: Path) -> None:
    """Make a file in a folder, for a moment. Raises OSError where that is not possible."""
    tempfile.TemporaryFile(dir=folder).close()


def _is_stream(path: Path | str) -> bool:
    """Whether it is a pipe, or a device as /dev/stdout: written as it is, never replaced."""
    path = Path(path)  # not its real path: of a pipe that is no name
    return path.exists() and not (path.is_file() or path.is_dir())


def beside(target: Path) -> Path:
    """A new temporary name beside a file or folder, as `clear_leftovers` finds it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def claimed(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A file or folder beside `path` under a temporary name, as `make` makes and opens it, and its
    descriptor: until that is closed, or the process ends, `clear_leftovers` leaves it alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        temporary = beside(path)
        handle = make(temporary)
        with contextlib.suppress(OSError):  # a disk without locks: `discard` goes by the time
            fcntl.flock(handle, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, handle
        os.close(handle)  # another process swept it up before it was locked


def new_folder(path: Path) -> int:
    """Make a folder, for `claimed`."""
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # swept up, as in `claimed`
        return new_folder(path)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def clear_leftovers(path: Path) -> None:
    """Delete what killed processes left beside `path` under its temporary names."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{TEMPORARY}"):
        discard(left)


def discard(left: Path) -> None:
    """Delete a file or folder that `claimed` made, unless a living process writes it. (One that is
    not locked yet, as it was made this moment, is made again by its process.)"""
    with contextlib.suppress(OSError):
        handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            except OSError:  # a disk without locks
                if time.time() - os.fstat(handle).st_mtime < STALE_SECONDS:
                    return
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        finally:
            os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Write a file of UTF-8. Raises as `atomic_write`."""
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: Path | str, content: Mapping[str, object]) -> None:
    """Write a small JSON file, sorted keys, one a line. Raises as `atomic_write`."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path | str) -> dict[str, Any] | None:
    """The object in a JSON file, None where the file is missing, damaged or something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def sealed(content: Mapping[str, object]) -> dict[str, object]:
    """The content of a JSON file with `sha256`, the digest of all the rest, for `read_sealed`."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    return {**rest, SEAL: _content_digest(rest)}


def read_sealed(path: Path | str) -> dict[str, Any] | None:
    """As `read_json`; None also where the content is not what was `sealed`.

    Files of earlier versions have no digest, and are read as they are.
    """
    content = read_json(path)
    if content is None:
        return None
    if SEAL in content:
        return content if _is_digest_of_rest(content, SEAL) else None
    damaged_key = any(_is_digest_of_rest(content, key) for key in content)
    return None if damaged_key else content


def _is_digest_of_rest(content: Mapping[str, object], key: str) -> bool:
    rest = {other: value for other, value in content.items() if other != key}
    return isinstance(content[key], str) and content[key] == _content_digest(rest)


def _content_digest(content: Mapping[str, object]) -> str:
    return sha256_text(json.dumps(content, sort_keys=True))


@contextlib.contextmanager
def naming_the_path(path: Path | str) -> Iterator[None]:
    """Turn every OSError of the block into a UserError that names `path` and the cure."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:200]
        other = f"cannot be written ({reason}); choose another place"
        raise UserError(f"{path}: {_REFUSALS.get(error.errno or 0, other)}") from error


def once_a_file(read: Callable[[Path, *More], Value]) -> Callable[[Path, *More], Value]:
    """Read a file again only if it has changed: its place on the disk, its size or its time."""

    @functools.lru_cache(maxsize=1 << 16)
    def cached(path: Path, inode: int, size: int, mtime_ns: int, *more: *More) -> Value:
        return read(path, *more)

    def current(path: Path, *more: *More) -> Value:
        stat = path.stat()
        return cached(path.absolute(), stat.st_ino, stat.st_size, stat.st_mtime_ns, *more)

    return current


def sha256_file(path: Path | str) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """The sha256 of a text's UTF-8, in hexadecimal: of the file that `write_text` makes of it."""
    return hashlib.sha256(text.encode()).hexdigest()


known_sha256 = once_a_file(sha256_file)


def sha256_syntax(tree: ast.Module) -> str:
    """The sha256 of a syntax tree without its docstrings: no comment changes it."""
    return hashlib.sha256(_spelled(tree).encode()).hexdigest()


def _spelled(node: object) -> str:
    """A syntax tree as text, without docstrings and the same under every version of Python:
    `ast.dump` is not, as newer versions have more fields, which are empty for the code of older
    ones."""
    if isinstance(node, list):
        return f"[{' '.join(map(_spelled, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    documented = isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    spelled = []
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if documented and name == "body":
            value = value[1:]
        if value not in (None, []):
            spelled.append(f"{name}={_spelled(value)}")
    return f"{type(node).__name__}({' '.join(spelled)})"
