"""Shared settings: no network, quiet logs, one thread a worker, few but varied examples."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# The models are tiny, and tests run in parallel: threads would wait for each other, and be paid for. Read by
# the libraries when they load, and by every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings
from hypothesis.internal.conjecture import junkdrawer

# Hypothesis times the garbage collector by a callback in Python. When the collector ran in the middle of
# nnsight's `sys.settrace`, with which every trace begins, CPython 3.11 was once seen to stay in it for ever.
junkdrawer._gc_initialized = True

settings.register_profile("suite", max_examples=25, deadline=None)
settings.load_profile("suite")
torch.set_num_threads(1)

pytest_plugins = ["tests.support.s3"]


def pytest_collection_finish():
    """What is imported stays: looked through at every turn, it takes a twentieth of the time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Notebooks first: each takes long, and at the end one worker would run them while others wait."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
