"""Numbers given to the statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from mechvrp import statistics
from mechvrp.errors import InputError, MechVRPError, NumericalError
from tests.bad_input.rows import Bad, bad

__all__ = ["ROWS"]

SCORES, LABELS = np.array([0.1, 0.4, 0.35, 0.8, 0.2, 0.9]), np.array([0, 0, 1, 1, 0, 1])
GROUPS = np.array(list("aabbcc"))

GIVEN: tuple[tuple[str, Any, str, type[MechVRPError]], ...] = (
    ("a text", "abc", "scores must be numbers", InputError),
    ("letters", np.array(list("abcdef")), "scores must be numbers", InputError),
    ("complex numbers", np.array([1j] * 6), "scores must be numbers", InputError),
    ("objects", [object()] * 6, "scores must be numbers", InputError),
    ("lists of two lengths", [[1], [1, 2]], "scores must be numbers", InputError),
    ("a number beyond numbers", [10**400] * 6, "scores must be numbers", InputError),
    ("NaN", np.full(6, np.nan), "are NaN or infinite", NumericalError),
    ("infinity", np.full(6, np.inf), "are NaN or infinite", NumericalError),
    ("a table", np.zeros((6, 2)), "expected [n] both", InputError),
    ("one number", [1], "expected [n] both", InputError),
)


def interval(**options: Any) -> Any:
    return lambda place: statistics.auroc_interval(SCORES, LABELS, GROUPS, **options)


ROWS: list[Bad] = [
    *(
        bad(f"scores that are {what}", lambda p, g=given: statistics.auroc(g, LABELS), says, error)
        for what, given, says, error in GIVEN
    ),
    *(
        bad(f"labels that are {what}", lambda p, g=given: statistics.auroc(SCORES, g), says, error)
        for what, given, says, error in (
            ("letters", np.array(list("abcdef")), "labels must be numbers", InputError), ("None", [None] * 6, "NaN or infinite", NumericalError),
            ("2", [2] * 6, "labels must be 0 or 1", InputError), ("all the same", [1] * 6, "both classes", InputError), ("none", [], "with n > 0", InputError),
        )
    ),
    bad("groups that are too few", lambda p: statistics.auroc_interval(SCORES, LABELS, ["a", "b"]), "a group for each of 6 rows", InputError),
    bad("one group", lambda p: statistics.auroc_interval(SCORES, LABELS, ["a"] * 6), "at least 2 groups", InputError),
    bad("groups that are NaN", lambda p: statistics.auroc_interval(SCORES, LABELS, np.full(6, np.nan)), "NaN or infinite", NumericalError),
    *(
        bad(f"an interval with {options}", interval(**options), says, InputError)
        for options, says in (
            ({"level": 0}, "expected level in (0, 1)"), ({"level": 1}, "expected level in (0, 1)"), ({"level": "a"}, "expected level in (0, 1)"), ({"n_resamples": 0}, "n_resamples of at least"),
            ({"n_resamples": 1.5}, "n_resamples of at least"), ({"seed": "a"}, "seed must be a whole number"), ({"seed": -1}, "seed must be a whole number"),
        )
    ),
    bad("p-values above 1", lambda p: statistics.benjamini_hochberg([2, 0.5]), "", InputError),
    bad("p-values that are letters", lambda p: statistics.benjamini_hochberg(["a"]), "p_values must be numbers", InputError),
    bad("no draws of a null", lambda p: statistics.two_sided_permutation_p(1.0, []), "the null distribution is empty", InputError),
    bad("an observed letter", lambda p: statistics.two_sided_permutation_p("a", [1.0]), "observed must be numbers", InputError),
    bad("one estimate to pool", lambda p: statistics.pooled_estimate({}), "at least 2 estimates", InputError),
    bad("estimates that are None", lambda p: statistics.pooled_estimate(None), "pooling takes estimates by name", InputError),
]  # fmt: skip
