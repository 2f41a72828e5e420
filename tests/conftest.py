"""What every test stands on: no network, no account, one thread, the CPU."""

from __future__ import annotations

import os

# Before any test imports torch, datasets or wandb: they read these once.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # CUDA_VISIBLE_DEVICES=0: with the GPU's tests
os.environ.update(
    HF_DATASETS_OFFLINE="1",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
)
