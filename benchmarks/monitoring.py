"""What the monitor costs beyond plain ``generate``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import mechvrp
from benchmarks import models
from benchmarks.table import Row
from mechvrp.circuits.logistic import FittedProbe
from mechvrp.reliability import Monitor, PlattScaling, RiskThreshold
from mechvrp.reliability.monitor_fitting import Part, Parts
from mechvrp.reliability.monitor_reading import DEFAULT_SIGNALS
from mechvrp.reliability.monitor_run import identify
from mechvrp.reliability.monitor_scores import Scorer

__all__ = ["rows"]


def rows(shape: models.Shape, *, repeats: int = 40, steps: int = 4) -> list[Row]:
    """Time of ``monitor.answer`` beyond ``model.generate`` of the same question; the median of pairs.

    Both begin with the picture and the words. The monitor has the default signals and random weights, which
    take as long as fitted ones.
    """
    model = models.answering(shape)
    monitor = _monitor(model, steps)
    warm, *asked = models.samples(shape, 5, 3)

    def plain(sample: mechvrp.Sample) -> str:
        return model.generate(model.encode(sample), max_new_tokens=steps)[0]

    def watched(sample: mechvrp.Sample) -> str:
        return monitor.answer(model, sample.image, sample.question).answer

    for sample in (warm, *asked):
        if plain(sample) != watched(sample):
            raise AssertionError("the monitor and generate give other answers")
    ratios, seconds = [], []
    for i in range(repeats):
        sample = asked[i % len(asked)]
        # Each is first in every other pair: whoever is second finds the caches warm.
        order = (plain, watched) if i % 2 else (watched, plain)
        found = {function.__name__: _timed(function, sample) for function in order}
        ratios.append(found["watched"] / found["plain"])
        seconds.append(found["plain"])
    low, middle, high = 100 * (np.quantile(ratios, [0.25, 0.5, 0.75]) - 1)
    return [
        Row(
            "a monitored answer, beyond plain generate",
            float(middle),
            "%",
            most=2.0,
            detail=f"{shape.name}-shaped, {shape.image_tokens} image tokens, answers of {steps} tokens, batch "
            f"1; median of {repeats} pairs, quartiles {low:.2g} % and {high:.2g} %; generate takes "
            f"{np.median(seconds):.3g} s; reads {', '.join(monitor.signals)}",
        )
    ]


def _timed(function: Callable[[mechvrp.Sample], Any], sample: mechvrp.Sample) -> float:
    start = time.perf_counter()
    function(sample)
    return time.perf_counter() - start


def _monitor(model: mechvrp.VLM, steps: int) -> Monitor:
    rng = np.random.default_rng(0)

    def weights(size: int) -> FittedProbe:
        return FittedProbe(np.zeros(size), np.ones(size), 0.01 * rng.normal(size=size), 0.0, 1.0)

    return Monitor(
        model=identify(model),
        data="random",
        tasks=("vqa",),
        max_new_tokens=steps,
        target="correct",
        layer=model.n_layers // 2,
        scorer=Scorer(DEFAULT_SIGNALS, weights(model.d_model), weights(len(DEFAULT_SIGNALS))),
        recalibration=PlattScaling(1.0, 0.0),
        threshold=RiskThreshold(0.5, None, 0.05, 0.05, 200, 100, 1, pd.DataFrame()),
        parts=Parts(Part(("a",), 1), Part(("b",), 1), Part(("c",), 1)),
        layers=(),
        evaluation=(),
        seed=0,
    )
