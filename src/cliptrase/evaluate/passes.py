"""A pass: the images of a dataset streamed once through a model, for all the runs that share them.

Runs that are finished are skipped; a pass that was killed goes on where its counts were last saved.
A pass may be cut into shards (shards.py).
"""

import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from cliptrase.config import Run
from cliptrase.data import open_dataset
from cliptrase.errors import PassError, UserError, counted
from cliptrase.evaluate import agreement
from cliptrase.evaluate.basis import basis_of, part_of
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.evaluate.from_files import FilePredictor
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.shards import add_up
from cliptrase.evaluate.tally import Facts, Progress, tally_of
from cliptrase.evaluate.textcache import Encoded, text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.evaluate.write_runs import write_runs
from cliptrase.files import clear_leftovers, make_ready
from cliptrase.machine import cores
from cliptrase.model.backbones import load_networks
from cliptrase.model.load import load_clip
from cliptrase.runs import finished, store
from cliptrase.runs.provenance import Stages, describe, now
from cliptrase.runs.shards import WHOLE, Shard

log = logging.getLogger(__name__)

SAVE_EVERY = 256  # images
SAVE_AFTER = 60.0  # seconds, where so many images take longer
REPORT_EVERY = 256  # images
REPORT_AFTER = 10.0  # seconds, where so many images take longer
SHARED: dict[str, Callable[[Run], Any]] = {
    "the dataset": lambda run: (run.benchmark.dataset, run.benchmark.folder),
    "the model": lambda run: run.model,
    "the label maps of files": lambda run: run.method.digest,
    "image_size": lambda run: run.image_size,
    "protocol.name": lambda run: run.protocol.name,
    "protocol.short_side": lambda run: getattr(run.protocol, "short_side", None),
    "protocol.stride": lambda run: getattr(run.protocol, "stride", None),
    "limit": lambda run: run.limit,
}
T = TypeVar("T")


def run_pass(
    runs: dict[str, Run],
    *,
    partial: Path | str,
    out: Path | str = "results/runs",
    data: Path | str = "data",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    freeze_code: bool = False,
    batched: bool | None = None,
    save_every: int = SAVE_EVERY,
    counted_shards: Sequence[Path] = (),
) -> dict[str, Path]:
    """Make the run folders of `runs` (name → resolved run) in `out`; returns name → folder.

    partial: the file where counts are saved every `save_every` images and once a minute, deleted at
    the end. batch_size: images at once on a GPU, None for what the runs say. workers: threads that
    compute (CPU) or decode and count (GPU), None for as many as cores. freeze_code: let finished
    runs stand whatever code made them. batched: whole batches instead of one image a thread, None
    for what the device does best. counted_shards: files of `count_shard`, all of a pass, which are
    added up in the place of streaming the images.

    Raises UserError, with nothing half-written: an `out` or a folder of `partial` that cannot be
    written (before the pass), an image that cannot be read, a run folder of another configuration,
    a full disk, no such device, too little memory, runs that do not share dataset, model, image
    size, protocol and limit.
    """
    _check_shared(runs)
    todo = store.rescore(runs, out, data, freeze_code=freeze_code)
    there = len(runs) - len(todo)
    log.info("%s to make, %d already there", counted(len(todo), "run"), there)
    if todo and counted_shards:
        make_ready(Path(out))
        add_up(todo, counted_shards, Path(out), Path(data), any_code=freeze_code)
    elif todo:
        make_ready(Path(out))
        make_ready(Path(partial).parent)
        if Path(partial).is_dir():
            raise UserError(f"{partial}: a folder stands where counts are saved; move it away")
        workers = workers or cores()
        batch_size = batch_size or next(iter(todo.values())).batch_size
        device = "cpu" if _are_of_files(todo) else device
        with computing_on(device, alone=True) as chosen, single_threaded_pool(workers) as pool:
            # another pass may have made them while this one waited for a GPU
            todo = store.rescore(todo, out, data, freeze_code=freeze_code)
            in_batches = chosen.type == "cuda" if batched is None else batched
            if todo:  # no variable holds the pass, or its model would outlast the use of the GPU
                _Pass(todo, Path(data), chosen, batch_size, workers, pool, freeze_code).make(
                    Path(partial), save_every, in_batches, Path(out)
                )
        _forget(Path(partial))
    return {name: Path(out) / name for name in runs}


def count_shard(
    runs: dict[str, Run],
    shard: Shard,
    file: Path,
    *,
    partial: Path,
    data: Path | str = "data",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    freeze_code: bool = False,
) -> None:
    """Count the images of a shard for all of `runs`, and write the counts to `file`.

    Options, and what is raised, as `run_pass`.
    """
    _check_shared(runs)
    make_ready(file.parent)
    workers = workers or cores()
    batch_size = batch_size or next(iter(runs.values())).batch_size
    device = "cpu" if _are_of_files(runs) else device
    with computing_on(device, alone=True) as chosen, single_threaded_pool(workers) as pool:
        _Pass(runs, Path(data), chosen, batch_size, workers, pool, freeze_code, shard).keep(
            partial, SAVE_EVERY, chosen.type == "cuda", file
        )
    _forget(partial)


def _are_of_files(runs: Mapping[str, Run]) -> bool:
    """Whether their label maps are read from files: no model is loaded then."""
    return next(iter(runs.values())).method.digest is not None


def _forget(partial: Path) -> None:
    """Delete the saved counts, and what a pass left that was killed as it saved them."""
    partial.unlink(missing_ok=True)
    clear_leftovers(partial)


@contextlib.contextmanager
def _shared_errors() -> Iterator[None]:
    """Raise a UserError as PassError: every run of the pass has it."""
    try:
        yield
    except UserError as error:
        raise PassError(str(error)) from error


class _Pass:
    """A pass under way: opened when made, then streamed, then written."""

    def __init__(
        self,
        runs: dict[str, Run],
        data: Path,
        device: torch.device,
        batch_size: int,
        workers: int,
        pool: Executor,
        any_code: bool,
        shard: Shard = WHOLE,
    ) -> None:
        self.started, self.stages = now(), Stages()
        self.runs, self.device, self.workers, self.pool = runs, device, workers, pool
        self.folder = data
        first = next(iter(runs.values()))
        self.data = {name: finished.data_digest(run, data) for name, run in runs.items()}
        self.basis = basis_of(runs, data, device.type)
        with self.stages("open"):
            self.dataset = open_dataset(first, data, any_code=any_code)
            loader = Loader.of(self.dataset, runs.values(), data)
        self.predictor: Predictor | FilePredictor
        if _are_of_files(runs):
            self.predictor = FilePredictor.of(loader, self.dataset.ids, runs, self.stages)
        else:
            self.predictor = self._networks(loader, batch_size)
        self.shard, self.images = shard, shard.images(len(self.dataset))
        self.basis |= part_of(shard, len(self.dataset))
        images = len(self.images)
        self.progress = Progress({name: tally_of(run, images) for name, run in runs.items()})

    def _networks(self, loader: Loader, batch_size: int) -> Predictor:
        """The model and the words of the runs, loaded."""
        runs, device = self.runs, self.device
        with self.stages("open"):
            clip = load_clip(next(iter(runs.values())).model, device)
            needed = {name: run.method.networks for name, run in runs.items()}
            loaded = load_networks(itertools.chain(*needed.values()), device)
            for name, run in runs.items():
                if not needed[name] and (run.method.sam or run.method.dino):
                    log.warning(
                        "%s: no region votes, so that its second network is not run; "
                        "method.regions.vote=soft votes under every protocol",
                        name,
                    )
        with self.stages("text"):
            words = {name: run.vocabulary.model_dump_json() for name, run in runs.items()}
            alike = {words[name]: run for name, run in runs.items()}
            encoded: Encoded = {}
            texts = {
                key: text_of(run, clip, self.folder, self.workers, encoded)
                for key, run in alike.items()
            }
            jobs = {
                name: Job.of(
                    run, *texts[words[name]], {each.key: loaded[each.key] for each in needed[name]}
                )
                for name, run in runs.items()
            }
        return Predictor(clip, loader, jobs, self.stages, batch_size)

    @_shared_errors()
    def make(self, partial: Path, save_every: int, batched: bool, out: Path) -> None:
        """Add up every image, from where `partial` was saved, and write the run folders."""
        self._stream(partial, save_every, batched)
        about = {"workers": self.workers, "runs_in_pass": len(self.runs)}
        provenance = describe(self.stages, self.started, str(self.device), **about)
        write_runs(self.runs, self.progress, self.dataset.ids, out, self.folder, provenance)

    @_shared_errors()
    def keep(self, partial: Path, save_every: int, batched: bool, file: Path) -> None:
        """Add up the images of the shard, from where `partial` was saved, and write `file`."""
        self._stream(partial, save_every, batched)
        self.progress.seconds = dict(self.stages.seconds)
        self.progress.save(file, self.basis)

    def _stream(self, partial: Path, save_every: int, batched: bool) -> None:
        """Count the images, from where `partial` was saved."""
        progress, total = self.progress, len(self.images)
        progress.resume(partial, self.basis)
        self.stages.add(progress.seconds)
        positions = self.images[progress.position :]
        if self.shard.number == 1 and not progress.facts:
            progress.facts |= self._facts(batched, positions)
        if batched and isinstance(self.predictor, Predictor):
            results = self.predictor.batched(self.pool, positions)
        else:
            results = self.predictor.singly(self.pool, positions, ahead=2 * self.workers)
        with contextlib.closing(results):
            since = saved = time.perf_counter()
            for position, counts in _shown(results, progress.position, total):
                here = position - self.images.start
                for name, tally in progress.tallies.items():
                    tally.add(here, counts[name])
                progress.position = here + 1
                self.stages.add({"images": time.perf_counter() - since})
                since = time.perf_counter()
                due = progress.position % save_every == 0 or since - saved > SAVE_AFTER
                if due and progress.position < total:
                    saved = since
                    progress.seconds = dict(self.stages.seconds)
                    progress.save(partial, self.basis)

    def _facts(self, batched: bool, positions: Sequence[int]) -> Facts:
        """By run, what is known of them before an image is counted: their operations and data; and
        what a GPU's first image says compared with the CPU."""
        with self.stages("flops"):
            flops = self.predictor.flops(0)
        compared = dict[str, object]()
        predictor, on_gpu = self.predictor, batched and agreement.needed(self.device)
        if isinstance(predictor, Predictor) and on_gpu and positions:
            with self.stages("compare"):
                model = next(iter(self.runs.values())).model
                compared["unlike_cpu"] = agreement.with_cpu(predictor, model, positions)
        return {"flops": flops, "data": self.data, "compared": compared}


def shared(run: Run) -> tuple[Any, ...]:
    """The same for runs that can share a pass."""
    return tuple(part(run) for part in SHARED.values())


def _check_shared(runs: dict[str, Run]) -> None:
    """Raise UserError where one stream over the images could not serve all runs."""
    for key, part in SHARED.items():
        values = {str(part(run)) for run in runs.values()}
        if len(values) > 1:
            raise UserError(f"the runs of a pass must share {key}: {', '.join(sorted(values))}")


def _shown(results: Iterator[T], done: int, total: int) -> Iterator[T]:
    """The same results, with a bar on a terminal, and elsewhere a line every 256 images and every
    ten seconds."""
    if sys.stderr.isatty():
        yield from tqdm(results, initial=done, total=total, unit=" images")
        return
    start = said = time.perf_counter()
    for number, result in enumerate(results, start=1):
        yield result
        clock = time.perf_counter()
        due = number % REPORT_EVERY == 0 or clock - said > REPORT_AFTER
        if due or done + number == total:
            rate, said = number / (clock - start), clock
            log.info("%d of %s, %.1f a second", done + number, counted(total, "image"), rate)
