"""Prepared datasets: the raw files of images and masks in one Arrow file each, self-checked.

`<data>/prepared/<dataset>/samples.arrow` is a file of Hugging Face's `datasets` with the columns
id, image and label; beside it `selfcheck.json` keeps its figures, `sums.npy` sums of its rows.
"""

import hashlib
import os
import weakref
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cliptrase.data.fetch.sources import how_to_get
from cliptrase.data.make import recipes
from cliptrase.data.make.records import Record
from cliptrase.data.read.images import read_image, read_label
from cliptrase.data.read.labels import RAW_VALUES
from cliptrase.data.read.ordered import in_order
from cliptrase.data.read.samples import Sample, Samples
from cliptrase.data.read.selfcheck import SelfCheck, prepared_folder, read_selfcheck
from cliptrase.errors import UserError, counted
from cliptrase.files import atomic_write, sha256_file, sha256_text

ARROW, SUBSETS = "samples.arrow", "subsets"
SUMS = "sums.npy"  # (n, 2) uint32: CRC-32 of the bytes of each image and label


class PreparedSamples(Samples):
    """The samples of one Arrow file, of which only the places of the rows are held in memory.

    Any number of threads may read. (A mapped file would count as memory of the process page by page
    as it is read, 800 MB for COCO.) If `sums` are given, each row is compared with them when read.
    """

    def __init__(self, folder: Path, name: str | None = None, sums: np.ndarray | None = None):
        """name: of the dataset in messages, the path of the file if there is none."""
        self._path, self._sums = folder / ARROW, sums
        self._name = name or str(self._path)
        try:
            self._file = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self.ids, self._images, self._labels = _places(self._path)
            self.ids_sha256 = _ids_digest(self.ids)
        except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise UserError(_again(folder, f"the Arrow file is damaged ({error})")) from error

    def load(self, index: int) -> Sample:
        name = f"{self._name}, {self.ids[index]}"
        image_file, label_file = self._stored(index)
        sums = [zlib.crc32(image_file), zlib.crc32(label_file)]
        if self._sums is not None and sums != self._sums[index].tolist():
            fault = f"{self.ids[index]} is not what was prepared"
            raise UserError(_again(self._path.parent, fault, " --force"))
        image = read_image(image_file, name, as_stored=True)
        label = read_label(label_file, name, as_stored=True)
        if image.size != label.shape[::-1]:
            raise UserError(f"{name}: image of {image.size} pixels, label of {label.shape[::-1]}")
        return Sample(self.ids[index], image, label)

    def write_sums(self) -> str:
        """Write SUMS of the file's content now; the sha256 of what was written."""
        rows = [list(map(zlib.crc32, self._stored(index))) for index in range(len(self.ids))]
        path = self._path.with_name(SUMS)
        with atomic_write(path) as file:
            np.save(file, np.array(rows, np.uint32))
        return sha256_file(path)

    def _stored(self, index: int) -> list[bytes]:
        """The bytes of the image's file and of the label's."""
        places = self._images[index], self._labels[index]
        return [os.pread(self._file, int(length), int(offset)) for offset, length in places]


def open_prepared(
    dataset: str, data: Path | str = "data", *, any_code: bool = False
) -> PreparedSamples:
    """The samples of a prepared dataset, raw labels, in the order of their ids.

    Raises UserError with the command that prepares it: missing, cut off, of another count, or,
    unless `any_code`, made by other code than this version's or of other archives than the sources
    name now (then sources that cannot be read are an error too).
    """
    folder = prepared_folder(dataset, data)
    check = read_selfcheck(folder)
    if check is None:
        raise UserError(_again(folder, "not prepared"))
    if not any_code and "recipe_sha256" in check:  # else nothing is known of its making
        reason = recipes.recipe(dataset, data).outdated(check)
        if reason:
            raise UserError(_again(folder, reason))
    arrow = folder / ARROW
    if not arrow.is_file() or arrow.stat().st_size != check.get("arrow_bytes"):
        raise UserError(_again(folder, f"{ARROW} is absent or cut off"))
    sums = None
    if "sums_sha256" in check:
        path = folder / SUMS
        if not path.is_file() or sha256_file(path) != check["sums_sha256"]:
            raise UserError(_again(folder, f"{SUMS} is absent or damaged", " --force"))
        sums = np.load(path, allow_pickle=False)
    samples = PreparedSamples(folder, sums=sums)
    if len(samples) != check.get("count"):
        raise UserError(
            _again(folder, f"{counted(len(samples), 'sample')}, not {check.get('count')}")
        )
    if samples.ids_sha256 != check.get("ids_sha256"):
        raise UserError(_again(folder, f"the ids in {ARROW} are not those that were prepared"))
    return samples


def verify_prepared(dataset: str, data: Path | str = "data") -> SelfCheck:
    """Decode a whole dataset and compare it with its self-check, which is returned.

    Raises UserError naming what differs.
    """
    folder = prepared_folder(dataset, data)
    samples = open_prepared(dataset, data)
    check = read_selfcheck(folder) or {}
    for name in check.get("subsets", {}):
        read_subset(dataset, name, data)
    now = self_check(samples)
    differing = [key for key, value in now.items() if check.get(key) != value]
    if differing:
        raise UserError(_again(folder, f"its content has changed: {', '.join(differing)}"))
    return check


def write_arrow(path: Path, records: Iterable[Record]) -> None:
    """Write rows one by one, so that memory holds only a few of them."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    features = Features({"id": Value("string"), "image": Value("binary"), "label": Value("binary")})
    with ArrowWriter(features=features, path=str(path), writer_batch_size=16) as writer:
        for record in records:
            writer.write({"id": record.id, "image": record.image, "label": record.label})
        writer.finalize()
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def self_check(
    samples: Samples, label_values: Sequence[tuple[int, int]] | None = None
) -> SelfCheck:
    """Count, ids, sizes, label histogram and a hash of the decoded arrays.

    They are the same on every machine. label_values: (low, high) pairs of what a mask may hold,
    None for any value. Raises UserError for ids that are doubled or unsorted, a sample whose image
    and label differ in size, or a mask with another value.
    """
    if not len(samples) or sorted(set(samples.ids)) != samples.ids:
        raise UserError("the ids of a dataset must be sorted, each there once, and at least one")
    allowed = np.full(RAW_VALUES, label_values is None)
    for low, high in label_values or ():
        allowed[low : high + 1] = True
    histogram = np.zeros(RAW_VALUES, dtype=np.int64)
    pixels, sizes = hashlib.sha256(), []
    checked = in_order(lambda index: _decoded(samples[index], allowed), range(len(samples)))
    for contents, size, counts in checked:
        histogram[: len(counts)] += counts
        sizes.append(size)
        for content in contents:
            pixels.update(content)
    present = np.flatnonzero(histogram)
    return {
        "count": len(sizes),
        "ids_sha256": _ids_digest(samples.ids),
        "pixels_sha256": pixels.hexdigest(),
        "shortest_side": min(map(min, sizes)),
        "longest_side": max(map(max, sizes)),
        "label_bits": 16 if present[-1] > 255 else 8,
        "label_pixels": {str(raw): int(histogram[raw]) for raw in present},
    }


def read_subset(dataset: str, name: str, data: Path | str = "data") -> frozenset[str]:
    """The ids of a named part of a prepared dataset, as `coco27` of coco.

    Raises UserError: not there, with the archive that lists it and why that was of no use; changed
    since it was made.
    """
    folder = prepared_folder(dataset, data)
    path = folder / SUBSETS / f"{name}.txt"
    check = read_selfcheck(folder) or {}
    digests = check.get("subsets", {})
    if name not in digests:
        raise UserError(_no_subset(dataset, path, check, data))
    if not path.is_file() or sha256_file(path) != digests[name]:
        fault = "has changed since it was made" if path.is_file() else "is gone"
        raise UserError(_again(folder, f"{SUBSETS}/{path.name} {fault}"))
    return frozenset(path.read_text(encoding="utf-8").split())


def _no_subset(dataset: str, path: Path, check: SelfCheck, data: Path | str) -> str:
    names = sorted(check.get("subsets", {}))
    archives = recipes.recipe(dataset, data).optional
    if names or not archives:
        return f"{path}: no such part of {dataset}; there is {', '.join(names) or 'none'}"
    without = check.get("without") or {
        archive.name: how_to_get(archive, data) for archive in archives
    }
    state = "was prepared without it" if check.get("without") else "is not prepared, or without it"
    reasons = "; ".join(f"{name}: {reason}" for name, reason in without.items())
    command = f"then run `cliptrase prepare {dataset} --data {data}`"
    return f"{path}: not there: {dataset} {state} ({reasons}); {command}"


def _ids_digest(ids: Iterable[str]) -> str:
    return sha256_text("\n".join(ids))


def _decoded(
    sample: Sample, allowed: np.ndarray
) -> tuple[tuple[bytes, ...], tuple[int, int], np.ndarray]:
    """The bytes of a sample to hash, its size, and the counts of its raw values."""
    counts = np.bincount(sample.label.ravel())
    strange = np.flatnonzero(counts * ~allowed[: len(counts)])
    if len(strange):
        raise UserError(
            f"{sample.id}: its mask holds {strange[0]}, a value that no mask of this dataset has; "
            f"{recipes.FOREIGN}"
        )
    head = f"{sample.id}\0{sample.image.size}\0".encode()
    contents = (head, sample.image.tobytes(), sample.label.astype("<i4").tobytes())
    return contents, sample.image.size, counts


def _places(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The ids of an Arrow file, and where its images and labels lie: (n, 2) offset and length."""
    import pyarrow  # type: ignore[import-untyped]

    with pyarrow.memory_map(str(path)) as mapped:
        base = mapped.read_buffer(1).address
        mapped.seek(0)
        table = pyarrow.ipc.open_stream(mapped).read_all()
        chunks = (chunk for column in table.columns for chunk in column.chunks)
        for buffer in (buffer for chunk in chunks for buffer in chunk.buffers() if buffer):
            if not base <= buffer.address <= base + mapped.size() - buffer.size:  # a crash to read
                raise ValueError("a row lies outside the file")
        table.validate(full=True)
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


def _again(folder: Path, fault: str, option: str = "") -> str:
    command = f"cliptrase prepare {folder.name} --data {folder.parent.parent}{option}"
    return f"{folder}: {fault}; run `{command}`"
