"""A campaign of kills: `python -m benchmarks.kills` ends work by SIGKILL, starts it again, and
compares every byte that is kept with that of undisturbed work. docs/reliability.md has its figures.
"""
