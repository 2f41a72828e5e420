"""One bit turned over, or the end cut off, in every kind of file that is kept; then the work that
reads it. What comes of it is healed, refused, or not read; never another number."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills import kept, scenes
from benchmarks.kills.draws import Bench
from benchmarks.kills.scenes import DATA, RESULTS, Scene
from benchmarks.kills.starts import Starts, Work

RUN = "results/runs/shapes_bg.cliptrase.*"
UNNAMED = "results/runs/*unsupervised*"


@dataclass(frozen=True)
class Outcome:
    """What came of a damaged file. `how`: healed, the file is as it was before; made anew, it is
    whole again with other bytes; refused, a message names it or its folder, and the exit code is
    not 0; unread, it stays damaged. In all of these everything else is as it should be, or not made
    yet; wrong: anything else."""

    kind: str
    damage: str
    how: str
    said: str
    differing: list[str]


def lost_runs(mirror: str) -> None:
    """A dataset and text features whose runs are gone, so that a pass reads them."""
    scenes.made(mirror)
    shutil.rmtree(RESULTS / "runs")
    shutil.rmtree(RESULTS / "passes")


def half_a_pass(mirror: str) -> None:
    """The counts of a pass that was killed."""
    from cliptrase.evaluate import tally

    scenes.drawn(mirror)
    save = tally.Progress.save

    class Killed(BaseException):
        pass

    def last(self: tally.Progress, path: Path, basis: dict[str, object]) -> None:
        save(self, path, basis)
        if self.position >= 4:
            raise Killed

    tally.Progress.save = last  # type: ignore[method-assign,assignment]
    try:
        scenes.a_pass(mirror)
    except Killed:
        return


def counted(mirror: str) -> None:
    """The counts of all shards of a pass, which are not added up yet."""
    scenes.drawn(mirror)
    for number in ("1/2", "2/2"):
        scenes.a_pass(mirror, shard=number)


def summed(mirror: str) -> None:
    """Add the shards up; where that says which is to be counted anew, do so."""
    scenes.a_pass(mirror, shards=2)


def archived(mirror: str) -> None:
    """An archive with its receipt, which a preparation reads."""
    scenes.fetched(mirror)


def half_a_download(mirror: str) -> None:
    """Half an archive, and the note about it."""
    from cliptrase.data.fetch import transfer

    write = transfer._Attempt._write

    class Killed(BaseException):
        pass

    def half(self: object, response: object, start: int, total: int) -> None:
        write(self, response, start, total)  # type: ignore[arg-type]
        part = DATA / f"raw/.{scenes.ARCHIVE}.part"
        with open(part, "r+b") as file:
            file.truncate(part.stat().st_size // 2)
        raise Killed

    transfer._Attempt._write = half  # type: ignore[method-assign,assignment]
    try:
        scenes.fetched(mirror)
    except Killed:
        return


def listing(mirror: str) -> None:
    """A dataset with a list of some of its images."""
    scenes.listed(mirror)


def everything(mirror: str) -> None:
    """A pass, its tables and its page, and what W&B was told."""
    scenes.made(mirror)
    scenes.published(mirror)
    scenes.told(mirror)


def published_again(mirror: str) -> None:
    """What a start makes of tables, the page and the ledger: those that markers ask for."""
    from cliptrase.pipeline import markers
    from cliptrase.publish.__main__ import main

    asked = {step: Path(step(scenes.SUITE)).read_text() for step in (markers.tables, markers.page)}
    if asked[markers.tables]:
        main(["tables", scenes.SUITE])
    if any(asked.values()):
        main(["page", scenes.SUITE])
    scenes.told(mirror)


@dataclass(frozen=True)
class Kind:
    """A kind of file: where one is, what leaves it, and what reads it, or a `share` of it."""

    name: str
    file: str
    ready: Callable[[str], None]
    act: Callable[[str], None]
    share: float = 1.0


def _run_files() -> Iterator[Kind]:
    names = ("confusion.npz", "per_image.npz", "metrics.json", "config.yaml", "provenance.json")
    for name in (*names, "maps/*.png", "legend.png", "legend.json"):
        yield Kind(f"run: {name}", f"{RUN}/{name}", scenes.made, scenes.a_pass)
    for name in ("regions.npz", "confusion.npz"):
        yield Kind(f"unsupervised run: {name}", f"{UNNAMED}/{name}", scenes.made, scenes.a_pass)
    yield Kind("pass file", "results/passes/kills/*.json", scenes.made, scenes.a_pass)


KINDS = (
    Kind("archive", f"data/raw/{scenes.ARCHIVE}", archived, scenes.prepared),
    Kind("archive: receipt", f"data/raw/{scenes.ARCHIVE}.json", archived, scenes.prepared),
    Kind("half a download", f"data/raw/.{scenes.ARCHIVE}.part", half_a_download, scenes.fetched),
    Kind(
        "half a download: note",
        f"data/raw/.{scenes.ARCHIVE}.part.json",
        half_a_download,
        scenes.fetched,
    ),
    Kind("dataset: list of images", "data/prepared/coco/subsets/*.txt", listing, scenes.listed),
    Kind(
        "dataset: images and masks",
        "data/prepared/shapes/samples.arrow",
        lost_runs,
        scenes.a_pass,
        share=0.02,  # six of two hundred images are read
    ),
    Kind("dataset: sums", "data/prepared/shapes/sums.npy", lost_runs, scenes.a_pass),
    Kind("dataset: self-check", "data/prepared/shapes/selfcheck.json", lost_runs, scenes.a_pass),
    Kind("text features", "data/text_features/*.npz", lost_runs, scenes.a_pass),
    Kind(
        "counts of a killed pass", "results/passes/kills/.*.partial.npz", half_a_pass, scenes.a_pass
    ),
    Kind("counts of a shard", "results/passes/kills/*.shard-1-of-2.npz", counted, summed),
    *_run_files(),
    Kind("table", "results/kills/tables/*named.csv", everything, published_again),
    Kind("tables: digests", "results/kills/tables/.rendered.json", everything, published_again),
    Kind("page", "results/kills/index.html", everything, published_again),
    Kind("page: digest", "results/kills/.rendered.json", everything, published_again),
    Kind("ledger of W&B", "results/kills/wandb/ledger.json", everything, published_again),
)


# What a whole start reads, or makes again: a file of each is damaged before the same start.
BEFORE_A_START = {
    "figure": "results/kills/figures/*.png",
    "figure: arrays": "results/kills/figures/fig1b_heatmaps.npz",
    "figures: digests": "results/kills/figures/.rendered.json",
    "pictures of the page": "results/kills/pictures/shapes_bg.npz",
    "pictures: why there are none": "results/kills/pictures/kept.json",
    "marker": "results/markers/passes/kills/*",
    "marker of code": "results/markers/code/publish",
    "note of Snakemake": ".snakemake/metadata/*",
    "lock of the folder": ".snakemake/cliptrase.lock",
    "log": "results/logs/kills/render_tables.log",
}


def before_a_start(starts: Starts, seed: int) -> Iterator[Outcome]:
    """Damage a file of each of these kinds at once, and start Snakemake."""
    work, spare = Work(scenes.SUITE), starts.place / "spare"
    whole = starts.undisturbed(work)
    shutil.copytree(starts.folder, spare, symlinks=True)
    for name, (damage, times) in DAMAGES.items():
        for time in range(min(times, 2)):
            shutil.rmtree(starts.folder)
            shutil.copytree(spare, starts.folder, symlinks=True)
            rng = random.Random(f"{seed} start {name} {time}")
            damaged = {}
            for kind, pattern in BEFORE_A_START.items():
                file = rng.choice(sorted(starts.folder.glob(pattern)))
                before = file.read_bytes()
                file.write_bytes(damage(before, 1.0, rng) if before else b"?")
                damaged[kind] = file, before, file.read_bytes()
            code, said = starts.run(work)
            others = set(kept.differing(kept.contents(starts.folder), whole))
            others -= {
                file.relative_to(starts.folder).as_posix() for file, _, _ in damaged.values()
            }
            for kind, (file, before, after) in damaged.items():
                there = file.read_bytes() if file.is_file() else None
                how = {before: "healed", after: "unread"}.get(there or b"", "made anew")
                if code or others:
                    how = "wrong"
                yield Outcome(kind, name, how, said[-400:].strip(), sorted(others))


def turn_a_bit(content: bytes, share: float, rng: random.Random) -> bytes:
    """One bit turned over, anywhere in the first `share`."""
    at = rng.randrange(int(len(content) * share))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut_off(content: bytes, share: float, rng: random.Random) -> bytes:
    """The end cut off, anywhere."""
    return content[: rng.randrange(len(content))]


def emptied(content: bytes, share: float, rng: random.Random) -> bytes:
    """Nothing left."""
    return b""


DAMAGES = {"a bit": (turn_a_bit, 4), "cut off": (cut_off, 2), "empty": (emptied, 1)}


def outcomes(kind: Kind, place: Path, mirror: str, seed: int) -> Iterator[Outcome]:
    """Damage a file of a kind in each way, several times, and do the work that reads it."""
    bench = Bench(Scene(kind.name, 0, kind.act, kind.ready), place, mirror)
    for name, (damage, times) in DAMAGES.items():
        for time in range(times):
            rng = random.Random(f"{seed} {kind.name} {name} {time}")
            yield _outcome(bench, kind, name, damage, rng)


def _outcome(
    bench: Bench,
    kind: Kind,
    name: str,
    damage: Callable[[bytes, float, random.Random], bytes],
    rng: random.Random,
) -> Outcome:
    bench.reset()
    file = sorted(bench.folder.glob(kind.file))[0]
    damaged = damage(file.read_bytes(), kind.share, rng)
    file.write_bytes(damaged)
    done = bench.run(kind.act)
    said = bench.log.read_text(errors="replace")
    now = kept.contents(bench.folder)
    differing = kept.differing(now, bench.contents)
    place = file.relative_to(bench.folder)
    others = (now.keys() & bench.contents.keys()) - {str(place)}
    right = all(now[name] == bench.contents[name] for name in others)
    named = (file.name in said or str(place.parent) in said) and "Traceback" not in said
    stays = file.is_file() and file.read_bytes() == damaged
    if not done.code and stays and right:
        how = "unread"
    elif not done.code and not differing:
        how = "healed"
    elif not done.code and differing == [str(place)]:
        how = "made anew"
    elif done.code and named and right:
        how = "refused"
    else:
        how = "wrong"
    return Outcome(kind.name, name, how, said[-400:].strip(), differing)
