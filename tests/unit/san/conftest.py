"""A SAN that learns in seconds: few narrow blocks, a few scenes, the embedded CLIP."""

from __future__ import annotations

import pytest

from cliptrase.evaluate.textcache import text_of
from cliptrase.model.load import load_clip
from cliptrase.san import settings
from cliptrase.san.regions import make_means, write_means
from cliptrase.san.settings import Init, San, Side
from cliptrase.san.store import make_store

TINY = {
    "name": "tiny",
    "pictures": 5,
    "validation": 2,
    "side": Side(width=12, blocks=3, heads=2, patch=16),
    "queries": 8,
    "fusion": {0: 0, 3: 2},
    "supervised": (2, 3),
    "head_width": 6,
    "points": 32,
    "batch": 2,
    "iterations": 5,
    "checkpoints": (0, 2, 5),
    "precision": "fp32",
    "seeds": (0, 1),
    "init": Init(method="cliptrase", images=3),
}


def small(san: San, **changed: object) -> San:
    """The experiment with other values, unchecked; its cached run is made anew."""
    return San.model_construct(**{**dict(san), **changed})


@pytest.fixture(scope="package")
def tiny() -> San:
    return small(settings.load("shapes"), **TINY)


@pytest.fixture(scope="package")
def clip(tiny):
    return load_clip(tiny.run.model)


@pytest.fixture(scope="package")
def data(tiny, clip, tmp_path_factory):
    """A data folder with the store and the regions of `tiny`."""
    folder = tmp_path_factory.mktemp("data")
    make_store(tiny, clip, folder)
    write_means(tiny, folder, make_means(tiny, clip, folder))
    return folder


@pytest.fixture(scope="package")
def text(tiny, clip, data):
    return text_of(tiny.run, clip, data)[1].features
