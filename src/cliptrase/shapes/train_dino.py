"""Train the embedded DINO (assets/shapes_dino) on scenes alone, on one core.

    python -m cliptrase.shapes.train_dino          # all of it: about 90 minutes on one core
    python -m cliptrase.shapes.train_dino --card   # only measure and describe what is there

The network is timm's own VisionTransformer. It learns as DINO (arXiv 2104.14294) and iBOT
(arXiv 2111.07832) do, by agreeing with a slow copy of itself about two views of a scene; neither
captions nor labels reach this file. Everything random follows from the step's number, so a run
that was interrupted ends bit for bit where an uninterrupted one does (one thread, same machine).
"""

import copy
import functools
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cliptrase.files import atomic_write
from cliptrase.shapes.model import GRID as TILES
from cliptrase.shapes.model import PATCH as TILE
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import Store

SIZE, PATCH, WIDTH = 224, 14, 192
GRID = SIZE // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = {
    "img_size": SIZE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": 6,
    "num_heads": 3,
    "mlp_ratio": 4,
    "num_classes": 0,
}
SAVE_EVERY = 50  # steps
_VIEWS = 3  # purpose of the streams of random numbers
report = functools.partial(print, flush=True)


@dataclass(frozen=True)
class Schedule:
    """All that decides the weights.

    Nothing depends on the number of steps before the last phase, in which the learning rate falls.
    """

    # (steps, scenes a step, side of a view in pixels)
    phases: tuple[tuple[int, int, int], ...] = ((1300, 32, 112), (300, 8, 224))
    scenes: int = 16_000
    prototypes: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.994  # of the teacher
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)  # linear in `warm_up_temperature`
    warm_up_temperature: int = 400
    warm_up: int = 200
    seed: int = 1

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(steps for steps, _, _ in self.phases)

    def phase(self, step: int) -> tuple[int, int]:
        """Scenes of this step, and the side of a view in pixels."""
        for steps, batch, side in self.phases:
            if step < steps:
                return batch, side
            step -= steps
        raise ValueError("there is no such step")

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, and half a cosine to zero in the last phase."""
        last = self.phases[-1][0]
        done = max(0, step - (self.steps - last)) / last
        warm = min(1.0, (step + 1) / self.warm_up)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done))

    def temperature(self, step: int) -> float:
        """Of the teacher."""
        low, high = self.teacher_temperature
        return low + (high - low) * min(1.0, step / self.warm_up_temperature)


class Network(nn.Module):
    """The ViT with the head that training needs: prototypes' cosines of a token."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.vit = VisionTransformer(**MODEL)
        for each in self.vit.blocks:
            each.attn.fused_attn = False  # its backward pass on a CPU takes a third of a step
        self.mask_token = nn.Parameter(torch.zeros(WIDTH))
        self.head = nn.Sequential(
            nn.Linear(WIDTH, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 64)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, 64))

    def tokens(self, pixels: Tensor, masked: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + N, 192) after the final norm, [CLS] first, of normalised pixels
        (B, 3, s, s); `masked` (B, N) bool: patches that the learned mask token stands for."""
        vit = self.vit
        x = vit.patch_embed.proj(pixels)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1)
        return vit.norm(vit.blocks(x + positions(vit.pos_embed, side)))

    def cosines(self, tokens: Tensor) -> Tensor:
        """Cosines (..., K) float32 of the prototypes with the head's output of tokens."""
        z = F.normalize(self.head(tokens).float(), dim=-1)
        with torch.autocast("cpu", enabled=False):
            return z @ F.normalize(self.prototypes, dim=-1).T


def positions(table: Tensor, side: int) -> Tensor:
    """The positional table (1, 1 + side², C) of a side × side grid, resized as DINO does."""
    native = math.isqrt(table.shape[1] - 1)
    if side == native:
        return table
    patches = table[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, scale_factor=(side + 0.1) / native, mode="bicubic")
    return torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def views(store: Store, schedule: Schedule, step: int) -> tuple[Tensor, Tensor]:
    """Normalised pixels (2B, 3, s, s) of two views of each scene, view by view, and their masked
    patches (2B, N) bool: every second view has a masked block. All from the step's number."""
    batch, side = schedule.phase(step)
    stream = Stream(schedule.seed, _VIEWS + 16 * step)
    chosen = [stream.integer(len(store.patches)) for _ in range(batch)]
    pixels, masks = [], []
    for place in range(2 * batch):
        image = picture(store, chosen[place % batch])
        pixels.append(view(image, side, stream))
        masked = (place + place // batch) % 2 == 0
        masks.append(
            block(side // PATCH, stream) if masked else np.zeros((side // PATCH,) * 2, bool)
        )
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (torch.stack(pixels) - mean) / std, torch.from_numpy(np.stack(masks)).flatten(1)


def picture(store: Store, index: int) -> Tensor:
    """A scene of the store as (3, 224, 224) uint8."""
    tiles = store.patches[index].reshape(TILES, TILES, 3, TILE, TILE).transpose(2, 0, 3, 1, 4)
    return torch.from_numpy(tiles.reshape(3, SIZE, SIZE))


# Hue turns the plane of I and Q of YIQ.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def view(image: Tensor, side: int, stream: Stream) -> Tensor:
    """A random view (3, side, side) in [0, 1] of an image (3, H, W) uint8.

    A crop of 40 to 100 % of the area, its sides 3 : 4 to 4 : 3; mirrored or not; brightness and
    contrast ±0.3, saturation ±0.2, hue ±0.02 of a turn (colour is meaning here); one in ten grey,
    three in ten blurred.
    """
    full = image.shape[-1]
    area, ratio = stream.uniform(0.4, 1), math.exp(math.log(4 / 3) * stream.uniform(-1, 1))
    height = min(full, round(full * math.sqrt(area / ratio)))
    width = min(full, round(full * math.sqrt(area * ratio)))
    top, left = stream.integer(full - height + 1), stream.integer(full - width + 1)
    mirror, bright, contrast = (
        stream.chance(0.5),
        stream.uniform(0.7, 1.3),
        stream.uniform(0.7, 1.3),
    )
    saturation, turn = stream.uniform(0.8, 1.2), 2 * math.pi * stream.uniform(-0.02, 0.02)
    grey, blur = stream.chance(0.1), stream.chance(0.3)

    crop = image[None, :, top : top + height, left : left + width].float() / 255
    shown = F.interpolate(crop, (side, side), mode="bilinear", antialias=True)
    if mirror:
        shown = shown.flip(-1)
    saturation = 0.0 if grey else saturation
    chroma = saturation * np.array(
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    )
    change = np.eye(3)
    change[1:, 1:] = chroma
    colour = torch.from_numpy(np.linalg.inv(_YIQ) @ change @ _YIQ * bright).float()
    shown = torch.einsum("ij,bjhw->bihw", colour, shown)
    middle = shown.mean()
    shown = ((shown - middle) * contrast + middle).clamp(0, 1)
    if blur:
        kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        rows = kernel.view(1, 1, 5, 1).expand(3, 1, 5, 1)
        shown = F.conv2d(F.pad(shown, (2, 2, 2, 2), mode="replicate"), rows, groups=3)
        shown = F.conv2d(shown, rows.transpose(2, 3), groups=3)
    return shown[0]


def block(grid: int, stream: Stream) -> np.ndarray:
    """A random rectangle of 10 to 50 % of a grid, (grid, grid) bool."""
    area, ratio = stream.uniform(0.1, 0.5) * grid**2, math.exp(math.log(2) * stream.uniform(-1, 1))
    height = min(grid, max(1, round(math.sqrt(area / ratio))))
    width = min(grid, max(1, round(area / height)))
    top, left = stream.integer(grid - height + 1), stream.integer(grid - width + 1)
    out = np.zeros((grid, grid), bool)
    out[top : top + height, left : left + width] = True
    return out


def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean H(teacher, student) of probabilities and logits (n, K)."""
    return -(teacher * F.log_softmax(student, dim=-1)).sum(dim=-1).mean()


def entropy(probabilities: Tensor) -> float:
    """Entropy of the mean of probabilities (n, K), in nats."""
    mean = probabilities.mean(dim=0)
    return float(-(mean * mean.clamp_min(1e-12).log()).sum())


class Pair:
    """A student, its teacher, their optimiser and the centres of the teacher's output."""

    def __init__(self, schedule: Schedule) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule = schedule
        self.student = Network(schedule.prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centres = torch.zeros(2, schedule.prototypes)  # of [CLS] tokens, of patches
        matrices = [p for p in self.student.parameters() if p.ndim >= 2]
        vectors = [p for p in self.student.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)

    def losses(self, pixels: Tensor, masked: Tensor, step: int) -> tuple[Tensor, Tensor, list]:
        """DINO's loss of the [CLS] tokens and iBOT's of the masked patches; moves the centres.

        Also two entropies of the mean teacher output: of [CLS] tokens, of masked patches.
        """
        schedule = self.schedule
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                tokens = self.teacher.tokens(pixels)
                seen = [self.teacher.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
            tokens = self.student.tokens(pixels, masked)
            answers = [self.student.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
        temperature = schedule.temperature(step)
        cls, patches = (
            ((x - centre) / temperature).softmax(dim=-1)
            for x, centre in zip(seen, self.centres, strict=True)
        )
        for centre, x in zip(self.centres, seen, strict=True):
            centre.mul_(0.9).add_(x.mean(dim=0), alpha=0.1)
        students = [x / schedule.student_temperature for x in answers]
        other = cls.roll(len(cls) // 2, dims=0)  # the teacher of the other view
        found = [entropy(cls), entropy(patches)]
        return cross_entropy(other, students[0]), cross_entropy(patches, students[1]), found

    def step(self, pixels: Tensor, masked: Tensor, step: int) -> list[float]:
        """One step of training: both losses and both entropies."""
        schedule = self.schedule
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        cls, patches, found = self.losses(pixels, masked, step)
        self.optimizer.zero_grad(set_to_none=True)
        (cls + patches).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                slow.lerp_(fast, 1 - schedule.momentum)
        return [cls.item(), patches.item(), *found]

    def state(self) -> dict[str, Any]:
        """All that changes in training."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "centres": self.centres,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.centres.copy_(state["centres"])


def train(
    store: Store, schedule: Schedule, checkpoint: Path, *, stop: int | None = None
) -> tuple[VisionTransformer, dict]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the teacher and the record.

    The record holds [step, loss of [CLS], loss of patches, entropy of the mean teacher output of
    [CLS], of patches], means since the last entry, and seconds of wall time. Raises ValueError
    where the checkpoint is of another schedule.
    """
    pair = Pair(schedule)
    start = 0
    record: dict[str, Any] = {"losses": [], "seconds": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != json.dumps(asdict(schedule)):
            raise ValueError(f"{checkpoint} belongs to another recipe; delete it to start anew")
        pair.load(saved["pair"])
        start, record = saved["step"], saved["record"]
        report(f"going on from step {start}")
    recent: list[list[float]] = record.pop("recent", [])
    end = schedule.steps if stop is None else stop
    clock = time.perf_counter()
    for step in range(start, end):
        recent.append(pair.step(*views(store, schedule, step), step))
        done = step + 1
        if done % 50 == 0 or done == end:
            now = time.perf_counter()
            record["seconds"] += now - clock
            if done % 50 == 0 or done == schedule.steps:
                means = [sum(column) / len(recent) for column in zip(*recent, strict=True)]
                record["losses"].append([done, *means])
                numbers = "  ".join(f"{x:.3f}" for x in means)
                report(f"step {done}/{schedule.steps}  {numbers}  {(now - clock) / 50:.2f} s/step")
                recent = []
            clock = now
        if done % SAVE_EVERY == 0 or done == end:
            saved = {
                "recipe": json.dumps(asdict(schedule)),
                "pair": pair.state(),
                "step": done,
                "record": record | {"recent": recent},
            }
            with atomic_write(checkpoint) as file:
                torch.save(saved, file)
    return pair.teacher.vit.eval(), record
