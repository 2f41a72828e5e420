"""What kills would leave on the disk: the folder, copied at every moment of one undisturbed run.

A kill leaves what is on the disk at its moment, and nothing else: open files, locks and memory end
with the process. So the next start may as well find a copy of that.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kills.boundary import Call, Moment


@dataclass(frozen=True)
class Entry:
    """A file, link or folder: its mode, the time of a file's last change, and the digest of its
    content; where a link leads to."""

    mode: int
    changed_ns: int = 0
    content: str = ""


Tree = Mapping[str, Entry]  # by path; a folder before what is in it


@dataclass
class State:
    """A content of the folder, the moments in a row at which it is that, the call of the first, and
    what was done until the last of them: images that were read, bytes that were written."""

    tree: Tree
    call: Call
    moments: list[Moment] = field(default_factory=list)
    images: int = 0
    written: int = 0


class Keeper:
    """Copies a folder into `store`, each content of a file once."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        self.states: list[State] = []

    def keep(self, moment: Moment, call: Call, images: int, written: int) -> None:
        """Keep the folder as it is at a moment."""
        tree = copied(self.folder, self.store)
        if not self.states or self.states[-1].tree != tree:
            self.states.append(State(tree, call))
        state = self.states[-1]
        state.moments.append(moment)
        state.images, state.written = images, written

    def write(self) -> None:
        """Write the states, for `read`."""
        (self.store / "states").write_bytes(pickle.dumps(self.states))


def read(store: Path) -> list[State]:
    """The states that a `Keeper` of another process wrote."""
    states: list[State] = pickle.loads((store / "states").read_bytes())
    return states


def copied(folder: Path, store: Path) -> Tree:
    """What is in a folder; the contents of its files lie in `store` from then on."""
    return {
        path.relative_to(folder).as_posix(): _entry(path, store)
        for path in sorted(folder.rglob("*"))
    }


def _entry(path: Path, store: Path) -> Entry:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Entry(found.st_mode, content=os.readlink(path))
    if stat.S_ISDIR(found.st_mode):
        return Entry(found.st_mode)
    content = path.read_bytes()
    digest = hashlib.blake2b(content).hexdigest()
    if not (store / digest).exists():
        (store / digest).write_bytes(content)
    return Entry(found.st_mode, found.st_mtime_ns, digest)


def restore(tree: Tree, store: Path, folder: Path) -> None:
    """Make `folder` what it was."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, entry in tree.items():
        path = folder / name
        if stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.content)
        elif stat.S_ISDIR(entry.mode):
            path.mkdir()
        else:
            shutil.copyfile(store / entry.content, path)
            path.chmod(stat.S_IMODE(entry.mode))
            os.utime(path, ns=(entry.changed_ns, entry.changed_ns))
