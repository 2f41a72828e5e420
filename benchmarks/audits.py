"""How often `cliptrase audit` names a fault that was put into an export, and alarms where none is.

`python -m benchmarks.audits RUNS --data data`: RUNS is a results folder whose runs keep all their
label maps (`save_maps=`). Parts of these exports are the clean ones; faults are put into others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptrase import config
from cliptrase.audit import Report, audit
from cliptrase.data import open_dataset
from cliptrase.data.make.records import Record
from cliptrase.data.read import prepared
from cliptrase.evaluate.counting import labels_of
from cliptrase.evaluate.targets import scored_classes, target_key
from cliptrase.evaluate.truth import Loader
from cliptrase.files import write_json

Labels = NDArray[np.int64]
Maps = dict[str, Labels]
FAULTS = {  # kind → the findings that name it
    "one too high": {"labels one too high"},
    "one too low": {"labels one too low"},
    "zero label": {"labels one too high"},
    "another order": {"another order of classes"},
    "ignored value": {"ignored value predicted"},
    "interpolated": {"resized with interpolation"},
    "mirrored": {"mirrored left to right"},
    "upside down": {"mirrored top to bottom"},
    "transposed": {"transposed"},
    "another size": {"another size"},
    "other images": {"predictions of other images"},
    "missing": {"missing images"},
    "wrapped": {"wrapped at 256"},
    "ground truth": {"ground truth given as prediction"},
}

ALSO = {"ignored value predicted", "values that are no class"}  # a part of other faults
LEAST = 15.0  # mIoU in per cent of the exports that get a fault: what guesses has no order


def spoiled(
    fault: str, maps: Mapping[str, Labels], truths: Mapping[str, Labels], classes: int, seed: int
) -> Maps:
    """Clean label maps (H, W) with a fault. truths: −1 where nothing is scored."""
    random = np.random.default_rng(seed)
    match fault:
        case "one too high":
            return {id: labels + 1 for id, labels in maps.items()}
        case "one too low":  # in 8 bits
            return {id: (labels - 1) % 256 for id, labels in maps.items()}
        case "zero label":  # the raw labels of a benchmark whose 0 is ignored
            return {id: np.where(truths[id] < 0, 0, labels + 1) for id, labels in maps.items()}
        case "another order":
            order = random.permutation(classes)
            return {id: order[labels] for id, labels in maps.items()}
        case "ignored value":
            none = 255 if classes <= 255 else 65535
            half = {id: random.random(labels.shape) < 0.05 for id, labels in maps.items()}
            return {id: np.where(half[id], none, labels) for id, labels in maps.items()}
        case "interpolated":  # to a third and back
            return {id: _resized(labels, Image.Resampling.BILINEAR) for id, labels in maps.items()}
        case "mirrored":
            return {id: labels[:, ::-1] for id, labels in maps.items()}
        case "upside down":
            return {id: labels[::-1] for id, labels in maps.items()}
        case "transposed":
            return {id: labels.T for id, labels in maps.items()}
        case "another size":
            return {id: labels[::2, ::2] for id, labels in maps.items()}
        case "other images":  # each has the map of the next
            ids = [*maps]
            return {id: maps[ids[place - 1]] for place, id in enumerate(ids)}
        case "missing":
            gone = random.choice([*maps], max(1, len(maps) // 10), replace=False)
            return {id: labels for id, labels in maps.items() if id not in gone}
        case "wrapped":
            return {id: labels % 256 for id, labels in maps.items()}
        case "ground truth":
            return {id: np.where(labels < 0, 0, labels) for id, labels in truths.items()}
    raise ValueError(fault)


def _resized(labels: Labels, kind: Image.Resampling) -> Labels:
    image = Image.fromarray(labels.astype(np.float32))
    small = image.resize((image.width // 3, image.height // 3), Image.Resampling.NEAREST)
    return np.rint(np.asarray(small.resize(image.size, kind))).astype(np.int64)


def audited(overrides: Sequence[str], maps: Mapping[str, Labels], data: Path) -> Report:
    """What the audit says of label maps. overrides: they name the benchmark."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "maps.npz")
        np.savez(path, **maps)
        run = config.resolve([*overrides, "method=predictions", f"method.path={path}"])
        return audit(run, data)


def truths_of(overrides: Sequence[str], data: Path) -> Maps:
    """Image id → ground truth (H, W), −1 where nothing is scored."""
    run = config.resolve(list(overrides))
    dataset = open_dataset(run, data)
    loader, truths = Loader.of(dataset, [run], data), Maps()
    for position, id in enumerate(dataset.ids):
        scored = loader.scored(position)
        truth = scored.truths[target_key(run)]
        truths[id] = labels_of(truth, scored.size).astype(np.int64).reshape(scored.size)
    return truths


def many_classes(folder: Path, images: int) -> tuple[list[str], Maps]:
    """A folder of drawn pictures and masks of 459 classes: the overrides that name it, and label
    maps of which a third of the regions are wrong."""
    random, maps = np.random.default_rng(0), Maps()
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "words.txt").write_text("".join(f"thing {i}\n" for i in range(459)))
    some = random.permutation(459)[:40]  # an image set shows a part of them
    for number in range(images):
        labels = random.choice(some, (6, 8)).repeat(16, axis=0).repeat(16, axis=1)
        wrong = (random.random((6, 8)) < 1 / 3).repeat(16, axis=0).repeat(16, axis=1)
        other = random.choice(some, (6, 8)).repeat(16, axis=0).repeat(16, axis=1)
        Image.fromarray(random.integers(0, 256, (96, 128, 3), np.uint8)).save(
            folder / "images" / f"{number}.png"
        )
        Image.fromarray(labels.astype(np.uint16)).save(folder / "masks" / f"{number}.png")
        maps[f"{number}"] = np.where(wrong, other, labels).astype(np.int64)
    words = [f"images={folder / 'images'}", f"labels={folder / 'masks'}"]
    words += [f"classes={folder / 'words.txt'}", "templates=shapes"]
    return ["benchmark=folder", *(f"benchmark.{word}" for word in words), "protocol=slide"], maps


def part_of(data: Path, ids: Sequence[str], target: Path) -> Path:
    """A data folder whose `shapes` has some of the scenes; returns it."""
    samples = prepared.open_prepared("shapes", data, any_code=True)
    folder = prepared.prepared_folder("shapes", target)
    folder.mkdir(parents=True)
    records = (
        Record(id, *samples._stored(samples.ids.index(id)))  # the bytes of both files
        for id in sorted(ids)
    )
    prepared.write_arrow(folder / prepared.ARROW, records)
    check = prepared.self_check(prepared.PreparedSamples(folder))
    check["arrow_bytes"] = (folder / prepared.ARROW).stat().st_size
    write_json(folder / "selfcheck.json", check)
    return target


def measure(results: Path, data: Path, clean: int, faults: int) -> dict[str, object]:
    """Of `clean` clean exports those with a finding, and of `faults` faults those not named."""
    runs = sorted(folder for folder in results.glob("runs/*") if (folder / "maps").is_dir())
    ids = prepared.open_prepared("shapes", data, any_code=True).ids
    alarms, lost, others, kinds = list[str](), list[str](), list[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        folds = -(-clean // len(runs))
        parts = [ids[number::folds] for number in range(folds)]
        data_of = [part_of(data, part, Path(place, str(n))) for n, part in enumerate(parts)]
        exports = list(itertools.product(range(folds), runs))[:clean]
        good = []
        for fold, folder in exports:
            maps = _read(folder, parts[fold])
            overrides = [f"benchmark={folder.name.partition('.')[0]}"]
            report = audited(overrides, maps, data_of[fold])
            alarms += [f"{folder.name}, part {fold}: {each}" for each in report.findings]
            if report.score >= LEAST:
                good.append((overrides, maps, data_of[fold]))
        drawn = np.random.default_rng(0)
        synthetic = many_classes(Path(place, "many"), 12)
        for number in range(faults):
            fault = [*FAULTS][number % len(FAULTS)]
            overrides, maps, where = good[drawn.integers(len(good))]
            if fault == "wrapped":
                (overrides, maps), where = synthetic, data
            truths = truths_of(overrides, where)
            classes = scored_classes(config.resolve(overrides))
            bad = spoiled(fault, maps, truths, classes, number)
            names = {each.fault for each in audited(overrides, bad, where).findings}
            kinds[fault] += 1
            if not names & FAULTS[fault]:
                lost.append(f"{fault}, {overrides[0]}: {sorted(names)}")
            others += [f"{fault}: {name}" for name in names - FAULTS[fault] - ALSO]
    return {
        "clean": len(exports), "alarms": alarms, "faults": dict(kinds), "not named": lost,
        "also named": others,
    }  # fmt: skip


def _read(folder: Path, ids: Sequence[str]) -> Maps:
    """The label maps that a run keeps, of some images."""
    return {
        id: np.asarray(Image.open(folder / "maps" / f"{id}.png")).astype(np.int64) for id in ids
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audits", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--clean", type=int, default=200)
    parser.add_argument("--faults", type=int, default=30)
    options = parser.parse_args()
    figures = measure(options.results, options.data, options.clean, options.faults)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
