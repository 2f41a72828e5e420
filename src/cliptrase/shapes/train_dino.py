"""Train the embedded DINO (assets/shapes_dino) on scenes alone, on one core.

    python -m cliptrase.shapes.train_dino          # all of it: 10 to 20 minutes on one core
    python -m benchmarks.card_dino          # then measure and describe it

The network is timm's own VisionTransformer. It learns as DINO (arXiv 2104.14294) and iBOT
(arXiv 2111.07832) do, by agreeing with a slow copy of itself about two views of a scene; neither
captions nor labels reach this file. Everything random follows from the step's number, so a run
that was interrupted ends bit for bit where an uninterrupted one does (one thread, same machine).
"""

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
from cliptrase.shapes import descent, scenes
from cliptrase.shapes.model import GRID as TILES
from cliptrase.shapes.model import PATCH as TILE
from cliptrase.shapes.stream import Stream
from cliptrase.shapes.train import Store, build_store

SIZE, PATCH, WIDTH = 224, 14, 192
GRID = SIZE // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OUT = descent.ROOT / "assets" / "shapes_dino"
HELD_OUT = 200  # scenes
MODEL: dict[str, Any] = {
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
    """All that decides the weights."""

    steps: int = 400
    falling: int = 150  # of these, the last ones, in which the learning rate falls
    batch: int = 32  # scenes of a step
    side: int = 112  # of a view, in pixels
    scenes: int = 16_000
    prototypes: int = 512
    student_temperature: float = 0.1
    teacher_temperature: float = 0.05
    momentum: float = 0.994  # of the teacher
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    warm_up: int = 100
    seed: int = 1

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, then half a cosine to zero, by steps."""
        done = max(0, step - (self.steps - self.falling)) / self.falling
        fall = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up) * fall


class Network(nn.Module):
    """The ViT with the head that training needs: prototypes' cosines of a token."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        vit: Any = VisionTransformer(**MODEL)
        for each in vit.blocks:
            each.attn.fused_attn = False  # its backward pass on a CPU takes a third of a step
        self.vit = vit
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
    batch, grid = schedule.batch, schedule.side // PATCH
    stream = Stream(schedule.seed, _VIEWS + 16 * step)
    chosen = [stream.integer(len(store.patches)) for _ in range(batch)]
    pixels, masked = [], []
    for place in range(2 * batch):
        pixels.append(view(picture(store, chosen[place % batch]), schedule.side, stream))
        has_block = (place + place // batch) % 2 == 0
        masked.append(block(grid, stream) if has_block else np.zeros((grid, grid), dtype=bool))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (torch.stack(pixels) - mean) / std, torch.from_numpy(np.stack(masked)).flatten(1)


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


def sinkhorn(logits: Tensor) -> Tensor:
    """Probabilities (n, K) of logits, such that all prototypes are about equally frequent.

    Three rounds of Sinkhorn and Knopp (SwAV, arXiv 2006.09882), where DINO subtracts a centre: in
    a short training that left few prototypes in use.
    """
    q = (logits - logits.max()).exp()
    for _ in range(3):
        q = q / q.sum(dim=0, keepdim=True)
        q = q / q.sum(dim=1, keepdim=True)
    return q


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
        self.optimizer = descent.adamw(self.student, schedule.weight_decay, (0.9, 0.999), 1e-8)

    def losses(self, pixels: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """DINO's loss of the [CLS] tokens and iBOT's of the masked patches, of `views`."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                tokens = self.teacher.tokens(pixels)
                seen = [self.teacher.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
            tokens = self.student.tokens(pixels, masked)
            answers = [self.student.cosines(x) for x in (tokens[:, 0], tokens[:, 1:][masked])]
        cls, patches = (sinkhorn(x / self.schedule.teacher_temperature) for x in seen)
        targets = cls.roll(len(cls) // 2, dims=0), patches  # [CLS] is asked of the other view
        of_cls, of_patches = (
            cross_entropy(target, x / self.schedule.student_temperature)
            for target, x in zip(targets, answers, strict=True)
        )
        return of_cls, of_patches

    def step(self, pixels: Tensor, masked: Tensor, step: int) -> float:
        """One step of training: the sum of the losses."""
        of_cls, of_patches = self.losses(pixels, masked)
        rate = self.schedule.rate(step)
        loss = descent.descend(self.student, self.optimizer, rate, of_cls + of_patches)
        with torch.no_grad():
            both = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
            for slow, fast in both:
                slow.lerp_(fast, 1 - self.schedule.momentum)
        return loss


def train(
    store: Store, schedule: Schedule, checkpoint: Path, *, stop: int | None = None
) -> tuple[Network, dict[str, Any]]:
    """Train, or go on from `checkpoint`; up to step `stop`. Returns the teacher and the record.

    Raises ValueError where the checkpoint is of another schedule. See `descent.run`.
    """
    pair = Pair(schedule)

    def take(step: int) -> float:
        return pair.step(*views(store, schedule, step), step)

    parts = {"student": pair.student, "teacher": pair.teacher, "optimizer": pair.optimizer}
    recipe = asdict(schedule)
    record = descent.run(recipe, schedule.steps, checkpoint, parts, take, every=50, stop=stop)
    return pair.teacher.eval(), record


def held_out(count: int) -> list[scenes.Scene]:
    """Scenes of the validation seeds, one to five objects; every second one carries clutter."""
    seeds = scenes.VALIDATION_SEEDS[3_000_000 : 3_000_000 + count]
    return [scenes.scene(seed, clutter=seed % 2 == 0) for seed in seeds]


def pixels(made: list[scenes.Scene]) -> Tensor:
    """What the network reads of scenes: (B, 3, 224, 224), normalised."""
    values = torch.from_numpy(np.stack([scene.image for scene in made])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return (values - mean) / std


@torch.no_grad()
def entropies(teacher: Network, temperature: float, count: int = HELD_OUT) -> dict[str, float]:
    """Entropy of the mean softmax of the teacher on held-out scenes, in nats: of [CLS] tokens, of
    patches."""
    tokens = torch.cat([teacher.tokens(pixels([scene])) for scene in held_out(count)])
    parts = {"cls": tokens[:, 0], "patches": tokens[:, 1:].flatten(0, 1)}
    return {
        name: entropy((teacher.cosines(each) / temperature).softmax(dim=-1)).item()
        for name, each in parts.items()
    }


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
    """Train and export."""
    counts = {"steps": Schedule.steps, "scenes": Schedule.scenes}
    args = descent.options(argv, __doc__, OUT.name, counts)
    schedule = Schedule(steps=args.steps, scenes=args.scenes)
    store = build_store(args.store, schedule.scenes)
    teacher, record = train(store, schedule, args.store / "checkpoint-dino.pt")
    export(teacher.vit, args.out)
    record["entropy"] = entropies(teacher, schedule.teacher_temperature)
    descent.write_record(args.out, record)
    descent.report(f"written to {args.out}")


if __name__ == "__main__":
    main()
