"""Tracing: sites, traces, and cached activations."""

from mechvrp.tracing.activations import Activations as Activations
from mechvrp.tracing.caching import cache as cache
from mechvrp.tracing.convert import from_transformer_lens as from_transformer_lens
from mechvrp.tracing.sites import COMPONENTS as COMPONENTS
from mechvrp.tracing.sites import IMAGE_KEYS as IMAGE_KEYS
from mechvrp.tracing.sites import Component as Component
from mechvrp.tracing.sites import Site as Site
from mechvrp.tracing.streaming import cache_to_zarr as cache_to_zarr
from mechvrp.tracing.streaming import open_cache as open_cache
from mechvrp.tracing.tracer import Edit as Edit
from mechvrp.tracing.tracer import Trace as Trace
from mechvrp.tracing.tracer import trace as trace

__all__ = [
    "COMPONENTS",
    "IMAGE_KEYS",
    "Activations",
    "Component",
    "Edit",
    "Site",
    "Trace",
    "cache",
    "cache_to_zarr",
    "from_transformer_lens",
    "open_cache",
    "trace",
]
