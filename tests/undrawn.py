"""Figures whose drawing is not written."""

import numpy as np


def only_numbers(figure, folder, name, numbers):
    """As `style.save`, without the svg and the png, which take seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez(path, **numbers)
    return [path]


def only_names(figure, folder, name, numbers=None):
    """As `style.save`, its files empty."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    paths += [folder / f"{name}.npz"] * (numbers is not None)
    for path in paths:
        path.touch()
    return paths
