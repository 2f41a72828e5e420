"""Figures whose drawing is not written."""

import numpy as np


def only_numbers(figure, folder, name, numbers):
    """As `style.save`, without the svg and the png, which take seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez(path, **numbers)
    return [path]
