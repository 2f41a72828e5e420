"""Short trainings of the embedded CLIP that were tried beside its recipe.

`python -m benchmarks.trial_recipes PART_1` trains them and prints the one number of each
(trial_clip.py). PART_1 is the folder of the first part's weights, `part-1` in the store of a
training. From these weights, 38,400 pairs at a rate of 5e-4:

- plain: 300 steps of 128 pairs, as the second part has them;
- averaged: the mean of plain's weights after every tenth of its last 100 steps;
- curriculum: plain; a third of the steps sees scenes of one object, the next those without clutter;
- batches of 256: 150 steps of them. They fit into memory: the gradients that gradient caching adds
  up of smaller batches are taken at once.

From random weights, the first part in 300 steps, as many pairs:

- six blocks: of width 192, as they are;
- eight blocks: of width 160, with heads of 40. A step takes as many operations.
"""

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from open_clip.model import CLIP
from torch.optim.swa_utils import AveragedModel

from benchmarks.trial_clip import in_words, parts
from cliptrase.shapes import descent, scenes, train
from cliptrase.shapes.model import CaptionTokenizer, Tower, export

PLAIN = replace(train.SECOND, steps=300, learning_rate=5e-4)
LARGE = replace(PLAIN, steps=PLAIN.steps // 2, batch=2 * PLAIN.batch)
SIX = replace(train.FIRST, steps=300)
EIGHT = replace(SIX, tower=Tower(layers=8, width=160, head_width=40))
SCENES = 300  # of trial_clip's measures


def some(store: train.Store, wanted: Callable[[int], bool]) -> train.Store:
    """The scenes of a store whose seeds are wanted."""
    chosen = [index for index in range(len(store.contents)) if wanted(scenes.TRAIN_SEEDS[index])]
    contents, things = ([each[i] for i in chosen] for each in (store.contents, store.things))
    return train.Store(store.patches[chosen], contents, things)


def trials(store: train.Store, folder: Path, part_1: Path) -> Iterator[tuple[str, CLIP]]:
    """Train them one by one; checkpoints go to `folder`."""

    def go(
        name: str, schedule: train.Schedule, seen: train.Store = store, stop: int | None = None
    ) -> CLIP:
        """Train to step `stop`, or to the end."""
        checkpoint, start = folder / f"{name}.pt", part_1 if schedule.late else None
        return train.train(seen, schedule, checkpoint, start=start, stop=stop)[0]

    last = range(PLAIN.steps - 90, PLAIN.steps + 1, 10)
    ends = [go("plain", PLAIN, stop=stop) for stop in last]
    yield "plain", ends[-1]

    mean = AveragedModel(ends[0])
    for model in ends:
        mean.update_parameters(model)
    yield "averaged", mean.module

    go("curriculum", PLAIN, some(store, train.is_single), stop=PLAIN.steps // 3)
    bare = some(store, lambda seed: not train.has_clutter(seed))
    go("curriculum", PLAIN, bare, stop=PLAIN.steps * 2 // 3)
    yield "curriculum", go("curriculum", PLAIN)

    yield "batches of 256", go("large", LARGE)

    yield "six blocks", go("six", SIX)
    yield "eight blocks", go("eight", EIGHT)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part_1", type=Path)
    parser.add_argument("--store", type=Path, default=descent.ROOT / "data" / "shapes_train")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    store, folder = train.build_store(args.store, PLAIN.scenes), args.store / "trials"
    shutil.rmtree(folder, ignore_errors=True)  # none goes on from a checkpoint beyond its stops
    folder.mkdir()
    for name, model in trials(store, folder, args.part_1):
        export(model, CaptionTokenizer(), folder / name)
        descent.report(f"{name}: {in_words(parts(folder / name, SCENES))}")


if __name__ == "__main__":
    main()
