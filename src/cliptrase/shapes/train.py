"""Train the embedded CLIP (assets/shapes_clip) on scenes and their captions, on one core.

    python -m cliptrase.shapes.train          # all of it: 60 to 90 minutes on one core
    python -m cliptrase.shapes.train --card   # only measure and describe what is there

The model is open_clip's own CLIP class and learns from captions only; pixel labels never reach
this file. Everything random follows from the step's number, so a run that was interrupted ends
bit for bit where an uninterrupted one does (one thread, same machine). Run it in a checkout.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from cliptrase.files import atomic_write
from cliptrase.shapes import captions, descent, scenes
from cliptrase.shapes.model import (
    GRID,
    PATCH,
    CaptionTokenizer,
    encode_patches,
    encode_rows,
    export,
    new_model,
    to_patches,
)
from cliptrase.shapes.stream import Stream

_ORDER, _BATCH = 1, 2  # purposes of the streams of random numbers


@dataclass(frozen=True)
class Schedule:
    """All that decides the weights."""

    steps: int = 4400
    batch: int = 128
    scenes: int = 32_000
    # (share of the steps at which a phase ends, patches of 196 that are kept in it): FLIP.
    phases: tuple[tuple[float, int], ...] = ((0.78, 49), (0.9, 98), (1.0, 196))
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warm_up: int = 200
    seed: int = 1

    def kept(self, step: int) -> int:
        """How many patches an image keeps at this step."""
        return next(kept for end, kept in self.phases if step < end * self.steps or end == 1.0)

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine to zero, by steps."""
        return descent.half_cosine(step, self.steps, self.learning_rate, self.warm_up)


@dataclass(frozen=True)
class Store:
    """Pre-made scenes: patches (N, 196, 768) uint8, a patch's pixels as (3, 16, 16); contents."""

    patches: np.ndarray
    contents: list[captions.Content]


def training_scene(seed: int) -> scenes.Scene:
    """One in five shows a single object; two of three carry clutter, as in the benchmark."""
    return scenes.scene(seed, clutter=seed % 3 != 2, count=1 if seed % 5 == 0 else None)


def build_store(folder: Path, count: int) -> Store:
    """The first `count` training scenes under `folder`, made once (150 kB a scene)."""
    pixels, meta = folder / f"scenes-{count}.u8", folder / f"scenes-{count}.json"
    shape = (count, GRID * GRID, 3 * PATCH * PATCH)
    if not meta.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = pixels.with_suffix(".part")
        out = np.memmap(part, dtype=np.uint8, mode="w+", shape=shape)
        made_contents = []
        for index in range(count):
            made = training_scene(scenes.TRAIN_SEEDS[index])
            out[index] = to_patches(made.image)
            made_contents.append((made.objects, made.background))
            if index % 2000 == 1999:
                descent.report(f"scenes {index + 1}/{count}")
        out.flush()
        del out
        os.replace(part, pixels)
        with atomic_write(meta, "w") as file:
            json.dump(made_contents, file)
    contents = [captions.Content(tuple(o), b) for o, b in json.loads(meta.read_text())]
    return Store(np.memmap(pixels, dtype=np.uint8, mode="r", shape=shape), contents)


def batch(store: Store, schedule: Schedule, step: int) -> tuple[Tensor, Tensor, list[str]]:
    """Patches (B, n, 768) uint8, their positions (B, n), captions: all from the step's number."""
    count = len(store.contents)
    per_epoch = count // schedule.batch
    epoch, place = divmod(step, per_epoch)
    order = np.argsort(Stream(schedule.seed, _ORDER + 16 * epoch).uniforms(count), kind="stable")
    chosen = order[place * schedule.batch : (place + 1) * schedule.batch]
    stream = Stream(schedule.seed, _BATCH + 16 * step)
    cells = stream.uniforms(schedule.batch, GRID * GRID)
    keep = np.sort(np.argsort(cells, axis=1, kind="stable")[:, : schedule.kept(step)], axis=1)
    patches = np.empty((*keep.shape, 3 * PATCH * PATCH), dtype=np.uint8)
    texts = []
    for row, index in enumerate(chosen):
        kept = store.patches[index][keep[row]]
        if stream.chance(0.5):  # mirrored: the pixels of a patch, and its column
            kept = kept.reshape(-1, PATCH)[:, ::-1].reshape(kept.shape)
            keep[row] += GRID - 1 - 2 * (keep[row] % GRID)
        patches[row] = kept
        texts.append(captions.caption(store.contents[index], stream))
    return torch.from_numpy(patches), torch.from_numpy(keep), texts


def loss_of(model: CLIP, patches: Tensor, at: Tensor, rows: Tensor) -> Tensor:
    """CLIP's symmetric contrastive loss."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images, texts = encode_patches(model, patches, at), encode_rows(model, rows)
    images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    truth = torch.arange(len(logits))
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def train(
    store: Store, schedule: Schedule, checkpoint: Path, *, stop: int | None = None
) -> tuple[CLIP, dict]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the model and the record.

    Raises ValueError where the checkpoint is of another schedule. See `descent.run`.
    """
    tokenizer = CaptionTokenizer()
    model = new_model(tokenizer, schedule.seed).train()
    optimizer = descent.adamw(model, schedule.weight_decay, (0.9, 0.98), 1e-6)

    def take(step: int) -> float:
        patches, at, texts = batch(store, schedule, step)
        loss = loss_of(model, patches, at, tokenizer(texts))
        value = descent.descend(model, optimizer, schedule.rate(step), loss)
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        return value

    recipe, parts = asdict(schedule), {"model": model, "optimizer": optimizer}
    record = descent.run(recipe, schedule.steps, checkpoint, parts, take, every=50, stop=stop)
    return model.eval(), record


def main(argv: list[str] | None = None) -> None:
    """Train, export, measure, describe."""
    from cliptrase.shapes.card import write_card  # needs this module

    flags = {"card": "only measure and write the card", "export": "only export the checkpoint"}
    counts = {"steps": Schedule.steps, "scenes": Schedule.scenes}
    args = descent.options(argv, __doc__, "shapes_clip", counts, **flags)
    schedule = Schedule(steps=args.steps, scenes=args.scenes)
    checkpoint = args.store / f"checkpoint-{schedule.steps}.pt"
    if args.export:
        tokenizer = CaptionTokenizer()
        model = new_model(tokenizer, schedule.seed)
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
        export(model, tokenizer, args.out)
        return
    if not args.card:
        store = build_store(args.store, schedule.scenes)
        model, record = train(store, schedule, checkpoint)
        export(model, CaptionTokenizer(), args.out)
        about = {"threads": args.threads, "recipe": asdict(schedule)}
        descent.write_record(args.out, record | about)
    descent.report("measuring")
    write_card(args.out)
    descent.report(f"written to {args.out}")


if __name__ == "__main__":
    main()
