"""How long a click in the explorer takes, from the message to everything that is then shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import mechvrp
from benchmarks.table import Row
from mechvrp.explorer import Explorer
from mechvrp.explorer.panel import Panel

__all__ = ["rows"]

MODELS = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")

#: Milliseconds that a click may take.
MOST = 200.0


def rows(models: Sequence[str] = MODELS, clicks: int = 30) -> list[Row]:
    """Median and worst click of each kind, and its processor time, which a busy machine hardly moves.

    Each is one that was not made before: nothing of it is kept.
    """
    found = []
    for name in models:
        times = _clicks(mechvrp.load(name), clicks)
        for what, taken in times.items():
            clock, processor = np.array(taken).T
            for kind, value, most in (
                ("median", np.median(clock), MOST),
                ("worst", np.max(clock), MOST),
                ("median of processor time", np.median(processor), None),
            ):
                found.append(
                    Row(
                        f"{what}, {kind}",
                        float(value),
                        "ms",
                        most=most,
                        column=name,
                        detail=f"of {clicks}; to what is shown, as JSON, without the browser's drawing",
                    )
                )
    return found


def _clicks(model: mechvrp.VLM, clicks: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of the clock and of the processor (all threads), by kind."""
    shown: list[str] = []
    session = Explorer(model, mechvrp.data.load("scenes", limit=2 * clicks + 2))
    panel = Panel(session, lambda name, value: shown.append(json.dumps([name, value])))
    panel.start()
    panel.wait()

    def timed(message: dict[str, Any]) -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        panel.handle(message)
        panel.wait()
        taken = 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - used)
        name, status = json.loads(shown[-1])
        assert name == "status"
        assert not status["error"], status["error"]
        return taken

    place = {"component": "mlp_out", "layer": 1}
    session.choose(0)
    grid = session.grid
    assert grid is not None
    patches = [[i // grid[1], i % grid[1]] for i in range(clicks)]
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "choosing another example": lambda i: {"do": "choose", "index": i + 1},
        "clicking an image patch": lambda i: {"do": "look", **place, "positions": [patches[i]]},
        "ablating it": lambda i: {"do": "ablate"},
        "patching it from another example": lambda i: {"do": "patch", "donor": clicks + 1 + i},
        "adding to the circuit": lambda i: {
            "do": "add",
            "nodes": [f"blocks.2.mlp.hook_post[unit {i}]@last"],
        },
    }
    found = {what: [timed(make(i)) for i in range(clicks)] for what, make in kinds.items()}
    panel.close()
    return found
