"""What pictures without a benchmark are segmented with: `Segmenter`, `cliptrase segment`."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from cliptrase.config import files
from cliptrase.config.compose import compose, refuse_missing
from cliptrase.config.settings import Settings, settings_of
from cliptrase.errors import UserError, nearest

OPEN_KEYS = ("method", "model", "protocol")  # the groups that overrides for pictures may reach into


def resolve_settings(overrides: Iterable[str], size: tuple[int, int] | None = None) -> Settings:
    """What pictures without a benchmark are segmented with, from the same overrides.

    size: height and width in pixels of what the model sees, where it is not image_size ×
    image_size: eps and min_samples follow its patches unless they are set.
    """
    tree = compose(overrides)
    del tree["benchmark"]
    refuse_missing(tree)
    settings = settings_of(tree, None, size)
    if settings.method.path is not None:
        raise UserError(
            f"method={settings.method.name}: label maps of files are scored, not computed; "
            "`cliptrase score` takes them"
        )
    if settings.method.unsupervised is not None:
        raise UserError(
            f"method={settings.method.name}: it gives clusters of regions their classes by the "
            "ground truth of a whole benchmark, which a picture has not; take another method, as "
            "cliptrase"
        )
    return settings


def picture_overrides(
    model: object, method: str, device: str, image_size: int | None, overrides: Iterable[str]
) -> list[str]:
    """The overrides for `resolve_settings` of what pictures are segmented with.

    model: a name of conf/model, or open_clip's own `local-dir:DIR`, or a Path; overrides: keys of
    the groups OPEN_KEYS. Raises UserError for a name that is none (`auto` means the model of a
    benchmark, and a picture has none), and for other keys.
    """
    names = [name for name in files.names("model") if name != "auto"]
    if isinstance(model, Path):
        if str(model) in names and not model.is_dir():
            raise UserError(
                f"model: {model} is no folder; give the model of that name as text, {str(model)!r}"
            )
        model = f"local-dir:{model}"
    if not isinstance(model, str):
        known = nearest("", [*names, "local-dir:DIR"])
        raise UserError(f"model: of type {type(model).__name__}; give a name or a Path. {known}")
    kind, colon, folder = model.partition(":")
    chosen = [f"method={method}", f"device={device}", f"model={model}"]
    if kind == "local-dir" and colon:
        # surrogates alone are escaped: YAML takes no raw ones, and no pairs
        path = json.dumps(folder, ensure_ascii=False).encode(errors="backslashreplace").decode()
        chosen[-1:] = ["model=local", f"model.path={path}"]
    elif model not in names:
        if os.path.isdir(os.path.expanduser(model)):
            raise UserError(f"model {model!r}: a folder; write local-dir:{model}")
        raise UserError(f"unknown model {model!r}; {nearest(model, [*names, 'local-dir:DIR'])}")
    for override in overrides:
        group, dot, _ = override.partition("=")[0].partition(".")
        if group not in OPEN_KEYS or not dot:
            raise UserError(
                f"override {override!r}: a picture has the keys {'.…, '.join(OPEN_KEYS)}.… only; "
                "method, model, image_size and device are arguments of their own"
            )
        chosen.append(override)
    return chosen if image_size is None else [*chosen, f"image_size={image_size}"]
