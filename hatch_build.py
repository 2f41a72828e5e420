"""Puts conf/, assets/ and published/ into the wheel, where cliptrase.resources finds them.

They stand at the root of the repository, where people look for them. An editable install uses
them there: a hook, and not hatchling's force-include table, which would leave it an old copy.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARED = ("conf", "assets", "published")


class Share(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"] |= {name: f"cliptrase/_share/{name}" for name in SHARED}
