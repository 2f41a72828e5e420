"""What of the paper's story holds on a model: global patches by block, ranking, denoising.

`python -m benchmarks.patches [benchmark=shapes_clean image_size=224 …]` prints two tables for
docs/figures.md: means over the images of a prepared benchmark (limit=N: the first N), with 95 %
intervals (Student's t over images).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

import cliptrase.model.lean  # noqa: F401
from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.errors import exit_on_user_error
from cliptrase.evaluate.device import single_threaded_pool
from cliptrase.evaluate.truth import Loader
from cliptrase.model.load import load_clip
from cliptrase.publish.figures.attention import patch_classes, ranking
from cliptrase.publish.figures.predicted import explained, truth_map
from cliptrase.runs.provenance import commit

USUAL = ("benchmark=shapes", "model=shapes_clip", "method=cliptrase", "image_size=336")


def mean(values: Sequence[float], factor: float = 1.0, digits: int = 1) -> str:
    """The mean and, small, half of its interval."""
    numbers = factor * np.array([value for value in values if np.isfinite(value)])
    half = student.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5
    return f"{numbers.mean():.{digits}f} <sub>±{half:.{digits}f}</sub>"


@exit_on_user_error
def main(overrides: Sequence[str]) -> None:
    """Measure and print. Raises UserError where the benchmark is not prepared."""
    run = config.resolve([*USUAL, *overrides])
    data = Path(run.data)
    loader = Loader.of(open_dataset(run, data), [run], data)
    blocks: dict[int, list[tuple[int, float, float, float]]] = {}
    ranked: dict[str, list[float]] = {}
    clusters: dict[str, list[float]] = {}
    with single_threaded_pool(1):
        clip = load_clip(run.model, torch.device("cpu"))
        for position, each in enumerate(
            explained(clip, run, loader, range(len(loader.dataset)), data)
        ):
            classes = patch_classes(truth_map(loader(position), run), clip.patch)

            def area(weights: np.ndarray, classes: np.ndarray = classes) -> float:
                areas = ranking(weights[1:, 1:].astype(np.float64), classes)
                return float(areas.mean()) if areas.size else float("nan")

            for block, looks in each.looks.items():
                facts = int(looks.is_global.sum()), looks.share, looks.of_cls
                blocks.setdefault(block, []).append((*facts, area(each.attention[block])))
            ranked.setdefault("SCR attention, block 12", []).append(area(each.released))
            ranked.setdefault(f"correlation, {each.correlated}", []).append(area(each.correlation))
            made = each.clusters
            assert made is not None
            for name, labels in (("clusters", made.before), ("denoised", made.after)):
                clusters.setdefault(f"{name}, number", []).append(int(labels.max()) + 1)
                clusters.setdefault(f"{name}, % of the patches in none", []).append(
                    100 * (labels < 0).mean()
                )
            noise = np.isin(made.before, made.noisy).mean()
            clusters.setdefault("clusters that [CLS] is like", []).append(len(made.noisy))
            clusters.setdefault("% of the patches in them", []).append(100 * noise)
    images = len(loader.dataset)
    print(f"{run.name}, {images} images, commit {commit()}\n")
    print("| block | global patches | their share, % | of [CLS]'s attention, % | ranking |")
    print("|---:|---:|---:|---:|---:|")
    for block, facts in blocks.items():
        counts, shares, of_cls, areas = zip(*facts, strict=True)
        cells = mean(counts), mean(shares, 100), mean(of_cls, 100), mean(areas, 100)
        print(f"| {block} | {' | '.join(cells)} |")
    for name, areas in ranked.items():
        print(f"| {name} | | | | {mean(areas, 100)} |")
    print("\n| clusters of a picture | mean |\n|---|---:|")
    for name, numbers in clusters.items():
        print(f"| {name} | {mean(numbers)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
