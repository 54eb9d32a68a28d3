"""Running totals in order of a score, against counting by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.statistics.descending import descending, running_totals


def test_equal_values_are_one_run():
    order, starts = descending(np.array([1.0, 3.0, 1.0, 2.0]))
    assert order.tolist() == [1, 3, 0, 2]
    assert starts.tolist() == [0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), min_size=1))
def test_totals_are_those_of_all_rows_at_least_as_high(rows):
    values, chosen, weights = (np.array(column) for column in zip(*rows, strict=True))
    order, starts = descending(values.astype(float))
    found = running_totals(chosen, weights[None].astype(float), order, starts)
    wanted = [weights[(values >= v) & chosen].sum() for v in sorted(set(values))[::-1]]
    assert found.tolist() == [wanted]
