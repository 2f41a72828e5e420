"""The order of a dataset's images, and which others are in it, change no byte of a matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptrase import config
from cliptrase.data import prepared
from cliptrase.data.recipes import png, recipe
from cliptrase.data.shapes.scenes import evaluation_scene
from cliptrase.evaluate import passes, store

SCENES = (0, 3, 4, 7, 9)
RUNS = [
    ["benchmark=shapes_bg", "method=cliptrase"],
    ["benchmark=shapes_bg", "method=cliptrase", "method.regions.vote=soft"],
    ["benchmark=shapes", "method=gem"],
]


def prepare(root: Path, scenes: Sequence[int]) -> Path:
    """A data folder whose `shapes` has these scenes, in this order."""
    folder = prepared.prepared_folder("shapes", root)
    folder.mkdir(parents=True)
    records = []
    for place, index in enumerate(scenes):  # ids must be sorted
        scene = evaluation_scene("shapes", index)
        records.append(
            prepared.Record(f"{place}:scene_{index}", png(scene.image), png(scene.label))
        )
    prepared.write_arrow(folder / prepared.ARROW, records)
    check = prepared.self_check(prepared.PreparedSamples(folder))
    check["recipe_sha256"] = recipe("shapes").digest()
    check["arrow_bytes"] = (folder / prepared.ARROW).stat().st_size
    (folder / prepared.SELFCHECK).write_text(json.dumps(check))
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(scenes): run → folder, of the embedded model on those scenes."""
    root = tmp_path_factory.mktemp("orders")
    runs: dict[str, dict[str, Any]] = {}
    for overrides in RUNS:
        run = config.resolve(["model=shapes_clip", "image_size=112", *overrides])
        runs[config.run_name(run)] = run

    def make(*scenes: int) -> dict[str, Path]:
        place = root / "-".join(map(str, scenes))
        data = prepare(place / "data", scenes)
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
        counts = store.read_counts(folder)
        scenes = scenes_of(counts)
        for some in (turned, few, others):
            found = store.read_counts(some[run])
            rows = [scenes.index(scene) for scene in scenes_of(found)]
            assert np.array_equal(found.tp, counts.tp[rows])
            assert np.array_equal(found.pred, counts.pred[rows])


def scenes_of(counts: store.ImageCounts) -> list[str]:
    return [name.partition(":")[2] for name in counts.ids.tolist()]
