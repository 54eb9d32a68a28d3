"""Shared settings: no network, quiet logs, one thread a worker, few but varied examples."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from hypothesis import settings

settings.register_profile("suite", max_examples=25, deadline=None)
settings.load_profile("suite")
torch.set_num_threads(1)  # the models are tiny, and tests run in parallel
