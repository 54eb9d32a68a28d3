"""Counts, levels and seeds that no method can use are refused by all of them, in the same words."""

import numpy as np
import pytest

from mechvrp.errors import InputError
from mechvrp.statistics import (
    delong_interval,
    drawn_accuracy_change,
    fisher_z_interval,
    group_means,
    joint_equality,
    paired_accuracy_change,
    pooled_estimate,
    rank_difference_test,
    stratified_auroc,
)

RNG = np.random.default_rng(0)
N = 48
LABELS = np.arange(N) % 2
SIGNAL = LABELS + RNG.normal(size=N)
STRATA = np.arange(N) // 2 % 2

CALLS = {
    "means": lambda **s: group_means(SIGNAL, None, **s),
    "paired": lambda **s: paired_accuracy_change(LABELS, 1 - LABELS, None, **s),
    "drawn": lambda **s: drawn_accuracy_change(LABELS, [1 - LABELS], [LABELS], None, **s),
    "ranks": lambda **s: rank_difference_test(SIGNAL, LABELS, None, **s),
    "joint": lambda **s: joint_equality(SIGNAL, LABELS, STRATA, None, **s),
    "fisher": lambda **s: fisher_z_interval(SIGNAL, LABELS, **s),
    "delong": lambda **s: delong_interval(SIGNAL, LABELS, None, **s),
}
OF = {
    "n_resamples": ("means", "paired", "joint"),
    "n_permutations": ("paired", "drawn", "ranks"),
    "seed": ("means", "paired", "drawn", "ranks", "joint"),
    "level": ("means", "paired", "fisher", "delong"),
}


@pytest.mark.parametrize("setting", OF)
@pytest.mark.parametrize("bad", [-1, float("nan"), "x", None, 1.5, True], ids=repr)
def test_settings_are_refused(setting, bad):
    for name in OF[setting]:
        with pytest.raises(InputError, match=setting):
            CALLS[name](**{setting: bad})


def test_what_is_no_estimate_or_no_model():
    with pytest.raises(InputError, match="'b' is None"):
        pooled_estimate({"a": group_estimate(), "b": None}, scale="linear")
    with pytest.raises(InputError, match="needs the model of each row"):
        stratified_auroc(SIGNAL, LABELS, None, None)


def group_estimate():
    return paired_accuracy_change(LABELS, 1 - LABELS, None, n_permutations=9).change
