"""What is wrong with an export of label maps: evidence from ground truth and files alone.

Each finding has the score if the fault were mended. What no image shows is not found: where a
method guesses, no order of classes can be told from another.
"""

from pathlib import Path

from cliptrase.audit import places, values
from cliptrase.audit.export import Export
from cliptrase.audit.findings import Finding, Report
from cliptrase.config import Run
from cliptrase.errors import UserError

__all__ = ["Finding", "Report", "audit"]


def audit(run: Run, data: Path | str) -> Report:
    """What is wrong with the label maps of a resolved run (`method.path`).

    The images are read once, and once more for each fault whose mend needs their pixels. Raises
    UserError for a benchmark that is not prepared, label maps of no image, and a folder in which no
    map can be read.
    """
    export = Export(run, data)
    seen = export.seen()
    if not seen.positions:
        raise UserError(f"{export.maps.path}: no label map can be read; {seen.unreadable[0]}")
    findings = list(export.of_files(seen))
    named, mend = values.findings(export, seen.columns, seen.halves)
    findings += named
    findings += places.interpolated_maps(export, seen)
    findings += places.turned_maps(export, seen, mend)
    findings += places.maps_of_others(export, seen, mend)
    return Report(len(seen.positions), export.miou(seen.columns), findings)
