"""What preparing costs: `python benchmarks/prepare.py [--images 200] [DATASET …]` (minutes).

Archives in the layout of each source, in a temporary folder, of synthetic photographs at the sizes
and file sizes of real ones; each is prepared in a process of its own on two cores. Prints images
per second and their CPU time, the peak of memory, and the minutes that the real number would take.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
import yaml
from PIL import Image

from cliptrase.data.fetch.sources import read_sources

KINDS = 12  # different pictures; the others repeat them under other ids
SIZES = {  # (width, height)
    "coco": (640, 480),
    "voc2012": (500, 375),
    "pcontext": (500, 375),
    "ade2016": (683, 512),
    "ade2021": (2048, 1536),
    "cityscapes": (2048, 1024),
}
INSTANCES = 27  # masks of instances beside each picture of ADE20K full, of 27,574 pictures
PREPARE = """
import json, os, resource, sys, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import datasets.arrow_writer, scipy.io  # what is loaded once counts for nothing
from cliptrase.data.fetch import download
from cliptrase.data.make import prepare
from cliptrase.data.read import prepared
start, cpu = time.perf_counter(), time.process_time()
prepare.prepare(sys.argv[1], sys.argv[2])
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "cpu": time.process_time() - cpu,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="What preparing each dataset costs.")
    parser.add_argument("datasets", nargs="*", default=list(SIZES), metavar="DATASET")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--listing", action="store_true", help="ADE20K full's 855,000 members")
    options = parser.parse_args()
    print(
        "dataset      size        archive  images/s  CPU ms/image  peak memory  real count  minutes"
    )
    for dataset in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            write(data, dataset, options.images, options.listing)
            archives = sum(path.stat().st_size for path in (data / "raw").iterdir())
            command = [sys.executable, "-c", PREPARE, dataset, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rate = options.images / found["seconds"]
        count = read_sources(Path("data/none")).datasets[dataset].count
        width, height = SIZES[dataset]
        print(
            f"{dataset:12} {f'{width} x {height}':11} {archives / 1e6:4.0f} MB  {rate:8.1f}  "
            f"{1000 * found['cpu'] / options.images:12.1f}  {found['peak'] / 2**20:8.0f} MB  "
            f"{count:10,}  {count / rate / 60:7.1f}",
            flush=True,
        )


def write(data: Path, dataset: str, count: int, listing: bool) -> None:
    """The archives of `count` images in <data>/raw, and their sources.yaml."""
    (data / "raw").mkdir()
    pictures = list(some_pictures(dataset))
    real = read_sources(Path("data/none")).datasets[dataset]
    held: dict[str, dict[str, bytes]] = {one.name: {} for one in real.needed()}
    images, labels = (held[real.archives[role].name] for role in ("images", "labels"))
    ids = []
    for number in range(count):
        image, label = pictures[number % KINDS]
        one, shown, mask = places(dataset, number)
        images[shown], labels[mask] = image, label
        ids.append(one)
    if dataset == "voc2012":
        listed = "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
        images[listed] = "\n".join(ids).encode()
    if dataset == "ade2021" and listing:
        root = "ADE20K_2021_17_01/images/ADE/training/home_or_hotel/living_room"
        for number in range(27_574):
            for end in ("json", *(f"{k}/instance_{k:03d}.png" for k in range(INSTANCES + 3))):
                images[f"{root}/ADE_train_{number:08d}.{end}"] = b"0123456789"
    for name, members in held.items():
        pack(data / "raw" / name, members)
    plain = {"role": "a benchmark's", "urls": [], "bytes": None, "checksum": None}
    entry = {"archives": {role: one.name for role, one in real.archives.items()}}
    entry |= {"optional": {}, "count": count, "expected": {"ids": ids}}
    listed_archives = {name: plain | {"licence": "none", "gated": None} for name in held}
    text = yaml.safe_dump({"archives": listed_archives, "datasets": {dataset: entry}})
    (data / "sources.yaml").write_text(text, encoding="utf-8")


def places(dataset: str, number: int) -> tuple[str, str, str]:
    """An id, and the members of its image and its mask."""
    ade, city = f"ADE_val_{number + 1:08d}", f"frankfurt_{number:06d}_000019"
    full = f"ADE20K_2021_17_01/images/ADE/validation/urban/street/{ade}"
    coco, voc = f"{number:012d}", f"2010_{number:06d}"
    return {
        "coco": (coco, f"val2017/{coco}.jpg", f"val2017/{coco}.png"),
        "voc2012": (
            voc,
            f"VOCdevkit/VOC2012/JPEGImages/{voc}.jpg",
            f"VOCdevkit/VOC2012/SegmentationClass/{voc}.png",
        ),
        "pcontext": (voc, f"VOCdevkit/VOC2010/JPEGImages/{voc}.jpg", f"trainval/{voc}.mat"),
        "ade2016": (
            ade,
            f"ADEChallengeData2016/images/validation/{ade}.jpg",
            f"ADEChallengeData2016/annotations/validation/{ade}.png",
        ),
        "ade2021": (ade, f"{full}.jpg", f"{full}_seg.png"),
        "cityscapes": (
            city,
            f"leftImg8bit/val/frankfurt/{city}_leftImg8bit.png",
            f"gtFine/val/frankfurt/{city}_gtFine_labelIds.png",
        ),
    }[dataset]


def some_pictures(dataset: str) -> Iterator[tuple[bytes, bytes]]:
    """Images and masks as files: noise over smooth shading, some 40 regions with rough edges."""
    width, height = SIZES[dataset]
    rng = np.random.default_rng(0)
    classes = {"voc2012": 21, "pcontext": 460, "ade2021": 3000, "cityscapes": 34}.get(dataset, 150)
    for _ in range(KINDS):
        shading = smooth(rng, 24, (height, width)) + smooth(rng, 160, (height, width)) * 0.5
        noise = rng.normal(0, 6, (height, width, 1))
        colours = shading[..., None] * rng.uniform(60, 110, 3) + 90 + noise
        image = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
        region = (smooth(rng, 10, (height, width)) * 20 + smooth(rng, 80, (height, width))).round()
        raw = (region.astype(np.int64) * 37 % classes).astype(np.uint16)
        yield encoded(image, "PNG" if dataset == "cityscapes" else "JPEG"), mask(dataset, raw)


def smooth(rng: np.random.Generator, cells: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W) of about -1 to 1, `cells` bumps across."""
    small = Image.fromarray(rng.normal(0, 0.5, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def mask(dataset: str, raw: np.ndarray) -> bytes:
    """Raw labels in the source's own file format."""
    if dataset == "pcontext":
        file = io.BytesIO()
        scipy.io.savemat(file, {"LabelMap": raw}, do_compression=True)
        return file.getvalue()
    if dataset == "ade2021":
        colours = np.stack([raw // 256 * 10, raw % 256, raw % 7], axis=-1).astype(np.uint8)
        return encoded(Image.fromarray(colours), "PNG")
    image = Image.fromarray(raw.astype(np.uint8))
    if dataset == "voc2012":
        image.putpalette(list(range(256)) * 3)
    return encoded(image, "PNG")


def encoded(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **({"quality": 92} if form == "JPEG" else {"compress_level": 3}))
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> None:
    """A zip, tar or tar.gz by its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with opened(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def opened(path: Path) -> gzip.GzipFile | io.BufferedWriter:
    return gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")


if __name__ == "__main__":
    main()
