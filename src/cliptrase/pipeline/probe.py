"""What passes cost on this machine: `python -m cliptrase.pipeline.probe < QUESTION` times them.

It runs the code of the passes on a random picture, with random weights, and fetches nothing. The
work is typical: the picture is a smooth field of a few colours, whose patches make about as many
clusters as a photograph's, and the features of names are those of patches, so that they compete.

On a CPU every core computes at once, as in a pass, and CPU time counts, whatever else the machine
does. On a GPU the clock counts.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from cliptrase import plan
from cliptrase.config import Run
from cliptrase.config.schema import Model
from cliptrase.config.weights import architecture
from cliptrase.data import open_dataset as open_dataset  # a pass loads it, too
from cliptrase.data.read.samples import Sample
from cliptrase.data.read.vocabularies import read_templates
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.evaluate.graph import Graph, Text
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.protocols import protocol_of
from cliptrase.evaluate.targets import Target, target_key
from cliptrase.evaluate.textcache import names_of
from cliptrase.evaluate.truth import Loader, seen_targets
from cliptrase.machine import cores
from cliptrase.model.load import Clip
from cliptrase.model.precision import lower
from cliptrase.model.text import text_features
from cliptrase.runs.provenance import Stages, peak_memory

SIZES = {"shapes": (224, 224), "shapes_clean": (224, 224), "cityscapes": (2048, 1024)}
PHOTOGRAPH = (640, 480)  # width and height of the pictures of other datasets
COLOURS = 4  # of a picture, along each side
SOME = 4  # methods whose operations are counted, and names that are encoded, instead of all


def random_clip(model: Model, device: torch.device) -> Clip:
    """A model with random weights."""
    module = CLIP(**architecture(model)).eval().requires_grad_(False).to(device)
    lower(module.visual, model.precision)
    half = (0.5, 0.5, 0.5)
    return Clip(module, SimpleTokenizer(), device, "", half, half, precision=model.precision)


def random_sample(size: tuple[int, int], label: int = 0) -> Sample:
    """A smooth picture of this width and height, all of one raw label."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (COLOURS, COLOURS, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC), float)
    noisy = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    return Sample("random", Image.fromarray(noisy), np.full(size[::-1], label, np.int32))


def random_text(clip: Clip, run: Run) -> Text:
    """Features for the names of a run's vocabulary, each that of a patch of a picture."""
    names, owner = names_of(run)
    pixels = clip.normalise(np.asarray(random_sample((224, 224)).image)[None])
    attention = run.method.attention.model_copy(update={"within": None})  # it has no labels
    method = run.method.model_copy(update={"attention": attention})
    patches = Graph(clip, pixels).patches(method)[0]
    chosen = patches[torch.randint(len(patches), (len(names),)).to(clip.device)]
    return Text(chosen, torch.tensor(owner).to(clip.device))


def timing(
    runs: Mapping[str, Run], dataset: str, device: torch.device, encoded: set[str]
) -> dict[str, float]:
    """The `estimate.Timing` of a pass. encoded: words that an earlier pass has encoded; its own are
    added."""
    torch.manual_seed(0)
    words = {name: run.vocabulary.model_dump_json() for name, run in runs.items()}
    vocabularies = {words[name]: run for name, run in runs.items()}
    first, gpu = next(iter(runs.values())), device.type == "cuda"
    clip, count = random_clip(first.model, device), first.batch_size if gpu else cores()
    targets = {target_key(run): Target.of(run) for run in runs.values()}
    tables = [(target.lookup.table, target.classes) for target in targets.values()]
    scored = np.logical_and.reduce([(table >= 0) & (table < classes) for table, classes in tables])
    samples = [random_sample(SIZES.get(dataset, PHOTOGRAPH), int(scored.argmax()))] * count
    oracles = seen_targets(runs.values())
    loader = Loader(samples, dataset, protocol_of(first), targets, oracles=oracles)
    seconds = partial(_seconds, device)
    with torch.inference_mode(), single_threaded_pool(cores()) as pool:
        texts = {key: random_text(clip, run) for key, run in vocabularies.items()}
        jobs = {name: Job.of(run, words[name], texts[words[name]]) for name, run in runs.items()}
        predictor = Predictor(clip, loader, jobs, Stages(), first.batch_size)
        predicted = predictor.batched if gpu else partial(predictor.singly, ahead=count)
        if gpu:  # the first batch waits for the libraries
            list(predicted(pool, range(count)))
        image = seconds(lambda: list(predicted(pool, range(count)))) / count
        distinct = list({job.cost_key: {name: job} for name, job in jobs.items()}.values())
        some = [replace(predictor, jobs=job) for job in distinct[:: -(-len(distinct) // SOME)]]
        once = seconds(lambda: [each.flops(0) for each in some]) * len(distinct) / len(some)
        for key, run in vocabularies.items():
            if key not in encoded:
                templates = read_templates(run.vocabulary.templates.path)
                encode = partial(text_features, clip, ["name"] * SOME, templates)
                once += seconds(encode) * len(texts[key].owner) / SOME
        encoded |= vocabularies.keys()
    return {"image": image, "once": once, "windows": loader.protocol.units([loader(0).shown])}


def _seconds(device: torch.device, call: Callable[[], object]) -> float:
    """Of a call: by the clock on a GPU, else what all threads of this process compute."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def main() -> None:
    """Answer the question of `estimate.timed`."""
    start, question = time.process_time(), json.load(sys.stdin)
    suite, passes, encoded = plan.load(question["suite"]), {}, set[str]()
    with computing_on(question["device"]) as device:
        for name, names in question["passes"].items():
            runs = {run: suite.runs[run] for run in names}
            passes[name] = timing(runs, suite.passes[name].dataset, device, encoded)
    answer = {"device": device.type, "start": start, "memory": peak_memory(), "passes": passes}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
