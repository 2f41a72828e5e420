"""What a start of a suite is given, as far as it decides what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from cliptrase import pipeline


@dataclass(frozen=True)
class Start:
    """cores: Snakemake's --cores, None for all there are. gpus: how many passes may have one at
    once, None for as many as there are. frozen: other code is no reason to make a pass again."""

    cores: int | None = None
    device: str = "auto"
    gpus: int | None = None
    frozen: bool = False
    tracking: str = "offline"

    @property
    def cards(self) -> int:
        """GPUs that its passes have."""
        return pipeline.gpus(self.device) if self.gpus is None else self.gpus

    @property
    def computing(self) -> str:
        """The device that its passes are given."""
        return self.device if self.cards else "cpu"


USUAL = Start()
