"""The work that is killed: a small suite over drawn scenes and over the miniature of an archive
that a server on 127.0.0.1 gives. It has every kind of step and file. Its numbers mean nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from cliptrase.config.files import OWN

ROOT = Path(__file__).resolve().parents[2]
NAME, IMAGES, MAPS = "kills", 6, 1
SIZE = 112  # pixels: a quarter of the patches of 224
ARCHIVE = "VOCtrainval_11-May-2012.tar"
SUITE = {
    "title": "Kills",
    "model": "shapes_clip",
    "protocol": "crop",
    "published": False,
    "roles": {"main": ["shapes_bg", "voc20"], "unsupervised": ["shapes"]},
    "tables": ["kills_named", "kills_unnamed"],
    "pictures": "kills_named",
    "overrides": [f"limit={IMAGES}", f"save_maps={MAPS}", "benchmark.templates=shapes"],
}
COMMON = {"kind": "metrics", "metrics": ["mIoU"], "image_size": SIZE}
TABLES = {
    "kills_named": {
        "title": "Named",
        **COMMON,
        "role": "main",
        "average": True,
        "figure": True,
        "groups": [
            {
                "name": "training-free",
                "rows": [
                    {"row": "CLIP", "run": ["method=clip"]},
                    {"row": "CLIPtrase", "run": ["method=cliptrase"]},
                ],
            }
        ],
    },
    "kills_unnamed": {
        "title": "Unnamed",
        **COMMON,
        "role": "unsupervised",
        "groups": [
            {
                "name": "without names",
                "rows": [
                    {
                        "row": "k-means",
                        "run": [
                            "method=cliptrase_unsupervised",
                            "method.regions.eps=0.5",
                            "method.regions.min_samples=1",
                        ],
                    }
                ],
            }
        ],
    },
}


def write(folder: Path) -> None:
    """Write the suite's files and the archives that it needs below `folder`."""
    from tests.miniature import write as miniature

    for group, files in (("suite", {NAME: SUITE}), ("table", TABLES)):
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            text = yaml.safe_dump(content, sort_keys=False)
            (folder / "conf" / group / f"{name}.yaml").write_text(text, encoding="utf-8")
    miniature.write(folder / "archives", miniature.miniatures(IMAGES))


def new(folder: Path, place: Path) -> None:
    """A working folder, in which nothing is made, but for the list of the miniatures' sources."""
    for data in ("data", "data/miniature"):  # of the suites here, and of the suite `miniature`
        (folder / data).mkdir(parents=True, exist_ok=True)
        (folder / data / "sources.yaml").write_bytes((place / "archives/sources.yaml").read_bytes())


@contextlib.contextmanager
def served(place: Path) -> Iterator[str]:
    """The address of a server of the archives, which ends with the block."""
    ready = place / "port"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.miniature.server", str(place / "archives")]
    with subprocess.Popen([*command, "--port-file", str(ready)], cwd=ROOT) as server:
        try:
            while not ready.is_file() and server.poll() is None:
                time.sleep(0.05)
            yield f"http://127.0.0.1:{ready.read_text().strip()}"
        finally:
            server.terminate()


def environment(place: Path) -> dict[str, str]:
    """The variables of every start: this code, the suite's files, one thread, no network."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        OWN: str(place / "conf"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }
