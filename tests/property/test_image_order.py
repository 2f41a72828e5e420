"""The order of a dataset's images, and which others are in it, change no byte of a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.few_scenes import write_scenes

from cliptrase import config
from cliptrase.evaluate import passes
from cliptrase.runs import scoring
from cliptrase.runs.counts import ImageCounts

SCENES = (0, 3, 4, 7, 9)
RUNS = [
    ["benchmark=shapes_bg", "method=cliptrase"],
    ["benchmark=shapes_bg", "method=cliptrase", "method.regions.vote=soft"],
    ["benchmark=shapes", "method=gem"],
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(scenes): run → folder, of the embedded model on those scenes."""
    root = tmp_path_factory.mktemp("orders")
    runs: dict[str, config.Run] = {}
    for overrides in RUNS:
        run = config.resolve(["model=shapes_clip", "image_size=112", *overrides])
        runs[run.name] = run

    def make(*scenes: int) -> dict[str, Path]:
        place = root / "-".join(map(str, scenes))
        data = write_scenes(place / "data", scenes)
        options = {"partial": place / "partial.npz", "out": place / "runs", "workers": 2}
        return passes.run_pass(runs, data=data, device="cpu", **options)

    return make


def test_images_in_any_order_and_any_company(made):
    straight, turned = made(*SCENES), made(*reversed(SCENES))
    few, others = made(SCENES[4], SCENES[1]), made(SCENES[0], SCENES[3], SCENES[2])
    assert len(straight) == len(RUNS)
    for run, folder in straight.items():
        file = folder / "confusion.npz"
        assert (turned[run] / file.name).read_bytes() == file.read_bytes()
        matrix, *parts = (
            np.load(some / file.name)["confusion"] for some in (folder, few[run], others[run])
        )
        assert np.array_equal(sum(parts), matrix) and len(np.unique(matrix)) > 5
        counts = scoring.read_counts(folder)
        scenes = scenes_of(counts)
        for some in (turned, few, others):
            found = scoring.read_counts(some[run])
            rows = [scenes.index(scene) for scene in scenes_of(found)]
            assert np.array_equal(found.tp, counts.tp[rows])
            assert np.array_equal(found.pred, counts.pred[rows])


def scenes_of(counts: ImageCounts) -> list[str]:
    return [name.partition(":")[2] for name in counts.ids.tolist()]
