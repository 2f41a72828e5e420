"""Values as they are written in overrides."""

from __future__ import annotations

from typing import Any

import yaml

from cliptrase.errors import UserError


def parse_value(text: str) -> Any:
    """A value as Hydra reads it: null, true, 3, 0.7, 1e-3, 'text', [a, b], {a: b}."""
    stripped = text.strip()
    if not stripped:
        return ""
    try:
        return float(stripped) if not _is_int(stripped) else int(stripped)
    except ValueError:
        pass
    if stripped.lower() in {"null", "true", "false"}:
        return {"null": None, "true": True, "false": False}[stripped.lower()]
    if stripped[0] in "[{'\"":
        try:
            return yaml.safe_load(stripped)
        except yaml.YAMLError:
            raise UserError(
                f"cannot read the value {text!r}; check its quotes and brackets"
            ) from None
    return stripped


def _is_int(text: str) -> bool:
    return text.lstrip("+-").isdecimal()
