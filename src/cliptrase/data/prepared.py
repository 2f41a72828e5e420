"""Prepared datasets: raw labels in one Arrow file of Hugging Face `datasets` each, self-checked.

`<data>/prepared/<dataset>/samples.arrow` has the columns id, image and label (bytes of files),
`selfcheck.json` beside it says what was in it when it was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cliptrase.data import recipes
from cliptrase.data.images import read_image, read_label
from cliptrase.data.recipes import Record
from cliptrase.data.samples import Sample, Samples
from cliptrase.errors import UserError

ARROW, SELFCHECK = "samples.arrow", "selfcheck.json"


class PreparedSamples(Samples):
    """The samples of one Arrow file, of which only the places of its rows are held in memory.

    Rows are read at their place, by any number of threads. (A mapped file counts as memory of the
    process page by page as it is read, 800 MB for COCO.)
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ARROW
        try:
            self._file = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self.ids, self._images, self._labels = _places(self._path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(_again(folder, f"the Arrow file is damaged ({error})")) from error

    def load(self, index: int) -> Sample:
        name = f"{self._path}, {self.ids[index]}"
        image = read_image(self._read(self._images[index]), name)
        label = read_label(self._read(self._labels[index]), name)
        if image.size != label.shape[::-1]:
            raise UserError(f"{name}: image of {image.size} pixels, label of {label.shape[::-1]}")
        return Sample(self.ids[index], image, label)

    def _read(self, place: np.ndarray) -> bytes:
        offset, length = map(int, place)
        return os.pread(self._file, length, offset)


def prepared_folder(dataset: str, data: Path | str) -> Path:
    """Where a dataset is kept below the data folder."""
    return Path(data) / "prepared" / dataset


def open_prepared(
    dataset: str, data: Path | str = "data", *, any_code: bool = False
) -> PreparedSamples:
    """The samples of a prepared dataset, raw labels, in the order of their ids.

    Raises UserError with the command that prepares it: absent, cut off, of another count, or made
    by other code than this version's, unless `any_code` will do.
    """
    folder = prepared_folder(dataset, data)
    check = read_selfcheck(folder)
    if check is None:
        if dataset in recipes.LATER:
            recipes.recipe(dataset)  # says that no command prepares it, and what to do instead
        raise UserError(_again(folder, "not prepared"))
    if not any_code and current_recipe(dataset) not in (None, check.get("recipe_sha256")):
        raise UserError(_again(folder, f"made by another version of the code that makes {dataset}"))
    arrow = folder / ARROW
    if not arrow.is_file() or arrow.stat().st_size != check.get("arrow_bytes"):
        raise UserError(_again(folder, f"{ARROW} is absent or cut off"))
    samples = PreparedSamples(folder)
    if len(samples) != check.get("count"):
        raise UserError(_again(folder, f"{len(samples)} samples, not {check.get('count')}"))
    return samples


def verify_prepared(dataset: str, data: Path | str = "data") -> dict[str, Any]:
    """Decode a whole dataset and hold it against its self-check, which is returned.

    Raises UserError naming what differs.
    """
    folder = prepared_folder(dataset, data)
    samples = open_prepared(dataset, data)
    check, now = read_selfcheck(folder) or {}, self_check(samples)
    differing = [key for key, value in now.items() if check.get(key) != value]
    if differing:
        raise UserError(_again(folder, f"its content has changed: {', '.join(differing)}"))
    return check


def write_arrow(path: Path, records: Iterable[Record]) -> None:
    """Write rows one by one; memory holds a few of them."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    features = Features({"id": Value("string"), "image": Value("binary"), "label": Value("binary")})
    with ArrowWriter(features=features, path=str(path), writer_batch_size=16) as writer:
        for record in records:
            writer.write({"id": record.id, "image": record.image, "label": record.label})
        writer.finalize()


def self_check(samples: Samples) -> dict[str, Any]:
    """Count, ids, sizes, label histogram and a hash of the decoded arrays: plain values.

    The same on every machine, whatever wrote the files. Raises UserError for a doubled id, an
    unsorted one, or a sample whose image and label differ in size.
    """
    histogram = np.zeros(65536, dtype=np.int64)
    pixels, sizes = hashlib.sha256(), []
    for sample in _sorted_once(samples):
        histogram += np.bincount(sample.label.ravel(), minlength=len(histogram))
        sizes.append(sample.image.size)
        pixels.update(f"{sample.id}\0{sample.image.size}\0".encode())
        pixels.update(sample.image.tobytes())
        pixels.update(sample.label.astype("<i4").tobytes())
    present = np.flatnonzero(histogram)
    return {
        "count": len(sizes),
        "ids_sha256": hashlib.sha256("\n".join(samples.ids).encode()).hexdigest(),
        "pixels_sha256": pixels.hexdigest(),
        "shortest_side": min(map(min, sizes)),
        "longest_side": max(map(max, sizes)),
        "label_bits": 16 if present[-1] > 255 else 8,
        "label_pixels": {str(raw): int(histogram[raw]) for raw in present},
    }


def _places(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The ids of an Arrow file, and where its images and labels lie: (n, 2) offset and length."""
    import pyarrow  # type: ignore[import-untyped]

    with pyarrow.memory_map(str(path)) as mapped:
        base = mapped.read_buffer(1).address
        mapped.seek(0)
        table = pyarrow.ipc.open_stream(mapped).read_all()
        places = []
        for column in ("image", "label"):
            pieces = [np.empty((0, 2), np.int64)]
            for chunk in table.column(column).chunks:
                if chunk.type != pyarrow.binary() or chunk.null_count:
                    raise ValueError(f"column {column} is not one of files' bytes")
                _, offsets, data = chunk.buffers()
                ends = np.frombuffer(offsets, np.int32)[chunk.offset :][: len(chunk) + 1]
                start = data.address - base + ends[:-1].astype(np.int64)
                pieces.append(np.stack([start, np.diff(ends)], axis=1))
            places.append(np.concatenate(pieces))
        return table.column("id").to_pylist(), places[0], places[1]


def read_selfcheck(folder: Path) -> dict[str, Any] | None:
    """The stored self-check, None where there is none that can be read."""
    try:
        content = json.loads((folder / SELFCHECK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def current_recipe(dataset: str) -> str | None:
    """The digest of the code that makes a dataset now, None for one that this version cannot."""
    try:
        return recipes.recipe(dataset).digest()
    except UserError:
        return None


def _sorted_once(samples: Samples) -> Iterator[Sample]:
    if not len(samples) or sorted(set(samples.ids)) != samples.ids:
        raise UserError("the ids of a dataset must be sorted, each there once, and at least one")
    yield from samples


def _again(folder: Path, fault: str) -> str:
    command = f"cliptrase prepare {folder.name} --data {folder.parent.parent}"
    return f"{folder}: {fault}; run `{command}`"
