"""Run folders without a model: counts that are drawn, written by the store as a pass would."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from tests.unit.publish.reading import DISCREPANCIES, PEERS, lines_of

from cliptrase import plan as planning
from cliptrase.config import Run
from cliptrase.config.error_names import CATEGORIES, OF_BACKGROUND
from cliptrase.config.kinds import has_background
from cliptrase.files import sha256_file
from cliptrase.plan import Plan
from cliptrase.publish.tables.cells import Line
from cliptrase.runs import finished, scoring, store
from cliptrase.runs.counts import ImageCounts, RegionCounts
from cliptrase.runs.ledger import BINS, HALVES, Ledger, sparse

QUALITY = {"clip": 0.35, "sclip": 0.6, "cliptrase": 0.75}
PROVENANCE = {"code": "0" * 64, "data": None, "commit": "0123456789abcdef+dirty", "seconds": {}}


def seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def draw(name: str, run: Run, images: int, classes: int) -> scoring.Result:
    """A result in which better methods hit more pixels; the same for the same arguments.

    Peers are about as good as `cliptrase`, each on images of its own liking.
    """
    truth = np.random.default_rng(seed_of(run.benchmark.dataset))
    own = np.random.default_rng(seed_of(name))
    known = run.method.name in QUALITY
    quality = QUALITY.get(run.method.name, 0.75) + 0.1 * own.random()
    gt = truth.integers(50, 1000, size=(images, classes))
    liking = (truth if known else own).uniform(0.7, 1.3, size=gt.shape)
    hits = np.minimum(1.0, quality * liking)
    tp = np.floor(gt * hits).astype(np.int64)
    matrices = np.zeros((images, classes, classes), np.int64)
    here = np.arange(classes)
    matrices[:, here, here] = tp
    matrices[:, here, (here + 1) % classes] += gt - tp
    if run.vocabulary.distractors:
        stolen = (gt - tp) // 2
        matrices[:, here, (here + 1) % classes] -= stolen
        matrices = np.concatenate([matrices, stolen[:, :, None]], axis=2)
    counts = ImageCounts(
        ids=np.array([f"image-{i:03d}" for i in range(images)]),
        skipped=np.zeros(images, np.bool_),
        tp=tp.astype(np.int32),
        gt=gt.astype(np.int32),
        pred=matrices.sum(axis=1)[:, :classes].astype(np.int32),
    )
    flops = 1000 if run.method.name == "clip" else 1200
    names, matrix = [f"class {i}" for i in here], matrices.sum(axis=0)
    if run.method.unsupervised is None:
        ledger = draw_ledger(counts, own, has_background(run)) if run.ledger else None
        return scoring.Result(names, matrix, counts, flops, ledger=ledger)
    of_image = np.arange(images, dtype=np.int32)  # a region each
    pixels, looks = gt.astype(np.int32), np.ones((images, 1), np.float32)
    regions = RegionCounts(
        counts.ids, counts.skipped, of_image, pixels.sum(axis=1, dtype=np.int32), pixels, looks
    )
    return scoring.Result(names, matrix, counts, flops, regions)


def draw_ledger(counts: ImageCounts, random: np.random.Generator, background: bool) -> Ledger:
    """A ledger whose categories add up to the counts; its borders and oracles are like the counts
    of all pixels, a little better."""
    images, classes = counts.gt.shape
    wrong = (counts.gt - counts.tp).reshape(-1)
    shares = random.dirichlet(np.ones(len(CATEGORIES)), wrong.shape)
    parts = np.floor(shares * wrong[:, None]).astype(np.int32)
    if not background:
        parts[:, [CATEGORIES.index(name) for name in OF_BACKGROUND if name in CATEGORIES]] = 0
    parts[:, -1] += wrong - parts.sum(axis=1)
    tp, gt, pred = (each.reshape(-1) for each in (counts.tp, counts.gt, counts.pred))
    better = tp + wrong // 2
    numbers = np.column_stack([parts, tp // 4, gt // 4, pred // 4, better, gt, better, gt])
    image = np.arange(images, dtype=np.int32).repeat(classes)
    label = np.tile(np.arange(classes, dtype=np.int32), images)
    confidence, best = np.zeros((2, BINS), np.int64), np.zeros((2, HALVES), np.int64)
    confidence[:, ::100], best[:, ::400] = random.integers(1, 50, (2, 2, 1))
    return Ledger(image, label, numbers.astype(np.int32), sparse(confidence), sparse(best))


def make_runs(
    suite: Plan,
    results: Path,
    names: Iterable[str] | None = None,
    images: int = 6,
    classes: int = 3,
) -> list[str]:
    """Write the run folders of `names` (None: all of the plan); returns the names."""
    made = list(suite.runs if names is None else names)
    with mock.patch("os.fsync"):  # what is drawn may be lost
        for name in made:
            run = suite.runs[name]
            provenance = PROVENANCE | {"labels": finished.labels_digest(run)}
            store.write(results / "runs", run, draw(name, run, images, classes), provenance)
    return made


def make_pass_files(suite: Plan, results: Path) -> None:
    """Write down, as passes do, the digests of the runs that exist."""
    folder = results / "passes" / suite.suite
    folder.mkdir(parents=True, exist_ok=True)
    for one in suite.passes.values():
        files = {name: results / "runs" / name / "metrics.json" for name in one.runs}
        digests = {name: sha256_file(file) for name, file in files.items() if file.exists()}
        (folder / f"{one.name}.json").write_text(json.dumps(digests))


@functools.cache
def load_plan(suite: str) -> Plan:
    return planning.load(suite)


@pytest.fixture(scope="session")
def paper() -> Plan:
    """The paper's suite: its numbers are comparable with the printed ones; needs no weights."""
    return load_plan("paper")


@pytest.fixture(scope="session")
def shapes() -> Plan:
    return load_plan("shapes")


@pytest.fixture(scope="session")
def make() -> Callable[..., list[str]]:
    return make_runs


@pytest.fixture(scope="session")
def note_passes() -> Callable[[Plan, Path], None]:
    return make_pass_files


@pytest.fixture(scope="session")
def whole_paper(paper: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with every run of the paper's suite. Not to be changed by a test."""
    results = tmp_path_factory.mktemp("paper")
    make_runs(paper, results)
    make_pass_files(paper, results)
    return results


@pytest.fixture(scope="session")
def discrepancies(paper: Plan, whole_paper: Path) -> list[Line]:
    return lines_of(paper, whole_paper, DISCREPANCIES)


@pytest.fixture(scope="session")
def peers(paper: Plan, whole_paper: Path) -> list[Line]:
    return lines_of(paper, whole_paper, PEERS)
