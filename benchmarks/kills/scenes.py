"""What is killed within one process: each scene starts from a folder that `ready` makes, and `act`
does in it, as its working folder, what a job of the Snakefile does."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptrase.files import read_json, sealed

DATA, RESULTS, SUITE = Path("data"), Path("results"), "kills"
SHAPES = "shapes.shapes_clip.112.crop"  # a pass
DATASET, ARCHIVE = "voc2012", "VOCtrainval_11-May-2012.tar"
COCO = "coco"  # with an optional archive, which lists a part of it
SAVE_EVERY = 2  # images: as often as there is something to save


DATA_MODULES = (
    *("datasets", "httpx", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "scipy.io"),
    *("cliptrase.data.fetch.download", "cliptrase.data.make.prepare"),
    *(f"cliptrase.data.make.archives.{name}" for name in ("coco", "voc2012")),
)
MODULES = (
    *DATA_MODULES,
    *("torch._dynamo", "torch.utils.flop_counter", "sklearn.cluster", "scipy.optimize"),
    *("scipy.ndimage", "pandas", "jinja2", "matplotlib.pyplot"),
    *("cliptrase.evaluate.passes", "cliptrase.evaluate.planned"),
    *("cliptrase.evaluate.saved_maps", "cliptrase.pipeline.markers", "cliptrase.pipeline.start"),
    *("cliptrase.publish.tables.cells", "cliptrase.publish.tables.command"),
    *("cliptrase.publish.figures.command", "cliptrase.publish.figures.paper_figures"),
    *("cliptrase.publish.page.command", "cliptrase.publish.page.contents"),
    *("cliptrase.publish.page.predict_pictures", "cliptrase.publish.tracking"),
)


@dataclass(frozen=True)
class Scene:
    """Work of one process, and its share of a campaign's kills.

    What `act` and `ready` are given is the address of the server of archives.
    """

    name: str
    share: float
    act: Callable[[str], None]
    ready: Callable[[str], None] = lambda mirror: None


def a_pass(mirror: str, **options: Any) -> None:
    """One pass: its counts, run folders, label maps and pass file, and the text features."""
    from cliptrase.evaluate import passes, planned

    passes.SAVE_EVERY = SAVE_EVERY
    assert passes.run_pass.__kwdefaults__ is not None
    passes.run_pass.__kwdefaults__["save_every"] = SAVE_EVERY
    where = {"results": RESULTS, "data": DATA, "device": "cpu", "workers": 1}
    planned.make_pass(SUITE, SHAPES, **where, **options)


def shards(mirror: str) -> None:
    """The same pass in two shards, which are then added up."""
    from cliptrase.runs import finished
    from cliptrase.runs.shards import shards_of

    file = finished.pass_file(SUITE, SHAPES)
    if not file.is_file():
        for shard in shards_of(2):
            if not shard.file(file).is_file():
                a_pass(mirror, shard=f"{shard.number}/{shard.count}")
    a_pass(mirror, shards=2)


def prepared(mirror: str) -> None:
    """A dataset out of its archive, which is fetched."""
    _prepare(DATASET, mirror)


def listed(mirror: str) -> None:
    """A dataset of three archives, one of them optional: it lists a part of the images."""
    _prepare(COCO, mirror)


def fetched(mirror: str) -> None:
    """An archive of which a checksum is published."""
    from cliptrase.data.fetch import download

    download.main([ARCHIVE, "--data", str(DATA), "--mirror", mirror])


def published(mirror: str) -> None:
    """Tables and the page, from runs that are finished."""
    from cliptrase.publish.__main__ import main

    main(["tables", SUITE])
    main(["page", SUITE])


def pictured(mirror: str) -> None:
    """The pictures that the page shows, from runs that are finished."""
    from cliptrase.publish.page import predict_pictures

    predict_pictures.main([SUITE])


def charted(mirror: str) -> None:
    """Figures, small and of one picture, from runs that are finished: every chart, label maps, the
    correlation, and one of the paper's, as all of these are written alike."""
    from cliptrase.publish.figures import command, paper_figures, pictures, style

    figure = paper_figures.FIGURES["fig4_scr_attention"]
    paper_figures.FIGURES.clear()
    paper_figures.FIGURES["fig4_scr_attention"] = figure
    pictures.PICTURED = pictures.ROWS = pictures.RANKED = pictures.MOST = 1
    assert pictures._draw_label_maps.__defaults__ is not None
    pictures._draw_label_maps.__defaults__ = (*pictures._draw_label_maps.__defaults__[:1], 1)
    style.PNG_DPI = 20
    style.SETTINGS["svg.fonttype"] = "none"
    command.main([SUITE])


def told(mirror: str) -> None:
    """What W&B was told, and the ledger of it; a folder with a file stands for W&B's."""
    from cliptrase.publish import tracking

    def send(item: Any, suite: str, folder: Path, _: object) -> dict[str, str]:
        run = folder / f"offline-run-20000101_000000-{item.sha256[:16]}"
        run.mkdir(parents=True, exist_ok=True)
        (run / "run.wandb").write_text(item.name)
        return {"sha256": item.sha256, "id": item.sha256[:16], "folder": run.name}

    tracking._send = send
    tracking.main([SUITE])


def started(mirror: str) -> None:
    """A start of Snakemake, as far as it is the project's: the folder taken, markers written."""
    from cliptrase import plan
    from cliptrase.pipeline import markers, stale_passes, start

    start.take_folder()
    planned = plan.load(SUITE)
    stale = stale_passes(planned)
    for name in planned.passes:
        markers.evaluation(SUITE, name, stale)
    for step in (markers.tables, markers.figures, markers.page, markers.wandb):
        step(SUITE)
    markers.publishing()


def older(key: str) -> Callable[[str], None]:
    """Make the pass, then let its provenance name another digest under `key`."""

    def ready(mirror: str) -> None:
        drawn(mirror)
        a_pass(mirror)
        for file in RESULTS.glob("runs/*/provenance.json"):
            file.write_text(json.dumps(sealed((read_json(file) or {}) | {key: "older"})))

    return ready


def drawn(mirror: str) -> None:
    """Prepare the embedded scenes that a pass sees."""
    from cliptrase.data.make.prepare import main

    main(["shapes", "--data", str(DATA), "--threads", "1"])


def made(mirror: str) -> None:
    """Make the pass."""
    drawn(mirror)
    a_pass(mirror)


def left(mirror: str) -> None:
    """Make the pass, and leave the lock of a start that is gone."""
    made(mirror)
    locks = Path(".snakemake/locks")
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("a file\n")


def _prepare(dataset: str, mirror: str) -> None:
    from cliptrase.data.make.prepare import main

    main([dataset, "--data", str(DATA), "--mirror", mirror, "--threads", "1"])


SCENES = {
    scene.name: scene
    for scene in (
        Scene("download", 0.10, fetched),
        Scene("preparation", 0.14, prepared),
        Scene("preparation with a list", 0.20, listed),
        Scene("start", 0.13, started, left),
        Scene("ledger", 0.12, told, made),
        Scene("pass", 0.10, a_pass, drawn),
        Scene("pass in shards", 0.06, shards, drawn),
        Scene("pass of other code", 0.05, a_pass, older("code")),
        Scene("scores of other code", 0.06, a_pass, older("scoring")),
        Scene("tables and page", 0.03, published, made),
        Scene("pictures of the page", 0.01, pictured, made),
        Scene("figures", 0.01, charted, made),
    )
}


def warm(modules: Sequence[str] = MODULES) -> None:
    """Import what the scenes need, once for all the processes that are forked from this one."""
    if modules == MODULES:
        import cliptrase.model.lean  # noqa: F401  # first: the others import open_clip
        from cliptrase import plan
        from cliptrase.runs import code

        code.prediction_digest(), code.scoring_digest(), plan.load(SUITE)
    for name in modules:
        importlib.import_module(name)
