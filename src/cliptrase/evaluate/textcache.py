"""Text features of a run's vocabulary, encoded once and kept in data/text_features/."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptrase.config import Run
from cliptrase.config.kinds import facts_of
from cliptrase.config.schema import Model
from cliptrase.data.read.vocabularies import (
    ONLY_CLASS,
    owned_names,
    read_classes,
    read_templates,
)
from cliptrase.errors import UserError
from cliptrase.evaluate import kept
from cliptrase.evaluate.encoded import Text
from cliptrase.files import sha256_text
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features
from cliptrase.runs import code

log = logging.getLogger(__name__)

Encoded = dict[tuple[str, str], NDArray[np.float32]]  # by digest of the templates, and name
IMAGES_ONLY = ("path", "label", "precision")  # of a model: what changes no text feature


def text_of(
    run: Run, clip: Clip, data: Path | str, workers: int = 1, encoded: Encoded | None = None
) -> tuple[str, Text]:
    """The vocabulary of `run` as `clip` reads it, with a key that is the same for the same Text.

    From the folder `data`/text_features where it is there. A damaged file is written again; where
    the folder cannot be written, the words are encoded each time. encoded: of the vocabularies
    before this one with the same `clip`; those of this one are added.
    """
    encoded = {} if encoded is None else encoded
    words = run.vocabulary
    names, owner = names_of(run)
    if len(set(owner)) == 1:
        log.warning("%s: " + ONLY_CLASS, words.classes.path, "|".join(names))
    templates = read_templates(words.templates.path)
    distinct = list(dict.fromkeys(names))  # a name is encoded once, whoever owns it
    key = _key(distinct, templates, run.model, clip)
    path = Path(data) / "text_features" / f"{key}.npz"
    arrays = kept.read(path, "encoding the words again")
    frames = run.vocabulary.templates.sha256
    if arrays is None:
        new = [name for name in distinct if (frames, name) not in encoded]
        if new:
            made = text_features(clip, new, templates, workers).float().cpu().numpy()
            encoded |= {(frames, name): row for name, row in zip(new, made, strict=True)}
        arrays = {"features": np.stack([encoded[frames, name] for name in distinct])}
        try:
            kept.write(path, arrays)
        except UserError as error:
            log.warning("the encoded words are not kept: %s", error)
    encoded |= {(frames, name): row for name, row in zip(distinct, arrays["features"], strict=True)}
    at = {name: index for index, name in enumerate(distinct)}
    rows = [at[name] for name in names]
    # torch.tensor copies into memory aligned as torch's own: products then sum in one order.
    text = Text(
        torch.tensor(arrays["features"][rows], device=clip.device),
        torch.tensor(owner, device=clip.device),
        background_of(run),
    )
    owned = sha256_text(json.dumps([rows, owner, text.background]))
    return f"{key}.{owned[:16]}", text


def names_of(run: Run) -> tuple[list[str], list[int]]:
    """All names of a run's classes, background words and distractors, and the class that owns each:
    of distractors, which come last, the one after those that are scored."""
    words = run.vocabulary
    listed = read_classes(words.background.path) if words.background else []
    names, owner = owned_names(
        read_classes(words.classes.path),
        [name for entry in listed for name in entry],
        background_first=facts_of(run).whole_pictures,
    )
    drawn = words.distractors.names if words.distractors else ()
    return [*names, *drawn], [*owner, *[max(owner) + 1] * len(drawn)]


def background_of(run: Run) -> int | None:
    """The class that owns the background words, where there are any."""
    if run.vocabulary.background is None:
        return None
    return 0 if facts_of(run).whole_pictures else run.vocabulary.classes.count


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
    return sha256_text(text)
