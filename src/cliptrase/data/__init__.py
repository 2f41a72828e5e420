"""Data: prepared datasets, folders of images and masks, label tables, lists of names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliptrase.config import Run
    from cliptrase.data.read.samples import Samples


def open_dataset(run: Run, data: Path | str | None = None, *, any_code: bool = False) -> Samples:
    """The samples that a resolved run is scored on, the first `limit` of them where it has one.

    data: the data folder, None for the run's own. any_code: take a prepared dataset though this
    version's code would make it again. Raises UserError: the dataset is not prepared
    (with the command), or a fault of a folder.
    """
    benchmark = run.benchmark
    if source := benchmark.folder:
        from cliptrase.data.read.folder_samples import FolderSamples
        from cliptrase.data.read.labels import lookup
        from cliptrase.data.read.vocabularies import read_classes

        table = lookup(benchmark.labels, run.vocabulary.classes.count)
        words = read_classes(run.vocabulary.classes.path) if source.colours_path else []
        samples: Samples = FolderSamples(source, table, words)
    else:
        from cliptrase.data.read.prepared import open_prepared

        samples = open_prepared(benchmark.dataset, data or run.data, any_code=any_code)
    samples.ids = samples.ids[: run.limit]
    return samples
