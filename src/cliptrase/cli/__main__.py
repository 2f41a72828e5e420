"""`python -m cliptrase.cli`: the console script where none is installed."""

from cliptrase.cli import main

main()
