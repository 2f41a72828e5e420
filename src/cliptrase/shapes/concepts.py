"""What can be on a scene: objects, their colours, backgrounds, and the raw label of each.

A raw label is the id of a fine class ("red apple"): objects first, then backgrounds.
"""

from dataclasses import dataclass

BACKGROUNDS = ("sky", "grass", "brick", "water", "sand", "wood", "snow")

# Colour words come in a long tail: the usual colour of a thing first, the rare ones last.
FREQUENCIES = {3: (0.6, 0.28, 0.12), 4: (0.5, 0.26, 0.14, 0.10)}

# "orange" is no colour word here: it would also be a thing.
COLOURS = {
    "red": (208, 38, 40),
    "green": (66, 158, 58),
    "blue": (48, 92, 214),
    "yellow": (240, 208, 48),
    "golden": (234, 148, 40),
    "purple": (112, 48, 150),
    "pink": (242, 148, 184),
    "brown": (128, 78, 42),
    "black": (36, 35, 40),
    "gray": (132, 134, 140),
    "white": (238, 237, 232),
}

ATTRIBUTES = {
    "zebra": ("black", "brown", "blue"),
    "tiger": ("golden", "white", "brown"),
    "cow": ("black", "brown", "gray"),
    "giraffe": ("brown", "golden", "black"),
    "pig": ("pink", "black", "brown"),
    "ladybug": ("red", "yellow", "pink", "blue"),
    "fish": ("blue", "golden", "red", "pink"),
    "starfish": ("red", "purple", "blue", "yellow"),
    "strawberry": ("red", "pink", "white"),
    "apple": ("red", "green", "yellow"),
    "banana": ("yellow", "green", "brown"),
    "watermelon": ("red", "yellow", "pink"),
    "pineapple": ("yellow", "green", "brown"),
    "eggplant": ("purple", "black", "white"),
    "mushroom": ("red", "brown", "purple", "blue"),
    "leaf": ("green", "red", "yellow", "brown"),
    "bus": ("red", "yellow", "blue", "green"),
    "basketball": ("brown", "blue", "pink"),
    "chessboard": ("black", "brown", "green"),
    "target": ("red", "blue", "black"),
}

OBJECTS = tuple(ATTRIBUTES)


@dataclass(frozen=True)
class Fine:
    """A fine class: an object (index in OBJECTS) of one colour."""

    object: int
    colour: str


FINE = tuple(
    Fine(index, colour) for index, name in enumerate(OBJECTS) for colour in ATTRIBUTES[name]
)
FINE_CLASSES = tuple(f"{fine.colour} {OBJECTS[fine.object]}" for fine in FINE)


def fine_id(obj: int, attribute: int) -> int:
    """Raw label of an object (index in OBJECTS) in its `attribute`-th colour."""
    return sum(len(ATTRIBUTES[name]) for name in OBJECTS[:obj]) + attribute


def background_id(background: int) -> int:
    """Raw label of a background (index in BACKGROUNDS)."""
    return len(FINE) + background


def name(raw: int, with_colour: bool = True) -> str:
    """Words for a raw label; without its colour on wish."""
    if raw >= len(FINE):
        return BACKGROUNDS[raw - len(FINE)]
    return FINE_CLASSES[raw] if with_colour else OBJECTS[FINE[raw].object]
