"""Explorers over a few scenes, and a way to run the code that they print."""

from __future__ import annotations

import itertools
import runpy

import pytest

import mechvrp
from mechvrp.explorer import Explorer

NAMES = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")
_models: dict[str, mechvrp.VLM] = {}


@pytest.fixture(scope="session")
def scenes():
    return mechvrp.data.load("scenes", limit=48)


def model_of(name: str) -> mechvrp.VLM:
    if name not in _models:
        _models[name] = mechvrp.load(name)
    return _models[name]


@pytest.fixture
def explorer(scenes):
    return Explorer(model_of("tiny-llava"), scenes, reference=12)


@pytest.fixture(params=NAMES)
def any_explorer(request, scenes):
    return Explorer(model_of(request.param), scenes, reference=12)


@pytest.fixture
def run_code(tmp_path, scenes):
    """Runs printed code as a file of its own (a trace reads its own source), with model and dataset."""
    count = itertools.count()

    def run(model, code, **more):
        path = tmp_path / f"printed_{next(count)}.py"
        path.write_text(code, encoding="utf-8")
        return runpy.run_path(str(path), init_globals={"model": model, "dataset": scenes, **more})

    return run
