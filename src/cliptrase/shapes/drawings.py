"""The twenty objects. Each drawing is a silhouette and a texture over its own square [-1, 1]^2.

A drawing paints on a Place and returns the distance to the silhouette's edge, (H, W), positive
inside. v points down. Every object shows its colour attribute over a large part of itself, and
keeps its shape and texture whatever the colour.
"""

from cliptrase.shapes.animals import ANIMALS
from cliptrase.shapes.things import THINGS

DRAWINGS = {drawing.__name__: drawing for drawing in (*ANIMALS, *THINGS)}

# How far each may turn: t of the rational rotation ((1-t^2)/(1+t^2), 2t/(1+t^2)).
# 0.2 is 23 degrees, 1 is 90 degrees. What stands on legs or wheels turns little.
TURN = dict.fromkeys(DRAWINGS, 0.35) | {
    "zebra": 0.15, "tiger": 0.2, "cow": 0.15, "giraffe": 0.15, "pig": 0.15, "bus": 0.15,
    "ladybug": 1.0, "starfish": 1.0, "leaf": 1.0, "banana": 0.6, "basketball": 1.0, "fish": 0.3,
}  # fmt: skip
