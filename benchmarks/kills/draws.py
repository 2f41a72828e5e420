"""One kill, or what one would leave: a scene in a process that is forked from this one, killed or
copied, done again, and compared."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.kills import boundary, kept, states
from benchmarks.kills.boundary import Call, Moment
from benchmarks.kills.scenes import Scene
from benchmarks.kills.states import Keeper, State
from cliptrase.errors import UserError

COUNTERS = struct.Struct("<2q")  # images that were read, bytes that were written
At = Callable[[Moment, Call, int, int], None]  # a moment, its call, and what COUNTERS has by then


@dataclass(frozen=True)
class Done:
    """How a process ended: the exit code, −9 where it was killed; calls: (kind, path) in order."""

    code: int
    calls: list[tuple[str, str]]
    images: int
    written: int
    seconds: float


@dataclass(frozen=True)
class Draw:
    """What a kill did. call: the last before it, "" where the work ended before that moment. hand:
    what the next start said where it did not end well, else "". boundaries: how many moments leave
    the copied state that was tried, 0 where a process was killed."""

    scene: str
    moment: str
    call: str
    path: str
    hand: str
    differing: list[str]
    left: list[str]
    images: int  # that were read more often than in undisturbed work
    written: int  # bytes likewise
    seconds: float
    boundaries: int = 0


class Bench:
    """A scene, its folder as it is before, and what undisturbed work makes of it."""

    def __init__(self, scene: Scene, place: Path, mirror: str) -> None:
        self.scene, self.place, self.mirror = scene, place, mirror
        self.folder, self.before = place / "work", place / "before"
        self.store, self.log = place / "states", place / "log"
        shutil.rmtree(self.before, ignore_errors=True)
        self._new()
        self._checked(self.run(scene.ready))
        os.rename(self.folder, self.before)
        self.reset()
        self.whole = self._checked(self.run(scene.act))
        self.contents = kept.contents(self.folder)
        assert not kept.left_behind(self.folder)

    def moments(self) -> list[Moment]:
        """Before, within and after each call that undisturbed work makes."""
        writes = {"write"}
        return [
            Moment(number, when)
            for number, (kind, _) in enumerate(self.whole.calls, start=1)
            for when in ("before", "half", "after")
            if when != "half" or kind in writes
        ]

    def reset(self) -> None:
        """The folder as it was before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder, symlinks=True)

    def draw(self, moments: list[Moment | float]) -> Draw:
        """Kill the scene at a moment, or after some seconds; done again, kill that at the next
        moment, and so on; then let it end, and compare."""
        begun = time.perf_counter()
        self.reset()
        killed = [self.run(self.scene.act, moment) for moment in moments]
        where = [
            [("nothing", ""), *each.calls][-1] if each.code == -9 else ("", "") for each in killed
        ]
        return self._done_again(
            ", then ".join(map(named, moments)),
            ", then ".join(kind for kind, _ in where),
            ", then ".join(path for _, path in where),
            sum(each.images for each in killed),
            sum(each.written for each in killed),
            begun,
        )

    def states(self) -> list[State]:
        """The folder at every moment of an undisturbed run."""
        self.reset()
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        keeper = Keeper(self.folder, self.store)

        def kept_states(mirror: str) -> None:
            self.scene.act(mirror)
            keeper.write()

        self._checked(self.run(kept_states, at=keeper.keep))
        return states.read(self.store)

    def draw_state(self, state: State) -> Draw:
        """Put a state in the place of the folder, let the work go on from it, and compare."""
        begun = time.perf_counter()
        states.restore(state.tree, self.store, self.folder)
        done = state.call.kind, state.call.path, state.images, state.written
        draw = self._done_again(state_name(state), *done, begun)
        return replace(draw, boundaries=len(state.moments))

    def _done_again(
        self, moment: str, call: str, path: str, images: int, written: int, begun: float
    ) -> Draw:
        """Do the work that `images` and `written` were done of before, and compare."""
        last = self.run(self.scene.act)
        hand = ""
        if last.code:
            hand = self.log.read_text(errors="replace")[-600:].strip() or f"exit {last.code}"
        return Draw(
            self.scene.name,
            moment,
            call,
            path,
            hand,
            kept.differing(kept.contents(self.folder), self.contents),
            kept.left_behind(self.folder),
            max(0, images + last.images - self.whole.images),
            max(0, written + last.written - self.whole.written),
            round(time.perf_counter() - begun, 2),
        )

    def run(
        self, act: Callable[[str], None], kill: Moment | float | None = None, at: At | None = None
    ) -> Done:
        """Do something in the folder, in a process of its own, which is killed at a moment or after
        some seconds; `at` is called in it at every moment."""
        calls, shared = self.place / "calls", mmap.mmap(-1, COUNTERS.size)
        calls.unlink(missing_ok=True)
        begun = time.perf_counter()
        sys.stdout.flush(), sys.stderr.flush()
        child = os.fork()
        if not child:
            moment = kill if isinstance(kill, Moment) else None
            self._child(act, at or _killed_at(moment), calls, shared)
        if isinstance(kill, float):
            time.sleep(kill)
            os.killpg(child, signal.SIGKILL) if _has_group(child) else os.kill(child, 9)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lines = calls.read_text().splitlines() if calls.exists() else []
        listed = [(kind, path) for kind, _, path in (line.partition(" ") for line in lines)]
        images, written = COUNTERS.unpack(shared[:])
        return Done(code, listed, images, written, time.perf_counter() - begun)

    def _child(self, act: Callable[[str], None], at: At, calls: Path, shared: mmap.mmap) -> None:
        """Never returns."""
        code: object = 70
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(log, 1), os.dup2(log, 2)
            os.chdir(self.folder)
            listed = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            write = os.write
            counts = [0, 0]

            def reached(moment: Moment, call: Call) -> None:
                if moment.when == "before":
                    write(listed, f"{call.kind} {call.path}\n".encode())
                    counts[1] += call.size
                    shared[:] = COUNTERS.pack(*counts)
                at(moment, call, *counts)

            _count_images(counts, shared)
            boundary.watch(self.folder, reached)
            act(self.mirror)
            code = 0
        except SystemExit as end:
            code = end.code
        except UserError as error:  # as the command line ends
            print(f"error: {error}", file=sys.stderr)
            code = 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code if isinstance(code, int) else int(code is not None))

    def _new(self) -> None:
        from benchmarks.kills import suite

        shutil.rmtree(self.folder, ignore_errors=True)
        suite.new(self.folder, self.place)

    def _checked(self, done: Done) -> Done:
        if done.code:
            raise RuntimeError(f"{self.scene.name}: {self.log.read_text(errors='replace')}")
        return done


def _killed_at(moment: Moment | None) -> At:
    def at(now: Moment, *_: object) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def named(moment: Moment | float) -> str:
    """A moment in words."""
    if isinstance(moment, float):
        return f"after {moment:.2f} s"
    return f"{moment.when} call {moment.number}"


def state_name(state: State) -> str:
    """A state in words, by the first moment at which the folder is so."""
    return f"state {named(state.moments[0])}"


def _count_images(counts: list[int], shared: mmap.mmap) -> None:
    truth = sys.modules.get("cliptrase.evaluate.truth")
    if truth is None:  # a scene that reads no images
        return
    load = truth.Loader.__call__

    def counting(self: object, position: int) -> object:
        counts[0] += 1
        shared[:] = COUNTERS.pack(*counts)
        return load(self, position)

    truth.Loader.__call__ = counting


def _has_group(child: int) -> bool:
    """Whether the process leads a group of its own by now."""
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False
