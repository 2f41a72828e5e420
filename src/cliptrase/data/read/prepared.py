"""Prepared datasets: raw labels in one Arrow file of Hugging Face `datasets` each, self-checked.

`<data>/prepared/<dataset>/samples.arrow` has the columns id, image and label (bytes of files),
`selfcheck.json` beside it says what was in it when it was made, `sums.npy` what the bytes of each
image and label were: each is held against them when it is read.
"""

from __future__ import annotations

import hashlib
import os
import weakref
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cliptrase.data.fetch.sources import how_to_get
from cliptrase.data.make import recipes
from cliptrase.data.make.records import Record
from cliptrase.data.read.images import read_label, read_stored
from cliptrase.data.read.labels import RAW_VALUES
from cliptrase.data.read.ordered import in_order
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.data.read.selfcheck import SELFCHECK as SELFCHECK
from cliptrase.data.read.selfcheck import prepared_folder as prepared_folder
from cliptrase.data.read.selfcheck import read_selfcheck as read_selfcheck
from cliptrase.data.read.selfcheck import subset_digests as subset_digests
from cliptrase.errors import UserError
from cliptrase.files import atomic_write, sha256_file

ARROW, SUBSETS = "samples.arrow", "subsets"
SUMS = "sums.npy"  # (n, 2) uint32: CRC-32 of the bytes of each image and label


class PreparedSamples(Samples):
    """The samples of one Arrow file, of which only the places of its rows are held in memory.

    Rows are read at their place, by any number of threads. (A mapped file counts as memory of the
    process page by page as it is read, 800 MB for COCO.)
    """

    def __init__(self, folder: Path, called: str | None = None) -> None:
        """called: the name in messages, where it is not that of the file."""
        self._path = folder / ARROW
        self._sums: np.ndarray | None = None
        self._called = called or str(self._path)
        try:
            self._file = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self.ids, self._images, self._labels = _places(self._path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(_again(folder, f"the Arrow file is damaged ({error})")) from error

    def load(self, index: int) -> Sample:
        name = f"{self._called}, {self.ids[index]}"
        stored = self._stored(index)
        if self._sums is not None and list(map(zlib.crc32, stored)) != self._sums[index].tolist():
            fault = f"{self.ids[index]} is not what was prepared"
            raise UserError(_again(self._path.parent, fault, " --force"))
        image, label = read_stored(stored[0], name), read_label(stored[1], name)
        if image.size != label.shape[::-1]:
            raise UserError(f"{name}: image of {image.size} pixels, label of {label.shape[::-1]}")
        return Sample(self.ids[index], image, label)

    def sums(self) -> np.ndarray:
        """(n, 2) uint32, as in SUMS, of what lies in the file now."""
        made = [list(map(zlib.crc32, self._stored(index))) for index in range(len(self.ids))]
        return np.array(made, np.uint32)

    def expect(self, sums: np.ndarray) -> None:
        """Hold every sample against these when it is read."""
        self._sums = sums

    def _stored(self, index: int) -> tuple[bytes, bytes]:
        return self._read(self._images[index]), self._read(self._labels[index])

    def _read(self, place: np.ndarray) -> bytes:
        offset, length = map(int, place)
        return os.pread(self._file, length, offset)


def open_prepared(
    dataset: str, data: Path | str = "data", *, any_code: bool = False
) -> PreparedSamples:
    """The samples of a prepared dataset, raw labels, in the order of their ids.

    Raises UserError with the command that prepares it: absent, cut off or of another count, and,
    unless `any_code` will do: made by other code than this version's, or of other archives than the
    sources name now. Sources that cannot be read are an error then.
    """
    folder = prepared_folder(dataset, data)
    check = read_selfcheck(folder)
    if check is None:
        raise UserError(_again(folder, "not prepared"))
    reason = None if any_code else _outdated(dataset, check, data)
    if reason:
        raise UserError(_again(folder, reason))
    arrow = folder / ARROW
    if not arrow.is_file() or arrow.stat().st_size != check.get("arrow_bytes"):
        raise UserError(_again(folder, f"{ARROW} is absent or cut off"))
    samples = PreparedSamples(folder)
    if len(samples) != check.get("count"):
        raise UserError(_again(folder, f"{len(samples)} samples, not {check.get('count')}"))
    if "sums_sha256" in check:
        sums = folder / SUMS
        if not sums.is_file() or sha256_file(sums) != check["sums_sha256"]:
            raise UserError(_again(folder, f"{SUMS} is absent or damaged", " --force"))
        samples.expect(np.load(sums, allow_pickle=False))
    return samples


def verify_prepared(dataset: str, data: Path | str = "data") -> dict[str, Any]:
    """Decode a whole dataset and hold it against its self-check, which is returned.

    Raises UserError naming what differs.
    """
    folder = prepared_folder(dataset, data)
    samples = open_prepared(dataset, data)
    for name in subset_digests(dataset, data):
        read_subset(dataset, name, data)
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


def write_sums(folder: Path, samples: PreparedSamples) -> str:
    """Write SUMS of a folder's samples; the sha256 of what was written."""
    with atomic_write(folder / SUMS) as file:
        np.save(file, samples.sums())
    return sha256_file(folder / SUMS)


def self_check(
    samples: Samples, label_values: Sequence[tuple[int, int]] | None = None
) -> dict[str, Any]:
    """Count, ids, sizes, label histogram and a hash of the decoded arrays: plain values.

    The same on every machine, whatever wrote the files. label_values: (low, high) pairs of what a
    mask may hold. Raises UserError for a doubled id, an unsorted one, a sample whose image and
    label differ in size, or a mask with another value.
    """
    if not len(samples) or sorted(set(samples.ids)) != samples.ids:
        raise UserError("the ids of a dataset must be sorted, each there once, and at least one")
    allowed = np.ones(RAW_VALUES, bool)
    if label_values is not None:
        allowed[:] = False
        for low, high in label_values:
            allowed[low : high + 1] = True
    histogram = np.zeros(RAW_VALUES, dtype=np.int64)
    pixels, sizes = hashlib.sha256(), []
    for one in in_order(lambda index: _decoded(samples[index], allowed), range(len(samples))):
        histogram[: len(one.counts)] += one.counts
        sizes.append(one.size)
        pixels.update(one.head)
        pixels.update(one.image)
        pixels.update(one.label)
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


def read_subset(dataset: str, name: str, data: Path | str = "data") -> frozenset[str]:
    """The ids of a named part of a prepared dataset, as `coco27` of coco.

    Raises UserError: not there, with the archive that it comes from and why it was of no use;
    another one than when it was made.
    """
    folder = prepared_folder(dataset, data)
    path = folder / SUBSETS / f"{name}.txt"
    known = (read_selfcheck(folder) or {}).get("subsets")  # None: made by an earlier version
    try:
        content = path.read_bytes()
        ids = content.decode("utf-8").split()
    except FileNotFoundError:
        if known and name in known:
            raise UserError(_again(folder, f"{SUBSETS}/{path.name} is gone")) from None
        raise UserError(_no_subset(dataset, path, data)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(_again(folder, f"{path.name} cannot be read ({error})")) from error
    if known is not None and hashlib.sha256(content).hexdigest() != known.get(name):
        raise UserError(_again(folder, f"{SUBSETS}/{path.name} has changed since it was made"))
    return frozenset(ids)


def _no_subset(dataset: str, path: Path, data: Path | str) -> str:
    check = read_selfcheck(path.parents[1])
    there = sorted((check or {}).get("subsets") or {})
    archives = recipes.recipe(dataset, data).optional
    if there or not archives:
        return f"{path}: no such part of {dataset}; there is {', '.join(there) or 'none'}"
    command = f"then run `cliptrase prepare {dataset} --data {data}`"
    if check is not None and check.get("without"):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in check["without"].items())
        return f"{path}: not there: {dataset} was prepared without it ({reasons}); {command}"
    ways = "; ".join(f"{one.name}: {how_to_get(one, data)}" for one in archives)
    return (
        f"{path}: not there: {dataset} is not prepared, or was without the archive that lists it "
        f"({ways}); {command}"
    )


class _Decoded(NamedTuple):
    """What the self-check takes of a sample: bytes to hash, counts of raw values."""

    head: bytes
    image: bytes
    label: bytes
    size: tuple[int, int]
    counts: np.ndarray


def _decoded(sample: Sample, allowed: np.ndarray) -> _Decoded:
    counts = np.bincount(sample.label.ravel())
    strange = np.flatnonzero(counts * ~allowed[: len(counts)])
    if len(strange):
        raise UserError(
            f"{sample.id}: its mask holds {strange[0]}, a value that no mask of this dataset has; "
            "the archives are not those of the source"
        )
    head = f"{sample.id}\0{sample.image.size}\0".encode()
    label = sample.label.astype("<i4").tobytes()
    return _Decoded(head, sample.image.tobytes(), label, sample.image.size, counts)


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


def _outdated(dataset: str, check: dict[str, Any], data: Path | str) -> str | None:
    """Why a dataset is to be made again; None for one that this version cannot make."""
    try:
        return recipes.recipe(dataset, data).outdated(check)
    except recipes.UnknownDataset:
        return None


def _again(folder: Path, fault: str, option: str = "") -> str:
    command = f"cliptrase prepare {folder.name} --data {folder.parent.parent}{option}"
    return f"{folder}: {fault}; run `{command}`"
