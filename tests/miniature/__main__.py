"""The paper's suite on miniatures, whole: `python -m tests.miniature` (make miniature).

Writes the archives, serves them on 127.0.0.1, and runs Snakemake from the repository's root. What
was made before stays. The exit code is Snakemake's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from . import write
from .server import Server

SAMPLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "samples"
ARCHIVES, DATA = Path("data/miniature/archives"), Path("data/miniature")


def main() -> int:
    """The command line; words with a = go to Snakemake's --config."""
    parser = argparse.ArgumentParser(prog="python -m tests.miniature", description=__doc__)
    parser.add_argument(
        "--samples", type=Path, default=SAMPLES, help="folder of real photographs and masks"
    )
    parser.add_argument("--scenes", type=int, default=3, help="drawn pictures of a source")
    parser.add_argument("--photographs", type=int, default=2, help="real ones, at most")
    parser.add_argument("--cores", default="8")
    parser.add_argument("config", nargs="*", metavar="KEY=VALUE", help="for Snakemake")
    options = parser.parse_args()
    found = options.samples if options.samples.is_dir() else None
    write.write(ARCHIVES, write.miniatures(options.scenes, found, options.photographs))
    write.place(ARCHIVES, DATA)
    with Server(ARCHIVES) as server:
        command = [sys.executable, "-m", "snakemake", "--cores", options.cores, "all"]
        pairs = ["suite=miniature", f"mirror={server.url}", *options.config]
        return subprocess.run([*command, "--config", *pairs]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
