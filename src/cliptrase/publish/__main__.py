"""`python -m cliptrase.publish {tables,figures,pictures,page,wandb} SUITE`: a step's module."""

import sys
from collections.abc import Sequence
from importlib import import_module

STEPS = {
    "tables": "tables.command",
    "figures": "figures.command",
    "pictures": "page.predict_pictures",
    "page": "page.command",
    "wandb": "tracking",
}  # step → module


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step. Exit code 2 for a step that does not exist."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in STEPS:
        sys.stderr.write(f"error: write python -m cliptrase.publish {{{','.join(STEPS)}}} SUITE\n")
        raise SystemExit(2)
    step = import_module(f"cliptrase.publish.{STEPS[words[0]]}")  # tables: no matplotlib, no W&B
    step.main(words[1:])


if __name__ == "__main__":
    main()
