"""What SAM and DINO add to an image, on one CPU thread.

`python benchmarks/second_networks.py [LABEL …]`, labels of conf/backbone. Random weights, as speed
does not depend on training; CPU seconds, the median of three (of SAM's encoder one).
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

import cliptrase.model.lean  # noqa: F401
from cliptrase.config import resolve
from cliptrase.config.backbones import described
from cliptrase.evaluate.graph import Graph
from cliptrase.model.dino import tokens
from cliptrase.model.sam import decode, embed, frame, patch_centres
from cliptrase.pipeline.probe import random_clip, random_network, random_sample

LABELS = ("dinov2_b14", "dinov2_b14_reg", "dino_b16", "dino_b8", "sam_vit_b")
CPU = torch.device("cpu")


def seconds(compute: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of a call, the median of some."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        compute()
        taken.append(time.process_time() - start)
    return median(taken)


def main() -> None:
    torch.set_num_threads(1)
    networks = [described(label) for label in sys.argv[1:] or LABELS]
    for size in (224, 336):
        run = resolve(["benchmark=voc20", "model=vit_b16", f"image_size={size}"])
        clip, picture = random_clip(run.model, CPU), np.asarray(random_sample((size, size)).image)
        pixels = clip.normalise(picture[None])
        encoder = seconds(lambda p=pixels, c=clip, m=run.method: Graph(c, p).patches(m))
        print(f"{size} px: CLIP ViT-B/16 {encoder:.2f} s")
        for network in (each for each in networks if each.kind == "timm"):
            dino = random_network(network, CPU)
            cost = seconds(lambda d=dino, p=picture: tokens(d, d.normalise(p[None])))
            print(f"  {network.label}: {cost:.2f} s, {cost / encoder:.2f} of CLIP")
    for network in (each for each in networks if each.kind == "sam"):
        sam = random_network(network, CPU)
        embedding = list[torch.Tensor]()
        framed = frame(picture, sam.side)[0]
        cost = seconds(lambda s=sam, f=framed, e=embedding: e.append(embed(s, f)), 1)
        print(f"{network.label}: an embedding {cost:.1f} s")
        for side in (14, 21):
            points = torch.from_numpy(patch_centres((side, side), (sam.side, sam.side)))
            labels = (torch.arange(len(points)) % 5 == 0).long()[None]
            cost = seconds(lambda s=sam, p=points, t=labels, e=embedding: decode(s, e[0], p, t))
            print(f"  a prompt of {len(points)} points {cost:.2f} s")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
