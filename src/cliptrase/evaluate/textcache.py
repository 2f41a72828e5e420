"""Text features of a run's vocabulary, encoded once and kept in data/text_features/."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cliptrase.data.vocabularies import read_names, read_templates
from cliptrase.evaluate.graph import Text
from cliptrase.evaluate.provenance import PACKAGE, code_files, digest_of
from cliptrase.files import atomic_write
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features

log = logging.getLogger(__name__)


def class_names(run: dict[str, Any]) -> list[str]:
    """The scored classes in order: the names, and `background` where the benchmark has one."""
    names = read_names(run["vocabulary"]["classes"]["path"])
    return names + (["background"] if run["vocabulary"]["background"] is not None else [])


def text_of(
    run: dict[str, Any], clip: Clip, data: Path | str, workers: int = 1
) -> tuple[str, Text]:
    """The vocabulary of `run` as `clip` reads it, with a key that is the same for the same Text.

    From the folder `data`/text_features where it is there. A damaged file is written again.
    """
    vocabulary = run["vocabulary"]
    classes = read_names(vocabulary["classes"]["path"])
    background = vocabulary["background"]
    words = classes + ([] if background is None else read_names(background["path"]))
    templates = read_templates(vocabulary["templates"]["path"])
    key = _key(words, templates, run["model"], clip)
    path = Path(data) / "text_features" / f"{key}.npz"
    features = _read(path, (len(words), clip.embed_dim))
    if features is None:
        made = text_features(clip, words, templates, workers)
        features = made.float().cpu().numpy()
        with atomic_write(path) as file:
            np.savez(file, features=features)
    # torch.tensor copies into memory aligned as torch's own: products then sum in one order.
    text = Text.listed(torch.tensor(features, device=clip.device), len(classes))
    return f"{key}.{len(classes)}", text


def _key(words: list[str], templates: list[str], model: dict[str, Any], clip: Clip) -> str:
    """Everything that decides the features: words, templates, model, device, code of model/."""
    code = [path for path in code_files() if path.is_relative_to(PACKAGE / "model")]
    basis = {
        "words": words,
        "templates": templates,
        "model": {key: value for key, value in model.items() if key not in ("path", "label")},
        "device": clip.device.type,
        "torch": torch.__version__,
        "code": digest_of(code),
    }
    text = json.dumps(basis, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            features = file["features"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s): encoding the words again", path, error)
        return None
    whole = features.shape == shape and features.dtype == np.float32
    return features if whole and np.isfinite(features).all() else None
