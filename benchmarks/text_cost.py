"""What class names cost: the package's text features against prompts padded to 77 tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import ratios, spread, taking_turns, wait
from cliptrase.data.read import vocabularies
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.model.load import Clip
from cliptrase.model.text import text_features


def text_speedup(clip: Clip, names: int, rounds: int, threads: int) -> dict[str, Any]:
    """Both on `names` of the 847 classes in each of `rounds`, other names every time.

    Each computes as the package does, a name's prompts a thread (on a GPU one name after the
    other), tokens included.
    """
    all_classes = vocabularies.read_classes(vocabularies.vocabulary_path("ade847"))
    classes = [synonyms[0] for synonyms in all_classes]
    templates = vocabularies.read_templates(vocabularies.template_path("imagenet80"))
    chosen = classes[:: len(classes) // (names * rounds) or 1][: names * rounds]
    parts = [chosen[start : start + names] for start in range(0, len(chosen), names)]
    features: dict[str, Tensor] = {}

    def padded(name: str) -> Tensor:
        prompts = [template.replace("{}", name) for template in templates]
        with torch.inference_mode():
            prompted = clip.model.encode_text(clip.tokenizer(prompts).to(clip.device))
            return F.normalize(F.normalize(prompted, dim=-1).mean(dim=0), dim=-1)

    def all_padded(part: Sequence[str]) -> Tensor:
        with single_threaded_pool(threads) as pool:
            each = pool.map(padded, part) if clip.device.type == "cpu" else map(padded, part)
            return torch.stack(list(each))

    def contender(name: str, compute: Callable[[Sequence[str]], Tensor]) -> Callable[[], float]:
        turns = iter([parts[0], *parts])  # the first one does not count

        def turn() -> float:
            part = next(turns)
            with computing_on(str(clip.device)), torch.inference_mode():
                start = time.perf_counter()
                features[name] = compute(part)
                wait(clip.device)
                return time.perf_counter() - start

        return turn

    package = contender("package", lambda part: text_features(clip, part, templates, threads))
    turns = {"package": package, "padded": contender("padded", all_padded)}
    seconds = taking_turns(turns, rounds)
    measured, whole = len(chosen) * len(templates), len(classes) * len(templates)
    return {
        "prompts_measured": measured,
        "prompts": whole,
        "seconds": {name: round(sum(s) * whole / measured, 1) for name, s in seconds.items()},
        "speedup": spread(ratios(seconds["padded"], seconds["package"])),
        "largest_difference": float((features["package"] - features["padded"]).abs().max()),
    }
