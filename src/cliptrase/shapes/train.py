"""Train the embedded CLIP (assets/shapes_clip) on scenes and their captions, on one or two cores.

    python -m cliptrase.shapes.train          # all of it: about three hours of a core
    python -m cliptrase.shapes.train --card   # only measure and describe what is there

The model is open_clip's own CLIP class and learns from captions only: of scenes, and of windows of
them, by where the generator laid things out. Pixel labels never reach this file. Everything random
follows from the step's number, so a run that was interrupted ends bit for bit where an
uninterrupted one does (one thread, same machine). Run it in a checkout.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cliptrase.config.weights import WEIGHTS
from cliptrase.files import atomic_write, sha256_file
from cliptrase.shapes import captions, descent, scenes
from cliptrase.shapes.model import (
    GRID,
    PATCH,
    CaptionTokenizer,
    Tower,
    encode_patches,
    encode_rows,
    export,
    imported,
    new_model,
    to_patches,
)
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.views import View, Window, content, shown, window

_ORDER, _BATCH, _WAITS = 1, 2, 3  # purposes of the streams of random numbers


@dataclass(frozen=True)
class Schedule:
    """All that decides the weights."""

    steps: int = 4400
    batch: int = 128
    scenes: int = 32_000
    # (share of the steps at which a phase ends, patches that are kept in it at most): FLIP.
    phases: tuple[tuple[float, int], ...] = ((0.78, 49), (0.9, 98), (1.0, 196))
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warm_up: int = 200
    seed: int = 1
    tower: Tower = field(default_factory=Tower)
    views: tuple[View, ...] = (View(),)  # by turns, a step each
    # Share of the images whose [CLS] begins to read at a random block: grows evenly from 0 to this.
    late: float = 0.0
    products: bool = False  # attention as plain products: faster on a CPU, rounded otherwise
    start: str = ""  # sha256 of the weights that it goes on from; random ones without

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Self:
        """The schedule that a record has."""
        phases = tuple((end, kept) for end, kept in recipe["phases"])
        views = tuple(View(*each) for each in recipe["views"])
        shapes = {"tower": Tower(**recipe["tower"]), "views": views}
        return cls(**{**recipe, **shapes, "phases": phases})

    def view(self, step: int) -> View:
        """What is seen of the scenes of this step."""
        return self.views[step % len(self.views)]

    def kept(self, step: int) -> int:
        """How many patches an image keeps at this step: no more than the smallest window has."""
        kept = next(kept for end, kept in self.phases if step < end * self.steps or end == 1.0)
        return min(kept, self.view(step).smallest ** 2)

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine to zero, by steps."""
        return descent.half_cosine(step, self.steps, self.learning_rate, self.warm_up)


# The embedded CLIP is trained in two parts. The first shows whole scenes at 224 px. The second goes
# on from its weights with windows of scenes too, at 224 and 336 px; and [CLS], which reads what is
# easy in early blocks, where last-block methods do not look, often has to wait.
FIRST = Schedule()
SECOND = Schedule(
    steps=3000,
    phases=((0.8, 49), (0.95, 98), (0.98, 196), (1.0, 441)),
    learning_rate=7e-4,
    warm_up=100,
    views=(View(), View(14, 6, 12), View(21, 21, 21), View(21, 6, 14)),
    late=0.6,
    products=True,
)


@dataclass(frozen=True)
class Store:
    """Pre-made scenes: patches (N, 196, 768) uint8, a patch's pixels as (3, 16, 16); contents; and
    where things were laid out."""

    patches: np.ndarray
    contents: list[captions.Content]
    things: list[tuple[scenes.Thing, ...]]


def is_single(seed: int) -> bool:
    """Whether a training scene shows a single object: one in five does."""
    return seed % 5 == 0


def has_clutter(seed: int) -> bool:
    """Whether a training scene carries clutter: two of three do, as in the benchmark."""
    return seed % 3 != 2


def training_scene(seed: int) -> scenes.Scene:
    """The scene of a training seed."""
    return scenes.scene(seed, clutter=has_clutter(seed), count=1 if is_single(seed) else None)


def build_store(folder: Path, count: int) -> Store:
    """The first `count` training scenes under `folder`, made once (150 kB a scene)."""
    pixels, meta = folder / f"scenes-{count}.u8", folder / f"contents-{count}.json"
    shape = (count, GRID * GRID, 3 * PATCH * PATCH)
    if not meta.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = pixels.with_suffix(".part")
        out = np.memmap(part, dtype=np.uint8, mode="w+", shape=shape)
        made_contents = []
        for index in range(count):
            made = training_scene(scenes.TRAIN_SEEDS[index])
            out[index] = to_patches(made.image)
            made_contents.append((made.objects, made.background, made.things))
            if index % 2000 == 1999:
                descent.report(f"scenes {index + 1}/{count}")
        out.flush()
        del out
        os.replace(part, pixels)
        with atomic_write(meta, "w") as file:
            json.dump(made_contents, file)
    known = json.loads(meta.read_text())
    contents = [captions.Content(tuple(objects), background) for objects, background, _ in known]
    things = [tuple(scenes.Thing(*each) for each in laid_out) for *_, laid_out in known]
    return Store(np.memmap(pixels, dtype=np.uint8, mode="r", shape=shape), contents, things)


def batch(store: Store, schedule: Schedule, step: int) -> tuple[Tensor, Tensor, list[str]]:
    """Patches (B, n, 768) uint8, their positions (B, n), captions: all from the step's number."""
    view, kept_of_each = schedule.view(step), schedule.kept(step)
    count = len(store.contents)
    per_epoch = count // schedule.batch
    epoch, place = divmod(step, per_epoch)
    order = np.argsort(Stream(schedule.seed, _ORDER + 16 * epoch).uniforms(count), kind="stable")
    chosen = order[place * schedule.batch : (place + 1) * schedule.batch]
    stream = Stream(schedule.seed, _BATCH + 16 * step)
    cells = stream.uniforms(schedule.batch, view.largest**2)
    keep = np.empty((schedule.batch, kept_of_each), dtype=np.int64)
    patches = np.empty((*keep.shape, 3 * PATCH * PATCH), dtype=np.uint8)
    texts = []
    for row, index in enumerate(chosen):
        seen = store.contents[index]
        at = Window(0, 0, view.grid)
        if not view.whole:
            at = window(view, stream)
            seen = content(seen, store.things[index], at, view.grid)
        order = np.argsort(cells[row, : at.side**2], kind="stable")
        places = np.sort(order[:kept_of_each])
        kept = shown(store.patches[index], at, view.grid, places)
        keep[row] = at.cells(places, view.grid)
        if stream.chance(0.5):  # mirrored: the pixels of a patch, and its column
            kept = kept.reshape(-1, PATCH)[:, ::-1].reshape(kept.shape)
            keep[row] += view.grid - 1 - 2 * (keep[row] % view.grid)
        patches[row] = kept
        texts.append(captions.caption(seen, stream))
    return torch.from_numpy(patches), torch.from_numpy(keep), texts


def waits(schedule: Schedule, step: int) -> Tensor | None:
    """How many blocks each image's [CLS] waits before it reads (B,); None where none ever waits."""
    if not schedule.late:
        return None
    layers = schedule.tower.layers
    draws = Stream(schedule.seed, _WAITS + 16 * step).uniforms(2, schedule.batch)
    blocks = np.minimum(draws[0] * layers, layers - 1).astype(np.int64)
    share = schedule.late * step / schedule.steps
    return torch.from_numpy(np.where(draws[1] < share, blocks, 0))


def loss_of(
    model: CLIP,
    patches: Tensor,
    at: Tensor,
    rows: Tensor,
    grid: int = GRID,
    waits: Tensor | None = None,
) -> Tensor:
    """CLIP's symmetric contrastive loss. `grid`, `waits`: as `encode_patches` has them."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = encode_patches(model, patches, at, grid=grid, waits=waits)
        texts = encode_rows(model, rows)
    images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    truth = torch.arange(len(logits))
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def train(
    store: Store,
    schedule: Schedule,
    checkpoint: Path,
    *,
    start: Path | None = None,
    stop: int | None = None,
) -> tuple[CLIP, dict]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the model and the record.

    start: the folder of the model that it begins with; the record's recipe has its digest. Raises
    ValueError where the checkpoint is of another schedule. See `descent.run`.
    """
    tokenizer = CaptionTokenizer()
    model = new_model(tokenizer, schedule.seed, schedule.tower).train()
    if start is not None:
        imported(model, tokenizer, start)
        schedule = replace(schedule, start=sha256_file(start / WEIGHTS))
    optimizer = descent.adamw(model, schedule.weight_decay, (0.9, 0.98), 1e-6)

    def take(step: int) -> float:
        patches, at, texts = batch(store, schedule, step)
        rows, grid = tokenizer(texts), schedule.view(step).grid
        with sdpa_kernel(SDPBackend.MATH) if schedule.products else nullcontext():
            loss = loss_of(model, patches, at, rows, grid, waits(schedule, step))
            value = descent.descend(model, optimizer, schedule.rate(step), loss)
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        return value

    recipe, parts = asdict(schedule), {"model": model, "optimizer": optimizer}
    record = descent.run(recipe, schedule.steps, checkpoint, parts, take, every=25, stop=stop)
    return model.eval(), record


def train_parts(
    parts: Sequence[Schedule], store: Store, folder: Path
) -> tuple[CLIP, dict[str, Any]]:
    """Train the parts of a recipe, each from the weights of the one before as fp16 has them.

    A part that is finished under `folder` is not trained again. Returns the model and the record of
    the last part; its "before" is the list of those of the others.
    """
    before: list[dict[str, Any]] = []
    start: Path | None = None
    for number, part in enumerate(parts, 1):
        model, record = train(store, part, folder / f"checkpoint-{number}.pt", start=start)
        if number < len(parts):
            start = folder / f"part-{number}"
            export(model, CaptionTokenizer(), start)
            before.append(record)
    return model, record | {"before": before}


def by_hand(folder: Path) -> dict[str, Any]:
    """What was tried beside the recipe, from the record in a folder: it stays when the recipe runs
    again."""
    path = folder / "training.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: record[name] for name in ("trials", "trials_note") if name in record}


def main(argv: list[str] | None = None) -> None:
    """Train, export, measure, describe."""
    from cliptrase.shapes.card import write_card  # needs this module

    flags = {"card": "only measure and write the card"}
    counts = {"steps": 0, "scenes": 0}  # 0: as the recipe says
    args = descent.options(argv, __doc__, "shapes_clip", counts, **flags)
    if not args.card:
        given = {name: getattr(args, name) for name in counts if getattr(args, name)}
        parts = [replace(part, **given) for part in (FIRST, SECOND)]
        store = build_store(args.store, parts[0].scenes)
        model, record = train_parts(parts, store, args.store)
        export(model, CaptionTokenizer(), args.out)
        descent.write_record(args.out, record | by_hand(args.out))
    descent.report("measuring")
    write_card(args.out)
    descent.report(f"written to {args.out}")


if __name__ == "__main__":
    main()
