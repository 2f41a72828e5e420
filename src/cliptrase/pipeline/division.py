"""Into how many shards the passes of a start are cut: `--config shards=7`, or `hours=2`, so that no
job takes longer.

For that the passes are timed as an estimate times them. The number of each is kept in a file: a
pass that has begun is not cut otherwise because a later timing differs, and a remote job, which
reads the Snakefile again, plans what the start planned.
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from cliptrase import pipeline
from cliptrase.errors import UserError, counted
from cliptrase.files import write_json
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.estimate import estimate
from cliptrase.pipeline.settings import MOST_SHARDS, Settings
from cliptrase.plan import Pass, Plan

FOLDER = Path("results/markers/shards")  # of a file for each suite
USED = 0.8  # of the hours; the rest is for a machine that is busier than the one that was timed


class Cut(BaseModel):
    """Into how many shards a pass was cut, for which hours and device, and of how many images and
    which runs."""

    shards: int
    hours: float
    device: str
    images: int
    runs: list[str]

    def serves(self, wanted: "Cut") -> bool:
        """Whether it stands for what is wanted, by all but the number."""
        same = (self.hours, self.device) == (wanted.hours, wanted.device)
        return same and self.images == wanted.images and {*self.runs} >= {*wanted.runs}


Cuts = TypeAdapter(dict[str, Cut])


def shards(plan: Plan, made: Iterable[str], settings: Settings, device: str) -> dict[str, int]:
    """pass → into how many shards it is cut, for every pass of the plan.

    made: the stale passes that the start may make; only these are timed, once. A finished pass has
    the number that it was made with. device: as the passes are told. Raises UserError where no
    number of shards is enough, or this machine cannot be timed.
    """
    if settings.hours is None:
        return dict.fromkeys(plan.passes, settings.shards or 1)
    file = FOLDER / f"{plan.suite}.json"
    cuts = _kept(file)
    lacking = []
    for name in made:
        a_pass = plan.passes[name]
        wanted = Cut(
            shards=1,
            hours=settings.hours,
            device=device,
            images=pipeline_data.images(a_pass, plan.data),
            runs=pipeline.runs_to_predict(a_pass, plan.data, settings.freeze_code),
        )
        if wanted.runs and not (name in cuts and cuts[name].serves(wanted)):
            cuts[name] = wanted
            lacking.append(a_pass)
    if lacking:
        _cut(plan, lacking, cuts, settings, device)
        write_json(file, Cuts.dump_python(cuts, mode="json"))
        jobs = counted(sum(cuts[each.name].shards for each in lacking), "job")
        said = f"hours={settings.hours:g}: {counted(len(lacking), 'pass')} in {jobs}; {file}"
        sys.stderr.write(f"{said} keeps the numbers\n")
    return {name: cuts[name].shards if name in cuts else 1 for name in plan.passes}


def shards_needed(images: int, image: float, alone: float, hours: float) -> int | None:
    """The fewest shards of a pass of which none takes longer than USED of the hours; None where
    MOST_SHARDS, or one for each image, do not suffice.

    image: seconds of one. alone: seconds of a shard beside its images.
    """
    together = math.floor((3600 * USED * hours - alone) / image)
    needed = math.ceil(images / together) if together >= 1 else math.inf
    return max(1, int(needed)) if needed <= MOST_SHARDS else None


def fewest_hours(images: int, image: float, alone: float) -> float:
    """Hours, of two digits, for which a pass can be cut small enough."""
    hours = (alone + image * math.ceil(images / MOST_SHARDS)) / (3600 * USED)
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return float(f"{math.ceil(hours / unit) * unit:.2g}")


def _cut(
    plan: Plan, passes: list[Pass], cuts: dict[str, Cut], settings: Settings, device: str
) -> None:
    """Set the number of shards of these passes among the cuts."""
    hours, frozen = settings.hours or 0.0, settings.freeze_code
    # a guess, however little, may be a hundred times too little
    cost = estimate(plan, passes, None, device, frozen, again=False, worth=0)
    if cost.speed is None or (cost.gpus and cost.speed.device == "cpu"):
        raise UserError(f"hours={hours:g}: this machine could not be timed; give shards=N instead")
    for each in passes:
        cut, image = cuts[each.name], cost.speed.passes[each.name].image
        alone = cost.speed.alone(each.name, len(cut.runs))
        if (needed := shards_needed(cut.images, image, alone, hours)) is None:
            enough = fewest_hours(cut.images, image, alone)
            raise UserError(
                f"hours={hours:g}: too short for {each.name}, each of whose jobs loads the model; "
                f"take hours={enough:g} or more"
            )
        cut.shards = needed


def _kept(file: Path) -> dict[str, Cut]:
    """The cuts of a file, none where it is missing or damaged."""
    try:
        return Cuts.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}
