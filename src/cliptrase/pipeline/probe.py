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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import cliptrase.model.lean  # noqa: F401
from cliptrase import plan
from cliptrase.config import Run
from cliptrase.config.kinds import ATTENTION
from cliptrase.config.method import Backbone, Method
from cliptrase.config.schema import Model
from cliptrase.config.weights import architecture
from cliptrase.data import open_dataset as open_dataset  # a pass loads it, too
from cliptrase.data.read.crop import crop_box, crop_image
from cliptrase.data.read.samples import Sample
from cliptrase.data.read.vocabularies import read_templates
from cliptrase.evaluate.device import computing_on, single_threaded_pool
from cliptrase.evaluate.encoded import Text
from cliptrase.evaluate.graph import UNCHANGED, Graph, Original
from cliptrase.evaluate.jobs import Job
from cliptrase.evaluate.predict import Predictor
from cliptrase.evaluate.protocols import protocol_of
from cliptrase.evaluate.targets import Target, target_key
from cliptrase.evaluate.textcache import background_of, names_of
from cliptrase.evaluate.truth import Loader, seen_targets
from cliptrase.machine import cores
from cliptrase.model.backbones import Key, Network, load_networks
from cliptrase.model.dino import Dino
from cliptrase.model.load import Clip
from cliptrase.model.precision import lower
from cliptrase.model.sam import Sam, embed, frame
from cliptrase.model.text import text_features
from cliptrase.runs.provenance import Stages, peak_memory

SIZES = {"shapes": (224, 224), "shapes_clean": (224, 224), "cityscapes": (2048, 1024)}
PHOTOGRAPH = (640, 480)  # width and height of the pictures of other datasets
COLOURS = 4  # of a picture, along each side
QUARTERS = 4  # of SAM's encoder: blocks alike, the last of which attends globally
SAMS: dict[str, dict[str, Any]] = {  # of the hub: a quarter of each
    "facebook/sam-vit-base": {"num_hidden_layers": 3, "global_attn_indexes": [2]},
    "facebook/sam-vit-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "mlp_dim": 4096,
        "global_attn_indexes": [5],
    },
    "facebook/sam-vit-huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "mlp_dim": 5120,
        "global_attn_indexes": [7],
    },
}
SOME = 4  # methods whose operations are counted, and names that are encoded, instead of all


def random_clip(model: Model, device: torch.device) -> Clip:
    """A model with random weights."""
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    module = CLIP(**architecture(model)).eval().requires_grad_(False).to(device)
    lower(module.visual, model.precision)
    half = (0.5, 0.5, 0.5)
    return Clip(module, SimpleTokenizer(), device, "", half, half, precision=model.precision)


def random_network(network: Backbone, device: torch.device, *, quarter: bool = False) -> Any:
    """A network beside CLIP: its own where it lies in a folder, else one with random weights.

    quarter: of the blocks of such a SAM's encoder, whose largest takes minutes of a core.
    """
    if network.path is not None:
        return load_networks([network], device)[network.key]
    if network.kind == "sam":
        from transformers import SamConfig, SamModel, SamVisionConfig

        sizes = SAMS.get(network.name, SAMS["facebook/sam-vit-huge"])
        if not quarter:
            blocks = sizes["num_hidden_layers"]
            last = [blocks * number - 1 for number in range(1, QUARTERS + 1)]
            more = {"num_hidden_layers": QUARTERS * blocks, "global_attn_indexes": last}
            sizes = {**sizes, **more}
        vision = SamVisionConfig(**sizes, initializer_range=0.02).to_dict()
        sam = SamModel(SamConfig(vision_config=vision)).eval().requires_grad_(False).to(device)
        return Sam(sam, device, network.label, sam.config.vision_config.image_size)
    import timm

    vit = timm.create_model(network.name, num_classes=0).eval().requires_grad_(False).to(device)
    return Dino(vit, device, network.label, (0.5,) * 3, (0.5,) * 3)


class SamCosts:
    """What SAM adds to passes. It is timed once for all of them, of its encoder a quarter."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._encoders: dict[Key, tuple[Sam, float]] = {}  # with what they made of a picture kept
        self._regions: dict[tuple[Method, int], float] = {}

    def __call__(
        self, clip: Clip, methods: Iterable[Method], size: int, beside: Mapping[Key, Network]
    ) -> tuple[float, float]:
        """Seconds of an image for all these methods, which share embeddings, and of each alone,
        added up, as their operations are counted. beside: what they may be clustered by."""
        encoders, regions, alone = dict[tuple[Key, bool], float](), 0.0, 0.0
        for method in dict.fromkeys(methods):
            assert method.sam is not None
            sam, encoder = self._encoder(method.sam, size)
            if (method, size) not in self._regions:
                networks = {**beside, method.sam.key: sam}
                self._regions[method, size] = self._region_seconds(clip, networks, method, size)
            encoders[method.sam.key, method.sees_original] = encoder
            regions += self._regions[method, size]
            alone += encoder + self._regions[method, size]
        return sum(encoders.values()) + regions, alone

    def _encoder(self, network: Backbone, size: int) -> tuple[Sam, float]:
        if network.key not in self._encoders:
            sam, embedding = random_network(network, self._device, quarter=True), list[Tensor]()
            picture = frame(np.asarray(random_sample((size, size)).image), sam.side)[0]
            if self._device.type == "cuda":  # the first call waits for the libraries
                embed(sam, picture)
            seconds = _seconds(self._device, lambda: embedding.append(embed(sam, picture)))
            if network.path is None:  # a quarter of its blocks
                sam.model.vision_encoder.layers = torch.nn.ModuleList()
                rest = _seconds(self._device, lambda: embed(sam, picture))
                seconds = rest + QUARTERS * (seconds - rest)
            sam.model.get_image_embeddings = lambda _: embedding[0]
            self._encoders[network.key] = sam, seconds
        return self._encoders[network.key]

    def _region_seconds(
        self, clip: Clip, networks: Mapping[Key, Network], method: Method, size: int
    ) -> float:
        picture = random_sample(PHOTOGRAPH).image
        original = Original(picture, crop_box(picture.size, size))
        pixels = clip.normalise(crop_image(picture, size)[None])
        graph = Graph(clip, pixels, networks=networks, originals=[original])
        graph.clusters(method)
        return _seconds(self._device, lambda: graph.regions(method))


def random_sample(size: tuple[int, int], label: int = 0) -> Sample:
    """A smooth picture of this width and height, all of one raw label."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (COLOURS, COLOURS, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC), float)
    noisy = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    return Sample("random", Image.fromarray(noisy), np.full(size[::-1], label, np.int32))


def random_text(clip: Clip, run: Run) -> Text:
    """Features for the names of a run's vocabulary, each that of a patch of a picture, which CLIP
    alone sees."""
    names, owner = names_of(run)
    pixels = clip.normalise(np.asarray(random_sample((224, 224)).image)[None])
    attention = run.method.attention.model_copy(update={"within": None})  # it has no labels
    if ATTENTION[attention.kind].networks:
        attention = UNCHANGED
    method = run.method.model_copy(update={"attention": attention})
    patches = Graph(clip, pixels).patches(method)[0]
    same = torch.Generator().manual_seed(0)  # other owners of as many names share what runs share
    chosen = patches[torch.randint(len(patches), (len(names),), generator=same).to(clip.device)]
    return Text(chosen, torch.tensor(owner).to(clip.device), background_of(run))


def _without_regions(method: Method) -> Method:
    return method.model_copy(update={"regions": None})


def timing(
    runs: Mapping[str, Run], dataset: str, device: torch.device, encoded: set[str], sams: SamCosts
) -> dict[str, float]:
    """The `estimate.Timing` of a pass. encoded: words that an earlier pass has encoded; its own are
    added. sams: what SAM adds, which its methods are timed without."""
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
        networks = {each.key: each for run in runs.values() for each in run.method.networks}
        voteless = {name: _without_regions(run.method) for name, run in runs.items()}
        attended = {each.key for method in voteless.values() for each in method.networks}
        beside = {
            key: random_network(each, device)
            for key, each in networks.items()
            if each.kind != "sam" or key in attended
        }
        texts = {key: random_text(clip, run) for key, run in vocabularies.items()}
        jobs, prompted = dict[str, Job](), list[Method]()
        for name, run in runs.items():
            job = Job.of(run, words[name], texts[words[name]], beside)
            regions = run.method.regions
            if regions and regions.kind == "sam" and run.method.sam in run.method.networks:
                prompted.append(run.method)
                job = replace(job, method=voteless[name])
            jobs[name] = job
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
        windows = loader.protocol.units([loader(0).shown])
        sam, alone = sams(clip, prompted, first.image_size, beside)
    return {"image": image + windows * sam, "once": once + alone, "windows": windows}


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
        sams = SamCosts(device)
        for name, names in question["passes"].items():
            runs = {run: suite.runs[run] for run in names}
            passes[name] = timing(runs, suite.passes[name].dataset, device, encoded, sams)
    answer = {"device": device.type, "start": start, "memory": peak_memory(), "passes": passes}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
