"""What class names cost: the package's text features against prompts padded to 77 tokens."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.timing import ratios, spread, taking_turns, wait
from cliptrase.data.read.vocabularies import (
    read_classes,
    read_templates,
    template_path,
    vocabulary_path,
)
from cliptrase.evaluate.device import computing_on
from cliptrase.evaluate.threads import single_threaded_pool
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features


def text_speedup(clip: Clip, names: int, rounds: int, threads: int) -> dict[str, Any]:
    """Both on `names` of the 847 classes in each of `rounds`, other names every time.

    Each computes as the package does, a name's prompts a thread (on a GPU one name after the
    other), tokens included.
    """
    classes = [own[0] for own in read_classes(vocabulary_path("ade847"))]
    templates = read_templates(template_path("imagenet80"))
    every = len(classes) // (names * rounds) or 1
    chosen = classes[::every][: names * rounds]
    parts = [chosen[start : start + names] for start in range(0, len(chosen), names)]
    done = {"package": 0, "padded": 0}

    def next_part(who: str) -> list[str]:
        part = parts[max(done[who] - 1, 0)]  # the first time does not count
        done[who] += 1
        return part

    def padded(name: str) -> torch.Tensor:
        prompts = [template.replace("{}", name) for template in templates]
        with torch.inference_mode():
            found = clip.model.encode_text(clip.tokenizer(prompts).to(clip.device))
            return F.normalize(F.normalize(found, dim=-1).mean(dim=0), dim=-1)

    features: dict[str, torch.Tensor] = {}

    def package() -> float:
        part = next_part("package")
        with computing_on(str(clip.device)), torch.inference_mode():
            start = time.perf_counter()
            features["package"] = text_features(clip, part, templates, threads)
            wait(clip.device)
            return time.perf_counter() - start

    def as_padded() -> float:
        part = next_part("padded")
        with computing_on(str(clip.device)), single_threaded_pool(threads) as pool:
            start = time.perf_counter()
            many = pool.map(padded, part) if clip.device.type == "cpu" else map(padded, part)
            features["padded"] = torch.stack(list(many))
            wait(clip.device)
            return time.perf_counter() - start

    seconds = taking_turns({"package": package, "padded": as_padded}, rounds)
    apart = float((features["package"] - features["padded"]).abs().max())
    measured, whole = len(chosen) * len(templates), len(classes) * len(templates)
    return {
        "prompts_measured": measured,
        "prompts": whole,
        "seconds": {who: round(sum(s) * whole / measured, 1) for who, s in seconds.items()},
        "speedup": spread(ratios(seconds["padded"], seconds["package"])),
        "largest_difference": apart,
    }
