"""What a vote could mend on `shapes` at 224: `python benchmarks/vote_ceiling.py` (seconds).

+SCR's labels, put to the vote inside the true pixels of every class, beside the vote in the regions
that CLIPtrase finds; and how far apart the features of patches lie, which decides what clustering
them can find. Needs the prepared dataset: `cliptrase prepare shapes`.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from cliptrase import config
from cliptrase.data import open_dataset
from cliptrase.evaluate.graph import Graph
from cliptrase.evaluate.textcache import text_of
from cliptrase.evaluate.truth import Loader
from cliptrase.model.load import load_clip
from cliptrase.publish.scenes import truth_map
from cliptrase.runs.counts import confusion
from cliptrase.runs.metrics import class_counts, scores
from cliptrase.segment.vote import hard_vote
from cliptrase.shapes.concepts import OBJECTS


def main() -> None:
    torch.set_num_threads(1)
    run = config.resolve(["benchmark=shapes", "method=cliptrase"])
    dataset, clip = open_dataset(run), load_clip(run["model"])
    loader, classes = Loader.of(dataset, [run]), run["vocabulary"]["classes"]["count"]
    key, text = text_of(run, clip, run["data"])
    alone = copy.deepcopy(run["method"])
    alone["regions"]["vote"] = "none"
    names = ("+SCR", "+SCR, PC and D", "+SCR, vote in the true regions")
    matrices = {name: np.zeros((classes, classes), np.int64) for name in names}
    shares, distances, found_clusters = [], [], []
    by_features = copy.deepcopy(run["method"])
    by_features["regions"]["cluster"] = "features"
    with torch.inference_mode():
        for position in range(len(dataset)):
            loaded = loader(position)
            truth = truth_map(loaded, run)
            graph = Graph(clip, clip.normalise(loaded.pixels[None]))
            own = graph.prediction(alone, text, key)
            voted = graph.prediction(run["method"], text, key)
            best = hard_vote(own, torch.from_numpy(truth[None]))
            for name, found in zip(names, (own, voted, best), strict=True):
                matrices[name] += confusion(truth, found[0].numpy(), classes)
            distances.append(float(torch.pdist(graph.patches(run["method"])[0]).median()))
            found_clusters.append(int(graph.clusters(by_features).max()) + 1)
            there = [c for c in np.unique(truth) if c < len(OBJECTS)]
            shares += [float((own[0].numpy()[truth == c] == c).mean()) for c in there]
    for name, matrix in matrices.items():
        print(f"{name:<32} mIoU {float(scores('cliptrase', *class_counts(matrix))['mIoU']):.2f}")
    right = np.array(shares)
    print(f"an object class in a scene, {len(right)} of them, by its pixels that +SCR names right:")
    bins = {"none": right == 0, "half or more": right >= 0.5}
    bins["some, under half"] = ~(bins["none"] | bins["half or more"])
    for name, inside in bins.items():
        print(f"  {name:<30} {100 * inside.mean():.0f} %")
    print(f"distance of two patches' features, median: {np.median(distances):.2f}")
    print(f"clusters of features in a scene, median: {np.median(found_clusters):.0f}")


if __name__ == "__main__":
    main()
