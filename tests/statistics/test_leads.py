"""One signal's lead over another."""

import numpy as np
import pytest

import mechvrp.statistics as ms
from mechvrp.errors import InputError, NumericalError


def signals(rng, n_images=60, size=4):
    groups = np.repeat(np.arange(n_images), size)
    labels = rng.random(n_images * size) < 0.7
    common = rng.normal(size=n_images)[groups]
    first = np.round(labels + common + rng.normal(size=len(groups)), 1)
    second = np.round(0.5 * labels + common + rng.normal(size=len(groups)), 1)
    return first, second, labels, groups


def test_the_lead_is_the_difference_on_the_same_resamples():
    first, second, labels, groups = signals(np.random.default_rng(0))
    found = ms.auroc_lead(first, second, labels, groups, n_resamples=200, seed=3)
    slow = ms.group_bootstrap(
        lambda x, y, right: ms.auroc(x, right) - ms.auroc(y, right),
        first,
        second,
        labels,
        groups=groups,
        n_resamples=200,
        seed=3,
    )
    assert (found.low, found.value, found.high) == pytest.approx((slow.low, slow.value, slow.high))
    assert found.value > 0


def test_the_lead_within_tasks():
    first, second, labels, groups = signals(np.random.default_rng(1))
    tasks = np.tile(["count", "colour"], len(labels) // 2)
    found = ms.auroc_lead(first, second, labels, groups, tasks)
    expected = ms.within_task_auroc(first, labels, tasks) - ms.within_task_auroc(
        second, labels, tasks
    )
    assert found.value == pytest.approx(expected)
    with pytest.raises(InputError, match="no task has both"):
        ms.auroc_lead(first, second, labels, groups, labels)


def test_a_signal_has_no_lead_over_itself():
    first, _, labels, groups = signals(np.random.default_rng(2))
    found = ms.auroc_lead(first, 3 * first + 1, labels, groups)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_unusable_data():
    with pytest.raises(InputError, match="both classes"):
        ms.auroc_lead([1, 2], [2, 1], [1, 1], None)
    with pytest.raises(InputError, match="shape"):
        ms.auroc_lead([1, 2], [2, 1, 3], [1, 0], None)
    with pytest.raises(NumericalError):
        ms.auroc_lead([1, 2, np.nan], [2, 1, 3], [1, 0, 1], None)
