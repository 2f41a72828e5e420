"""Train the embedded DINO (assets/shapes_dino) on scenes alone, on one core.

    python -m cliptrase.shapes.train_dino          # all of it: about 90 minutes on one core
    python -m cliptrase.shapes.train_dino --card   # only measure and describe what is there

The network is timm's own VisionTransformer. It learns as DINO (arXiv 2104.14294) and iBOT
(arXiv 2111.07832) do, by agreeing with a slow copy of itself about two views of a scene; neither
captions nor labels reach this file. Everything random follows from the step's number, so a run
that was interrupted ends bit for bit where an uninterrupted one does (one thread, same machine).
"""

import argparse
import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cliptrase.files import atomic_write, write_text
from cliptrase.shapes import loop
from cliptrase.shapes.loop import report
from cliptrase.shapes.model import GRID as TILES
from cliptrase.shapes.model import PATCH as TILE
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import ROOT, Store, build_store, optimizer_of

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
_VIEWS = 3  # purpose of the streams of random numbers


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
        self.centres: Tensor  # of the teacher's output for [CLS] tokens, for patches
        self.register_buffer("centres", torch.zeros(2, prototypes))

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


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the mean of probabilities (n, K), in nats."""
    return torch.special.entr(probabilities.mean(dim=0)).sum()


class Pair:
    """A student and its teacher, the student's slow copy."""

    def __init__(self, schedule: Schedule) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule = schedule
        self.student = Network(schedule.prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.optimizer = optimizer_of(self.student, schedule, betas=(0.9, 0.999), eps=1e-8)

    def losses(self, pixels: Tensor, masked: Tensor, step: int) -> tuple[Tensor, ...]:
        """DINO's loss of the [CLS] tokens and iBOT's of the masked patches; moves the centres.

        Also the entropies of the mean teacher output: of [CLS] tokens, of masked patches.
        """
        schedule, centres = self.schedule, self.teacher.centres
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                tokens = self.teacher.tokens(pixels)
                seen = [self.teacher.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
            tokens = self.student.tokens(pixels, masked)
            answers = [self.student.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
        cls, patches = (
            ((x - centre) / schedule.temperature(step)).softmax(dim=-1)
            for x, centre in zip(seen, centres, strict=True)
        )
        for centre, x in zip(centres, seen, strict=True):
            centre.mul_(0.9).add_(x.mean(dim=0), alpha=0.1)
        asked = cls.roll(len(cls) // 2, dims=0), patches  # [CLS] is asked of the other view
        of_cls, of_patches = (
            cross_entropy(teacher, x / schedule.student_temperature)
            for teacher, x in zip(asked, answers, strict=True)
        )
        return of_cls, of_patches, entropy(cls), entropy(patches)

    def step(self, pixels: Tensor, masked: Tensor, step: int) -> tuple[float, ...]:
        """One step of training; what `losses` returns, as numbers."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(step)
        of_cls, of_patches, *entropies = self.losses(pixels, masked, step)
        self.optimizer.zero_grad(set_to_none=True)
        (of_cls + of_patches).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            both = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
            for slow, fast in both:
                slow.lerp_(fast, 1 - self.schedule.momentum)
        return tuple(each.item() for each in (of_cls, of_patches, *entropies))


def train(
    store: Store, schedule: Schedule, checkpoint: Path, stop: int | None = None
) -> tuple[Network, dict[str, Any]]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the teacher and the record.

    The record is `loop.run`'s: of each entry, what `Pair.losses` returns.
    """
    pair = Pair(schedule)
    parts: dict[str, loop.Part] = {
        "student": pair.student,
        "teacher": pair.teacher,
        "optimizer": pair.optimizer,
    }
    record = loop.run(
        lambda step: pair.step(*views(store, schedule, step), step),
        parts,
        schedule.steps,
        asdict(schedule),
        checkpoint,
        stop,
    )
    return pair.teacher.eval(), record


def export(vit: VisionTransformer, folder: Path) -> None:
    """Write timm's `local-dir:` layout, fp16."""
    colours = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 1.0}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "num_features": WIDTH,
        "model_args": MODEL,
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE], "num_classes": 0, **colours},
    }
    state = {name: value.half().contiguous() for name, value in vit.state_dict().items()}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    with atomic_write(folder / "model.safetensors") as file:
        file.write(save(state))


def main(argv: list[str] | None = None) -> None:
    """Train, export, measure, describe."""
    from cliptrase.shapes.card_dino import entropies, write_card  # needs this module

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, default=ROOT / "data" / "shapes_train")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "shapes_dino")
    parser.add_argument("--card", action="store_true", help="only measure and write the card")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not args.card:
        schedule = Schedule()
        store = build_store(args.store, schedule.scenes)
        teacher, record = train(store, schedule, args.store / "checkpoint-dino.pt")
        export(teacher.vit, args.out)
        spread = entropies(teacher, schedule.temperature(schedule.steps))
        record |= {"recipe": asdict(schedule), "entropy": spread}
        with atomic_write(args.out / "training.json", "w") as file:
            json.dump(record, file, indent=1)
    report("measuring")
    write_card(args.out)
    report(f"written to {args.out}")


if __name__ == "__main__":
    main()
