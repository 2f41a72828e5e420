"""Methods and models as a resolved run has them, and changed copies of any part of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from cliptrase import config
from cliptrase.config.method import Method
from cliptrase.config.schema import Labels, Model, WrittenModel
from cliptrase.config.validation import Frozen
from cliptrase.config.weights import describe_model
from cliptrase.evaluate.encoded import Text

F = TypeVar("F", bound=Frozen)
Changes = Mapping[str, Any]


def changed(part: F, changes: Changes) -> F:
    """`part` with other values, as {"regions.eps": 0.5, "cls_logits": True}, validated again."""
    values: dict[str, Any] = {name: getattr(part, name) for name in part.model_fields_set}
    inner: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in changes.items():
        name, _, rest = key.partition(".")
        if rest:
            inner[name][rest] = value
        else:
            values[name] = value
    for name, more in inner.items():
        values[name] = changed(values[name], more)
    return type(part).model_validate(values)


def method(name: str = "cliptrase", changes: Changes | None = None) -> Method:
    """conf/method/<name>.yaml at 14 × 14 patches, without [CLS] logits, changed."""
    run = config.resolve(
        ["benchmark=voc20", "model=vit_b16", f"method={name}", "method.cls_logits=false"]
    )
    return changed(run.method, changes or {})


def rules(**changes: Any) -> Labels:
    """How labels are scored: raw values as they are, 255 ignored, no background; changed."""
    return Labels.model_validate({"map": None, "ignore": 255, "background": None} | changes)


def local_model(path: Path | str, **more: str) -> Model:
    """The model of an open_clip folder; more: `label` or `precision`."""
    written = {"label": "local", "kind": "local", "path": str(path)} | more
    return describe_model(WrittenModel.model_validate(written))


def open_clip_model(name: str, pretrained: str) -> Model:
    """The model that open_clip makes of a name and of a tag or a file of weights."""
    written = {"label": "open_clip", "kind": "open_clip", "name": name, "pretrained": pretrained}
    return describe_model(WrittenModel.model_validate(written))


def listed_text(features: torch.Tensor, classes: int) -> Text:
    """Each of the first `classes` names is a class, all others together are one more."""
    owner = torch.arange(len(features), device=features.device)
    return Text(features, owner.clamp_max(classes))


def openai_model(path: Path | str) -> Model:
    """The `Model` of a file of OpenAI's, as a resolved run has it."""
    written = {"label": "openai_file", "kind": "openai_file", "path": str(path)}
    return describe_model(WrittenModel.model_validate(written))
