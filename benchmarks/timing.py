"""Timing of functions and of commands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["interleaved", "python_seconds"]


def interleaved(
    functions: dict[str, Callable[[], Any]], repeats: int, *, small: bool = False
) -> dict[str, float]:
    """Median seconds of each function. They take turns, so that a busy machine slows all alike.

    Args:
        functions: by name.
        repeats: of each.
        small: for calls of milliseconds, whose differences are looked at. Of two calls in a row the second
            is timed, whose weights are in the processor's cache wherever the turn before left it; and
            the first decile is given, since other processes only ever make a call longer.
    """
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            if small:
                function()
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    at = 0.1 if small else 0.5
    return {name: float(np.quantile(values, at)) for name, values in times.items()}


def python_seconds(arguments: list[str], repeats: int = 5) -> float:
    """Median wall time of a fresh Python process."""

    def run() -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return interleaved({"": run}, repeats)[""]
