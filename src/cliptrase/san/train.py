"""Train one SAN of an experiment, score it on the way, and write its run.

    python -m cliptrase.san.train EXPERIMENT ARM SEED

Everything random follows from the seed and the step's number, in every arm alike: arms differ in
the initial queries alone. A run that was interrupted goes on from its last checkpoint and ends bit
for bit where an uninterrupted one does (one thread, same machine).
"""

import functools
import json
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cliptrase.model.lean  # noqa: F401
from cliptrase.errors import UserError, exit_on_user_error, nearest
from cliptrase.evaluate.device import computing_on, out_of_memory
from cliptrase.evaluate.textcache import text_of
from cliptrase.files import atomic_write, make_ready, sha256_text, write_json
from cliptrase.model.load import Clip, load_clip
from cliptrase.model.precision import DTYPES
from cliptrase.runs.counts import GroundTruth
from cliptrase.runs.metrics import class_counts
from cliptrase.runs.provenance import commit, now, versions
from cliptrase.san import command, cost, settings
from cliptrase.san.losses import drawn_points, loss_of, truth_of, whole_of
from cliptrase.san.model import Answer, SanModel, label_maps
from cliptrase.san.photographs import Photographs
from cliptrase.san.queries import from_means
from cliptrase.san.regions import read_means
from cliptrase.san.settings import San
from cliptrase.san.store import NO_CLASS, Batch, Pictures, open_store
from cliptrase.shapes import descent
from cliptrase.shapes.stream import Stream

ORDER, POINTS = 1, 2  # purposes of the streams of random numbers
SAVED = 20  # checkpoints of a training


class Curve:
    """Pixels hit, true and predicted (checkpoints, pictures, K), filled as the training goes on,
    and the seconds of a CPU that its steps took, without scoring."""

    def __init__(self, checkpoints: int, pictures: int, classes: int) -> None:
        self.counts = torch.zeros(3, checkpoints, pictures, classes, dtype=torch.int32)
        self.cpu_seconds = 0.0

    def state_dict(self) -> dict[str, object]:
        """As `descent.run` saves it."""
        return {"counts": self.counts, "cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As it was saved."""
        self.counts, self.cpu_seconds = state["counts"], state["cpu_seconds"]


def begun(san: San, arm: str, seed: int, clip: Clip, text: Tensor, data: Path | str) -> SanModel:
    """A model before its training: of one seed the same in all arms, but for the queries."""
    if arm not in san.arms:
        raise UserError(f"unknown arm {arm!r}; {nearest(arm, san.arms)}")
    torch.manual_seed(seed)
    model = SanModel(san, clip, text)
    if arm != "plain":
        means = read_means(san, data)
        some = means.regions if arm == "cliptrase" else means.shuffled
        queries = from_means(some, san.queries, san.side.width, seed)
        with torch.no_grad():
            model.side.query.copy_(torch.from_numpy(queries))
    return model.to(clip.device)


def optimizer_of(model: nn.Module, san: San) -> torch.optim.Optimizer:
    """AdamW; norms, queries and positions do not decay."""
    still = {name for name, _ in model.named_parameters() if is_still(name)}
    parts = {
        decay: [p for name, p in model.named_parameters() if (name in still) != decay]
        for decay in (True, False)
    }
    groups = [
        {"params": parts[True], "weight_decay": san.weight_decay},
        {"params": parts[False], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=san.learning_rate)


def is_still(name: str) -> bool:
    """Whether a parameter does not decay."""
    last = name.rpartition(".")[2]
    return ".norm" in name or last in ("query", "query_position", "position", "clip_position")


def rows_of(san: San, seed: int, step: int) -> list[int]:
    """Which training pictures a step has: each once an epoch, in an order of the seed's own."""
    chosen = []
    for place in range(step * san.batch, (step + 1) * san.batch):
        epoch, at = divmod(place, san.pictures)
        chosen.append(int(order_of(san.pictures, seed, epoch)[at]))
    return chosen


@functools.lru_cache(maxsize=2)
def order_of(pictures: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch."""
    drawn = Stream(seed, ORDER + 16 * epoch).uniforms(pictures)
    return np.argsort(drawn, kind="stable")


class Training:
    """One run under way."""

    def __init__(self, san: San, pictures: Pictures, model: SanModel, seed: int) -> None:
        self.san, self.pictures, self.model, self.seed = san, pictures, model, seed
        self.optimizer = optimizer_of(model, san)
        self.device = model.text.device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=san.precision == "fp16")
        self.curve = Curve(len(san.checkpoints), pictures.scored, len(model.text))
        self.at_once = san.batch  # pictures in memory, fewer where a GPU has not the room

    def step(self, step: int) -> float:
        """Score if it is time, then one step of training. Returns its loss."""
        if step in self.san.checkpoints:
            self.score(step)
        start = time.process_time()
        rows = rows_of(self.san, self.seed, step)
        batch = self.pictures.teach(rows, self.seed, step)
        while True:
            try:
                loss = self.descend(batch, step)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or self.at_once == 1:
                    raise
                self.at_once = -(-self.at_once // 2)
        self.curve.cpu_seconds += time.process_time() - start
        return loss

    def descend(self, batch: Batch, step: int) -> float:
        """A step down the gradient of the loss of a batch, `at_once` pictures at a time."""
        san, total = self.san, 0.0
        truths = [truth_of(each, NO_CLASS, self.device) for each in batch.classes]
        stream = Stream(self.seed, POINTS + 16 * step)
        points = [drawn_points(truths, san.points, stream) for _ in san.supervised]
        whole = whole_of(truths, san.queries) if self.at_once < len(truths) else None
        for group in self.optimizer.param_groups:
            group["lr"] = san.learning_rate * (1 - step / san.iterations) ** san.power
        self.optimizer.zero_grad(set_to_none=True)
        for first in range(0, len(truths), self.at_once):
            some = slice(first, first + self.at_once)
            losses = [
                loss_of(each.classes, each.masks, truths[some], own.part(truths, some), whole)
                for each, own in zip(self.answers(batch, some), points, strict=True)
            ]
            loss = torch.stack(losses).sum()
            self.scaler.scale(loss).backward()
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), san.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total

    def answers(self, batch: Batch, some: slice) -> list[Answer]:
        """What the model says of some pictures of a batch."""
        san, model = self.san, self.model
        pixels = model.clip.normalise(batch.pixels[some])
        half = san.precision != "fp32"
        with torch.autocast(self.device.type, DTYPES[san.precision], enabled=half):
            if batch.tokens is None:
                height, width = (s * san.clip_size // san.image_size for s in pixels.shape[2:])
                seen = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
                tokens = model.clip_tokens(seen)
            else:
                tokens = {k: each[some].to(self.device) for k, each in batch.tokens.items()}
            answers: list[Answer] = model(pixels, tokens)
        return answers

    @torch.no_grad()
    def score(self, step: int) -> None:
        """Count the pixels of the pictures that score, at a checkpoint."""
        place, row, names = self.san.checkpoints.index(step), 0, len(self.model.text)
        for batch in self.pictures.to_score():
            answer = self.answers(batch, slice(None))[-1]
            maps = label_maps(answer, batch.classes[0].shape).cpu().numpy()
            for classes, predicted in zip(batch.classes, maps, strict=True):
                truth = GroundTruth.of(classes, names)
                counts = class_counts(truth.confusion(predicted))
                self.curve.counts[:, place, row] = torch.from_numpy(np.stack(counts))
                row += 1


def train(
    san: San,
    arm: str,
    seed: int,
    clip: Clip,
    text: Tensor,
    data: Path | str,
    checkpoint: Path,
    *,
    stop: int | None = None,
) -> Training:
    """A run from its beginning, or from `checkpoint`; up to step `stop`.

    Raises UserError where the checkpoint is damaged or of another experiment, and where the store
    or the regions are not there.
    """
    refuse_damaged(checkpoint)
    pictures: Pictures = Photographs(san, data) if san.dataset else open_store(san, data)
    training = Training(san, pictures, begun(san, arm, seed, clip, text, data), seed)
    queries = training.model.side.query.detach().cpu().numpy().tobytes()
    recipe = {
        "recipe": san.recipe(),
        "code": settings.code_of("train"),
        "arm": arm,
        "seed": seed,
        "queries": sha256_text(queries.hex()),
    }
    parts = {"model": training.model, "optimizer": training.optimizer, "curve": training.curve}
    parts["scaler"] = training.scaler
    every = max(1, san.iterations // (SAVED * descent.SAVE_EVERY))
    try:
        descent.run(
            recipe, san.iterations, checkpoint, parts, training.step, every=every, stop=stop
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    if stop is None:
        training.score(san.iterations)
    return training


def refuse_damaged(checkpoint: Path) -> None:
    """Raise UserError for a checkpoint that is not what was written: it is a zip archive with the
    CRC-32 of each part, which torch does not check."""
    if not checkpoint.exists():
        return
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            whole = archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        whole = False
    if not whole:
        raise UserError(f"{checkpoint}: a damaged checkpoint; delete it to start the run anew")


def write_run(san: San, file: Path, training: Training, about: dict[str, object]) -> None:
    """The counts of a run, the same bytes from the same run, and where they come from beside."""
    hit, true, predicted = training.curve.counts.numpy()
    with atomic_write(file) as opened:
        np.savez(opened, iterations=np.array(san.checkpoints), tp=hit, gt=true, pred=predicted)
    write_json(file.with_suffix(".json"), about)


def run_arm(san: San, arm: str, seed: int, data: Path) -> Path:
    """Train a run of an experiment and write it. Returns its file."""
    file = san.run_file(arm, seed)
    checkpoint = san.folder / "checkpoints" / f"{arm}-{seed}.pt"
    for folder in (file.parent, checkpoint.parent):
        make_ready(folder)
    torch.set_num_threads(1)
    with computing_on("cuda" if san.gpus else "cpu", alone=True) as device:
        clip = load_clip(san.run.model, device)
        _, text = text_of(san.run, clip, data)
        training = train(san, arm, seed, clip, text.features, data, checkpoint)
    about = {
        "recipe": json.loads(san.recipe()),
        "code": settings.code_of("train"),
        "arm": arm,
        "seed": seed,
        "parameters": sum(each.numel() for each in training.model.parameters()),
        "cpu_seconds": round(training.curve.cpu_seconds, 1),
        "finished": now(),
        "commit": commit(),
        "versions": versions(),
    }
    write_run(san, file, training, about)
    checkpoint.unlink()  # it would be in the way when the run is made again of other code
    return file


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Train one run."""
    parser = command.parser(__doc__)
    parser.add_argument("arm", help=", ".join(settings.ARMS))
    parser.add_argument("seed", type=int)
    args = parser.parse_args(arguments)
    san = settings.load(args.experiment)
    cost.refuse_without_gpu(san)
    print(run_arm(san, args.arm, args.seed, args.data))


if __name__ == "__main__":
    main()
