"""Text features of a run's vocabulary, encoded once and kept in data/text_features/."""

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import torch

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of
from cliptrase.config.schema import Model
from cliptrase.data.read.vocabularies import (
    ONLY_CLASS,
    owned_names,
    read_classes,
    read_templates,
)
from cliptrase.evaluate.graph import Text
from cliptrase.files import atomic_write
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features
from cliptrase.runs import code

log = logging.getLogger(__name__)

IMAGES_ONLY = ("path", "label", "precision")  # of a model: what changes no text feature


def text_of(run: Run, clip: Clip, data: Path | str, workers: int = 1) -> tuple[str, Text]:
    """The vocabulary of `run` as `clip` reads it, with a key that is the same for the same Text.

    From the folder `data`/text_features where it is there. A damaged file is written again.
    """
    words = run.vocabulary
    names, owner = names_of(run)
    if len(set(owner)) == 1:
        log.warning("%s: " + ONLY_CLASS, words.classes.path, "|".join(names))
    templates = read_templates(words.templates.path)
    distinct = list(dict.fromkeys(names))  # a name is encoded once, whoever owns it
    key = _key(distinct, templates, run.model, clip)
    path = Path(data) / "text_features" / f"{key}.npz"
    features = _read(path, (len(distinct), clip.embed_dim))
    if features is None:
        made = text_features(clip, distinct, templates, workers)
        features = made.float().cpu().numpy()
        with atomic_write(path) as file:
            np.savez(file, features=features)
    at = {name: index for index, name in enumerate(distinct)}
    rows = [at[name] for name in names]
    # torch.tensor copies into memory aligned as torch's own: products then sum in one order.
    text = Text(
        torch.tensor(features[rows], device=clip.device), torch.tensor(owner, device=clip.device)
    )
    owned = hashlib.sha256(json.dumps([rows, owner]).encode()).hexdigest()
    return f"{key}.{owned[:16]}", text


def names_of(run: Run) -> tuple[list[str], list[int]]:
    """All names of a run's classes and background words, and the class that owns each."""
    background = run.vocabulary.background
    listed = read_classes(background.path) if background else []
    return owned_names(
        read_classes(run.vocabulary.classes.path),
        [name for entry in listed for name in entry],
        background_first=facts_of(run).whole_pictures,
    )


def _key(words: list[str], templates: list[str], model: Model, clip: Clip) -> str:
    """Everything that decides the features: words, templates, model, device, code of model/.

    Not the precision, which is that of the image tower.
    """
    basis = {
        "words": words,
        "templates": templates,
        "model": model.model_dump(mode="json", exclude=set(IMAGES_ONLY)),
        "device": clip.device.type,
        "torch": torch.__version__,
        "code": code.digest(code.closure("model.text", "model.load")),
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
