"""What an experiment takes, reckoned from its sizes; and the refusal of one that needs a GPU.

    python -m cliptrase.san.cost EXPERIMENT

Imports no torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cliptrase.config.weights import architecture
from cliptrase.data.fetch.sources import read_sources, size_of
from cliptrase.errors import UserError, counted, exit_on_user_error
from cliptrase.machine import may_have_gpu
from cliptrase.san import command, settings
from cliptrase.san.settings import San

RATE = 40e12  # operations a second that a GPU is reckoned with: a tenth to a third of what it can


class Sizes(NamedTuple):
    """Of CLIP: blocks, width, heads, width of the joint space, patches a side of what it was
    trained on, and of what the experiment shows it."""

    depth: int
    width: int
    heads: int
    joint: int
    trained: int
    side: int


def sizes_of(san: San) -> Sizes:
    """Of an experiment's CLIP."""
    model = san.run.model
    about = architecture(model)
    vision = about["vision_cfg"]
    width, patch = vision.get("width", 768), model.patch
    heads = width // vision.get("head_width", 64)
    trained = vision.get("image_size", 224) // patch
    return Sizes(model.depth, width, heads, about["embed_dim"], trained, san.clip_size // patch)


def parameters(san: San) -> int:
    """How many numbers learn."""
    clip, side, hidden = sizes_of(san), san.side, san.head_width
    width, patches = side.width, (san.image_size // side.patch) ** 2
    block = 12 * width**2 + 13 * width
    embedding = width * (3 * side.patch**2 + 1) + width * patches + 2 * width * san.queries
    fusion = len(san.fusion) * (2 * clip.width + width * (clip.width + 1))
    three = (width + 1) * hidden + (hidden + 1) * hidden
    heads = 3 * three + 2 * (hidden + 1) * hidden + (hidden + 1) * hidden * clip.heads + 2
    total = side.blocks * block + embedding + fusion + heads + clip.joint
    return total + san.train_positions * clip.width * (1 + clip.trained**2)


def operations(san: San) -> float:
    """Floating-point operations of a run's training, of matrix products; a multiplication and an
    addition are two. What learns costs three times its forward pass; CLIP once, and twice where
    gradients go through it to its positions."""
    clip, side, hidden = sizes_of(san), san.side, san.head_width
    tokens, patches = 1 + clip.side**2, (san.image_size // side.patch) ** 2
    length, supervised = san.queries + patches, len(san.supervised)
    frozen = clip.depth * (12 * tokens * clip.width**2 + 2 * tokens**2 * clip.width)
    frozen += clip.side**2 * clip.width * 3 * san.run.model.patch**2
    own = side.blocks * (12 * length * side.width**2 + 2 * length**2 * side.width)
    own += patches * side.width * 3 * side.patch**2 + len(san.fusion) * (
        tokens * clip.width * side.width
    )
    maps = patches * (2 * side.width * hidden + 3 * hidden**2 + hidden**2 * clip.heads)
    maps += san.queries * patches * hidden * (1 + clip.heads)
    deep = clip.depth - san.recognition
    seen = deep * san.queries * (12 * clip.width**2 + 2 * tokens * clip.width)
    learnt = own + supervised * (maps + seen)
    once = (2 if san.train_positions else 0) * frozen + 3 * learnt
    kept = 0.0 if san.train_positions else 2.0 * frozen * (san.pictures + san.validation)
    return kept + 2.0 * once * san.batch * san.iterations


def lines(san: San) -> list[str]:
    """The plan of an experiment, for people."""
    runs = len(san.arms) * len(san.seeds)
    work = f"{operations(san):.1e} floating-point operations a run"
    if san.gpus:
        work += f": {hours(san):.0f} hours of a GPU at {RATE / 1e12:.0f} TFLOP/s"
    said = [
        f"{san.name}: {counted(runs, 'run')} ({', '.join(san.arms)}; seeds "
        f"{', '.join(map(str, san.seeds))}), {san.iterations} iterations of {san.batch}",
        f"{parameters(san) / 1e6:.2f} million parameters learn",
        work,
    ]
    if san.dataset:
        archives = read_sources().datasets[san.dataset].needed()
        said.append(f"{san.dataset}: " + ", ".join(f"{a.name} ({size_of(a)})" for a in archives))
    return said


def hours(san: San) -> float:
    """Of one GPU, for one run."""
    return operations(san) / RATE / 3600


def refuse_without_gpu(san: San) -> None:
    """Raise UserError where an experiment needs a GPU and there is none."""
    if san.gpus and not may_have_gpu():
        runs = len(san.arms) * len(san.seeds)
        raise UserError(
            f"{san.name}: a run takes about {hours(san):.0f} hours of a GPU (there are "
            f"{counted(runs, 'run')}), and there is none here; `python -m cliptrase.san.cost "
            f"{san.name}` says more. On a CPU, in minutes: shapes, the small experiment"
        )


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Say what an experiment takes."""
    args = command.parser(__doc__, data=False).parse_args(arguments)
    print("\n".join(lines(settings.load(args.experiment))))


if __name__ == "__main__":
    main()
