"""What the commands of an experiment are asked: which one, and where its data is."""

import argparse
from pathlib import Path


def parser(about: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """The parser of a module's command, whose docstring begins with what it does. data: whether it
    reads the data folder."""
    made = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    made.add_argument("experiment", help="a file of conf/san")
    if data:
        made.add_argument("--data", type=Path, default=Path("data"))
    return made
