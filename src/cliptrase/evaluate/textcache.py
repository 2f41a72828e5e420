"""Text features of a run's vocabulary, encoded once and kept in data/text_features/."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import torch

from cliptrase.config import Run
from cliptrase.config.schema import Model, WordList
from cliptrase.data.read.vocabularies import owned_names, read_classes, read_templates
from cliptrase.evaluate.graph import Text
from cliptrase.evaluate.targets import whole_pictures
from cliptrase.files import atomic_write
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features
from cliptrase.runs.provenance import PACKAGE, code_files, digest_of

log = logging.getLogger(__name__)

IMAGES_ONLY = ("path", "label", "precision")  # of a model: what changes no text feature
BACKGROUND = "background"  # the name of the class that background words share


def class_names(run: Run) -> list[str]:
    """The scored classes by their index in confusion matrices: the first name of each.

    Where the benchmark has a background, `background` comes last, under protocol slide first.
    """
    classes = read_classes(run["vocabulary"]["classes"]["path"])
    background = [BACKGROUND] if run["vocabulary"]["background"] is not None else []
    first = [own[0] for own in classes]
    return background + first if whole_pictures(run) else first + background


def text_of(run: Run, clip: Clip, data: Path | str, workers: int = 1) -> tuple[str, Text]:
    """The vocabulary of `run` as `clip` reads it, with a key that is the same for the same Text.

    From the folder `data`/text_features where it is there. A damaged file is written again.
    """
    vocabulary = run["vocabulary"]
    names, owner = owned_names(
        read_classes(vocabulary["classes"]["path"]),
        background_words(vocabulary["background"]),
        background_first=whole_pictures(run),
    )
    templates = read_templates(vocabulary["templates"]["path"])
    distinct = list(dict.fromkeys(names))  # a name is encoded once, whoever owns it
    key = _key(distinct, templates, run["model"], clip)
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


def background_words(entry: WordList | None) -> list[str]:
    """All names of a run's list of background words, in order; none where it has no list."""
    if entry is None:
        return []
    return [name for own in read_classes(entry["path"]) for name in own]


def _key(words: list[str], templates: list[str], model: Model, clip: Clip) -> str:
    """Everything that decides the features: words, templates, model, device, code of model/.

    Not the precision, which is that of the image tower.
    """
    code = [path for path in code_files() if path.is_relative_to(PACKAGE / "model")]
    basis = {
        "words": words,
        "templates": templates,
        "model": model.model_dump(mode="json", exclude=set(IMAGES_ONLY)),
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
