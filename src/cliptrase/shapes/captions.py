"""Captions: what a passer-by would write under a scene. They are all that the model learns from.

Objects come in random order, and things are left out. The frames are those of the two template
lists (data/templates), so that the model has read the words of either list.
"""

from dataclasses import dataclass
from pathlib import Path

from cliptrase.shapes import concepts
from cliptrase.shapes.stream import Stream

# How the background joins the list of objects.
PLACES = ("{} on {}", "{} in front of {}", "{} with {} behind", "{} and {}")

LEFT_OUT = 0.1  # of the objects
COLOURED = 0.6  # of the mentions
BACKGROUND = 0.7  # of the captions name it
ONLY_BACKGROUND = 0.06  # of the captions name nothing else
IMAGENET = 0.4  # of the frames are from ImageNet's 80
ONE_OBJECT = 0.2  # of those speak of one object only


@dataclass(frozen=True)
class Content:
    """What is on a scene, as raw labels (concepts.py).

    objects: those visible on at least 1 % of the scene, back to front. background: None where a
    crop of a scene shows too little of it.
    """

    objects: tuple[int, ...]
    background: int | None


def templates(name: str) -> tuple[str, ...]:
    """The frames of data/templates/NAME.txt, each with one {}."""
    path = Path(__file__).parents[1] / "data" / "templates" / f"{name}.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())


SHAPES_FRAMES = templates("shapes")
IMAGENET_FRAMES = templates("imagenet80")


def caption(content: Content, stream: Stream) -> str:
    """A caption of this content, another one for every stream.

    The first thing has no article, since frames bring one ("a photo of a {}"); the next ones do.
    """
    objects = [raw for raw in content.objects if not stream.chance(LEFT_OUT)]
    objects = [objects[i] for i in stream.sample(len(objects), len(objects))]
    names = [concepts.name(raw, with_colour=stream.chance(COLOURED)) for raw in objects]
    if stream.chance(ONLY_BACKGROUND):
        names = []
    if content.background is None and not names:
        names = [concepts.name(content.objects[-1])]
    frames = SHAPES_FRAMES
    if stream.chance(IMAGENET):
        frames = IMAGENET_FRAMES
        if stream.chance(ONE_OBJECT):
            names = names[:1]
    frame = frames[stream.integer(len(frames))]
    things = listed(names)
    if content.background is None:
        return frame.format(things)
    place = concepts.name(content.background)
    if not things:
        things = place
    elif stream.chance(BACKGROUND):
        things = PLACES[stream.integer(len(PLACES))].format(things, place)
    return frame.format(things)


def full(content: Content) -> str:
    """Every object in its colour, and the background: what a retrieval test asks for, no frame."""
    things = listed([concepts.name(raw) for raw in content.objects])
    if content.background is None:
        return things
    place = concepts.name(content.background)
    return PLACES[0].format(things, place) if things else place


def listed(names: list[str]) -> str:
    """ "zebra, a red apple and a fish": names as a list, the first without its article."""
    if len(names) < 2:
        return "".join(names)
    head = ", ".join([names[0], *(f"a {name}" for name in names[1:-1])])
    return f"{head} and a {names[-1]}"


def every_text() -> list[str]:
    """Texts that together hold every word a caption or a class name in a template can have."""
    names = [*concepts.FINE_CLASSES, *concepts.OBJECTS, *concepts.BACKGROUNDS]
    texts = [frame.format("zebra") for frame in (*SHAPES_FRAMES, *IMAGENET_FRAMES)]
    # After a list, a frame's full stop or comma may stick to any name.
    texts += [f"a {name}, a {name}. {name}" for name in names]
    texts += [place.format("zebra", "sky") for place in PLACES]
    return [*texts, listed(["zebra", "cow", "pig"])]
