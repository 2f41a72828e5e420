"""Text features of a run's vocabulary, encoded once and kept in data/text_features/."""

import json
import logging
from pathlib import Path

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
from cliptrase.errors import UserError
from cliptrase.evaluate import kept
from cliptrase.evaluate.graph import Text
from cliptrase.files import sha256_text
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features
from cliptrase.runs import code

log = logging.getLogger(__name__)

IMAGES_ONLY = ("path", "label", "precision")  # of a model: what changes no text feature


def text_of(run: Run, clip: Clip, data: Path | str, workers: int = 1) -> tuple[str, Text]:
    """The vocabulary of `run` as `clip` reads it, with a key that is the same for the same Text.

    From the folder `data`/text_features where it is there. A damaged file is written again; where
    the folder cannot be written, the words are encoded each time.
    """
    words = run.vocabulary
    names, owner = names_of(run)
    if len(set(owner)) == 1:
        log.warning("%s: " + ONLY_CLASS, words.classes.path, "|".join(names))
    templates = read_templates(words.templates.path)
    distinct = list(dict.fromkeys(names))  # a name is encoded once, whoever owns it
    key = _key(distinct, templates, run.model, clip)
    path = Path(data) / "text_features" / f"{key}.npz"
    arrays = kept.read(path, "encoding the words again")
    if arrays is None:
        made = text_features(clip, distinct, templates, workers)
        arrays = {"features": made.float().cpu().numpy()}
        try:
            kept.write(path, arrays)
        except UserError as error:
            log.warning("the encoded words are not kept: %s", error)
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
    """All names of a run's classes and background words, and the class that owns each."""
    background = run.vocabulary.background
    listed = read_classes(background.path) if background else []
    return owned_names(
        read_classes(run.vocabulary.classes.path),
        [name for entry in listed for name in entry],
        background_first=facts_of(run).whole_pictures,
    )


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
