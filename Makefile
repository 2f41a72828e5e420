# Everything runs from .venv, whose programs need not be on your PATH. `make` alone lists the targets.
#
# The venv takes about 6 GB: PyPI's torch for Linux x86-64 is the CUDA build, which imports the CUDA
# libraries even without a GPU. PyPI has no smaller build.

PYTHON ?= python3
CORES  ?= 8

BIN  := $(CURDIR)/.venv/bin
PY   := $(BIN)/python
DONE := .venv/setup.done
# snakefmt calls shfmt by name, and mypy and others call programs that pip put beside them.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo fig8 miniature test cluster bench gpu check train-shapes-clip train-shapes-sam train-shapes-dino

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 28

setup: $(DONE)  ## make .venv with the locked versions (about 6 GB, a few minutes)

$(DONE): requirements.lock pyproject.toml hatch_build.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cliptrase needs Python 3.11 or newer; give one: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup  ## the embedded benchmark, end to end: data, passes, tables, figures, W&B offline
	$(PY) -m snakemake --cores $(CORES) all

fig8: setup  ## Figure 8: SAN trained on embedded scenes, its queries begun in three ways (half an hour on two cores; resumes)
	$(PY) -m snakemake --cores $(CORES) fig8

miniature: setup  ## the paper's suite on small archives of its sources, served on 127.0.0.1 (minutes)
	OMP_NUM_THREADS=1 $(PY) -m tests.miniature --cores $(CORES)

test: setup  ## the tests, two files at a time
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile -m "not cluster"

cluster: setup  ## a suite and a sweep on a SLURM of this machine: needs slurm-wlm and munge (minutes)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-cluster.lock
	OMP_NUM_THREADS=1 $(PY) -m pytest -m cluster tests/workflow/test_slurm.py tests/unit/evaluate/test_launched.py

bench: setup  ## time an image, the class names, the tables and the peers, and how they grow; nothing else should run (25 minutes)
	$(PY) -m benchmarks

gpu: setup  ## what only a GPU can show: exactness, speed, memory, locks; needs one, no network (8 minutes)
	$(PY) -m benchmarks.gpu

check: setup  ## lint, types, formats, dry runs
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m benchmarks.literature --check
	$(PY) -m snakefmt --check Snakefile workflow
	$(PY) -m snakemake --lint
	$(PY) -m snakemake all --cores $(CORES) --dry-run --quiet rules
	$(PY) -m snakemake all --cores $(CORES) --dry-run --quiet rules --config suite=smoke
	$(PY) -m snakemake all --cores $(CORES) --dry-run --quiet rules --config suite=paper

train-shapes-clip: setup  ## train the embedded CLIP again from its captions (about three hours of one core; resumes)
	$(PY) -m cliptrase.shapes.train

train-shapes-sam: setup  ## train the embedded SAM again from masks of its scenes (about 40 minutes on one core; resumes)
	$(PY) -m cliptrase.shapes.train_sam

train-shapes-dino: setup  ## train the embedded DINO again from pictures alone (10 to 20 minutes on one core; resumes)
	$(PY) -m cliptrase.shapes.train_dino
	$(PY) -m benchmarks.card_dino
