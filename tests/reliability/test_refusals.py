"""What the functions of reliability refuse before they compute: the mistakes that look like values."""

import numpy as np
import pandas as pd
import pytest

from mechvrp.errors import InputError, ShapeError
from mechvrp.reliability import (
    attention_sharpness,
    decompose_brier,
    expected_calibration_error,
    expected_majority_share,
    fewest_answers,
    find_signals,
    fuse,
    greedy_answers,
    lens_logits,
    logit_margins,
    measure_selective_risk,
    observe,
    observe_batches,
    spatial_entropy,
    threshold_grid,
)
from mechvrp.reliability.sampling import Sampling

CONFIDENCE, CORRECT = [0.2, 0.9, 0.7, 0.4], [0, 1, 1, 0]
TABLE = pd.DataFrame({"a": np.arange(8.0)})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: expected_calibration_error(["high"] * 4, CORRECT), "confidence must be numbers"),
        (lambda: decompose_brier(CONFIDENCE, ["yes"] * 4), "correct must be numbers"),
        (lambda: expected_calibration_error(CONFIDENCE, CORRECT, bins="x"), "bins must be a whole"),
        (lambda: expected_calibration_error(CONFIDENCE, CORRECT, bins=1.5), "bins must be a whole"),
        (lambda: expected_majority_share([0.5, 0.5], None), "k must be a whole number"),
        (lambda: expected_majority_share([0.5, 0.5], 10**6), "at most 2,000, since memory grows"),
        (lambda: fewest_answers("0.05", 0.1), r"risk and delta in \(0, 1\), got '0.05'"),
        (lambda: threshold_grid(["a", "b"], 500), "reference scores must be numbers"),
        (lambda: threshold_grid([0.1, 0.2], float("nan")), "n must be a whole number"),
        (lambda: measure_selective_risk(CONFIDENCE, CORRECT, coverages="all"), "coverages must be"),
        (lambda: measure_selective_risk(CONFIDENCE, CORRECT, coverages=None), "coverages are shares"),
        (lambda: attention_sharpness(["x"], 9), "entropy must be numbers"),
        (lambda: find_signals(["a"], extra=["a"]), r"extra takes Signal\(...\) objects; got 'a'"),
        (lambda: fuse(None, CORRECT, None, [0], [1]), "expected a table of signals"),
        (lambda: fuse(TABLE, CORRECT, None, [0], [1], seed=-1), "seed must be a whole number"),
        (lambda: Sampling(k="10"), "k must be a whole number of at least 0, got '10'"),
        (lambda: Sampling(temperature=None), "temperature must be a number above 0; got None"),
        (lambda: Sampling(temperature=float("inf")), "temperature must be a number above 0"),
        (lambda: Sampling(top_p="0.9"), "top_p must be above 0"),
        (lambda: Sampling(seed=1.5), "seed must be a whole number"),
    ],
    ids=range(20),
)  # fmt: skip
def test_values_that_are_none(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    "run",
    [
        lambda m: observe(m, []),
        lambda m: observe_batches(m, []),
        lambda m: greedy_answers(m, []),
        lambda m: logit_margins(m, []),
        lambda m: lens_logits(m, np.zeros((1, 2, 3)), np.zeros((2, 1))),
    ],
    ids=["observe", "observe_batches", "greedy_answers", "logit_margins", "lens_logits"],
)
def test_a_name_is_no_model(run):
    with pytest.raises(InputError, match=r"a model from mechvrp.load\(...\); got 'tiny-llava'"):
        run("tiny-llava")


def test_an_empty_map_has_no_entropy():
    with pytest.raises(ShapeError, match=r"\[row, col\]"):
        spatial_entropy(np.zeros((0, 3)))
