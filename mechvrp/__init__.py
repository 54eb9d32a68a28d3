"""mechvrp: mechanistic interpretability of vision-language models.

One vocabulary of sites and interventions for every family, on nnsight traces; on top of it the VLM
Reliability Probe study. Names load on first use, so importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mechvrp._version import __version__ as __version__

if TYPE_CHECKING:
    from mechvrp import circuits as circuits
    from mechvrp import data as data
    from mechvrp import errors as errors
    from mechvrp import explorer as explorer
    from mechvrp import models as models
    from mechvrp import patching as patching
    from mechvrp import plots as plots
    from mechvrp import reliability as reliability
    from mechvrp import statistics as statistics
    from mechvrp import tracing as tracing
    from mechvrp.circuits import Ranking as Ranking
    from mechvrp.circuits import ablation_curve as ablation_curve
    from mechvrp.circuits import rank_units as rank_units
    from mechvrp.data import Dataset as Dataset
    from mechvrp.data import Sample as Sample
    from mechvrp.explorer import explore as explore
    from mechvrp.models import VLM as VLM
    from mechvrp.models import Batch as Batch
    from mechvrp.models import load as load
    from mechvrp.patching import knockout as knockout
    from mechvrp.patching import mean as mean
    from mechvrp.patching import noise as noise
    from mechvrp.patching import plan as plan
    from mechvrp.patching import replace as replace
    from mechvrp.patching import resample as resample
    from mechvrp.patching import scale as scale
    from mechvrp.patching import steer as steer
    from mechvrp.patching import sweep as sweep
    from mechvrp.patching import zero as zero
    from mechvrp.reliability import Monitor as Monitor
    from mechvrp.study import compare_runs as compare_runs
    from mechvrp.study import run_study as run_study
    from mechvrp.tracing import Activations as Activations
    from mechvrp.tracing import Site as Site
    from mechvrp.tracing import cache as cache
    from mechvrp.tracing import cache_to_zarr as cache_to_zarr
    from mechvrp.tracing import open_cache as open_cache
    from mechvrp.tracing import trace as trace

_MODULES = (
    "circuits",
    "data",
    "errors",
    "explorer",
    "models",
    "patching",
    "plots",
    "reliability",
    "statistics",
    "study",
    "tracing",
)
_NAMES = {
    "Activations": "tracing",
    "Batch": "models",
    "Dataset": "data",
    "Monitor": "reliability",
    "Ranking": "circuits",
    "Sample": "data",
    "Site": "tracing",
    "VLM": "models",
    "ablation_curve": "circuits",
    "cache": "tracing",
    "cache_to_zarr": "tracing",
    "compare_runs": "study",
    "explore": "explorer",
    "knockout": "patching",
    "load": "models",
    "mean": "patching",
    "open_cache": "tracing",
    "noise": "patching",
    "plan": "patching",
    "rank_units": "circuits",
    "replace": "patching",
    "resample": "patching",
    "run_study": "study",
    "scale": "patching",
    "steer": "patching",
    "sweep": "patching",
    "trace": "tracing",
    "zero": "patching",
}

__all__ = sorted([*_MODULES, *_NAMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mechvrp.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"mechvrp.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mechvrp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
