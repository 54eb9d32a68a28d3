"""Agreement of rankings, on examples worked by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechvrp.circuits import Ranking, compare_rankings, rank_biased_overlap
from mechvrp.circuits.agreement import overlap_at
from mechvrp.errors import InputError

SITE = "blocks.1.mlp.hook_post"
ORDERS = st.integers(2, 30).flatmap(lambda n: st.permutations(range(n)))


def ranking(scores, **more):
    return Ranking((SITE,), np.array(scores, dtype=float), **more)


def by_hand(one, other, p):
    """Equation 32 as it is written, with sets."""
    n = len(one)
    shared = [len(set(one[:d]) & set(other[:d])) for d in range(1, n + 1)]
    total = sum(x / d * p**d for d, x in enumerate(shared, start=1))
    return shared[-1] / n * p**n + (1 - p) / p * total


def test_overlap_by_hand():
    assert overlap_at([0, 1, 2, 3], [1, 0, 3, 2]).tolist() == [0, 1, 2 / 3, 1]


def test_rank_biased_overlap_by_hand():
    # Overlaps 0, 1/2, 1 of three items: 0.5^3 + (0.25 / 2 + 0.125) = 0.375.
    assert rank_biased_overlap([0, 1, 2], [1, 2, 0], p=0.5) == pytest.approx(0.375)


def test_webber_s_weights_of_the_first_ranks():
    """With p = 0.9 the first ten ranks weigh 86 % (section 4.2): what differs behind them is the rest."""
    n = 2000
    order = np.arange(n)
    other = np.r_[order[:10], order[10:][::-1]]
    weight = 1 - 0.9**9 + 10 * 0.1 / 0.9 * (np.log(10) - sum(0.9**i / i for i in range(1, 10)))
    assert weight == pytest.approx(0.8556, abs=1e-4)
    found = rank_biased_overlap(order, other, p=0.9)
    assert weight - 0.01 < found < weight + 0.01


@given(order=ORDERS, seed=st.integers(0, 99), p=st.sampled_from([0.3, 0.9, 0.99]))
def test_rank_biased_overlap_is_as_written(order, seed, p):
    other = np.random.default_rng(seed).permutation(len(order)).tolist()
    found = rank_biased_overlap(order, other, p=p)
    assert found == pytest.approx(by_hand(order, other, p))
    assert found == pytest.approx(rank_biased_overlap(other, order, p=p))
    assert 0 <= found <= 1
    assert rank_biased_overlap(order, order, p=p) == pytest.approx(1)
    assert rank_biased_overlap(order, order[::-1], p=p) < 1


@given(n=st.integers(2, 40), seed=st.integers(0, 99))
def test_of_identical_reversed_and_swapped(n, seed):
    sizes = np.random.default_rng(seed).permutation(n) + 1.0
    one = ranking(sizes)
    same = one.agreement(one)
    assert set(same.overlap) == {1.0}
    assert same.rbo == pytest.approx(1)
    assert same.spearman == same.spearman_size == pytest.approx(1)
    assert set(same.same_sign) == {1.0}
    reverse = one.agreement(ranking(n + 1 - sizes))
    assert reverse.spearman_size == pytest.approx(-1)
    assert reverse.overlap[-1] == (0 if 2 * reverse.ks[-1] <= n else reverse.overlap[-1])
    flipped = one.agreement(ranking(-sizes))
    assert flipped.rbo == pytest.approx(1)
    assert flipped.spearman == pytest.approx(-1)
    assert set(flipped.same_sign) == {0.0}
    other = ranking(np.random.default_rng(seed + 1).normal(size=n))
    assert one.agreement(other) == other.agreement(one)


def test_what_chance_gives():
    n, rng = 40, np.random.default_rng(0)
    one = ranking(rng.normal(size=n))
    found = [one.agreement(ranking(rng.normal(size=n)), ks=[4, 10]) for _ in range(600)]
    assert np.mean([f.overlap for f in found], axis=0) == pytest.approx([0.1, 0.25], abs=0.02)
    assert found[0].overlap_chance == (0.1, 0.25)
    assert np.mean([f.rbo for f in found]) == pytest.approx(found[0].rbo_chance, abs=0.02)
    # p is valid: at or below 0.1 in at most a tenth of draws.
    assert np.mean([f.overlap_p[1] <= 0.1 for f in found]) < 0.13
    shared = round(found[0].overlap[1] * 10)
    table = stats.hypergeom(n, 10, 10)
    assert found[0].overlap_p[1] == pytest.approx(sum(table.pmf(k) for k in range(shared, 11)))
    assert found[0].to_frame()["k"].tolist() == [4, 10]


def test_signs_among_the_shared():
    one, other = ranking([5, -4, 3, 0.1]), ranking([5, 4, 0.1, 3])
    found = one.agreement(other, ks=[2, 3])
    assert found.overlap == (1.0, 2 / 3)
    assert found.same_sign == (0.5, 0.5)
    none = ranking([9, 1, 1, 1]).agreement(ranking([1, 9, 1, 1]), ks=[1])
    assert none.same_sign == (None,)


def test_ties_are_broken_as_the_ranking_says():
    plain = ranking([2, 0, 0, 0])
    told = ranking([2, 0, 0, 0], ties=np.array([0, -3, -2, -1]))
    assert plain.order.tolist() == [0, 1, 2, 3]
    assert told.order.tolist() == [0, 3, 2, 1]
    assert told.ranks.tolist() == [0, 3, 2, 1]
    assert told.positive(2).tolist() == [0, 3]
    assert told.bottom(2).tolist() == [3, 2]
    assert told.least(1).tolist() == [1]
    assert plain.agreement(told).spearman == pytest.approx(1)  # equals share a rank
    assert plain.agreement(ranking([1, 1, 1, 1])).spearman is None


def test_many_rankings():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20)
    given_ = {
        "a": ranking(scores),
        "b": ranking(scores + 0.1 * rng.normal(size=20)),
        "c": ranking(rng.normal(size=20)),
    }
    found = compare_rankings(given_, ks=[5])
    table = found.matrix("overlap", k=5)
    assert (
        table.loc["a", "c"]
        == table.loc["c", "a"]
        == given_["a"].agreement(given_["c"], ks=[5]).overlap[0]
    )
    assert (np.diag(table) == 1).all()
    assert found.matrix().loc["a", "b"] > found.matrix().loc["a", "c"]
    assert len(found.to_frame()) == 3
    assert "overlap_5" in found.to_frame()
    for bad in ({"measure": "tau"}, {"measure": "overlap", "k": 4}, {"k": 5}):
        with pytest.raises(InputError):
            found.matrix(**bad)
    with pytest.raises(InputError, match="at least two"):
        compare_rankings({"a": given_["a"]})


def test_what_cannot_be_compared_is_refused():
    one = ranking([1, 2, 3])
    with pytest.raises(InputError, match="blocks.2"):
        one.agreement(Ranking(("blocks.2.mlp.hook_post",), np.ones(3)))
    with pytest.raises(InputError, match="of 3 units"):
        one.agreement(ranking([1, 2]))
    ours, theirs = (ranking([1, 2, 3], fingerprint=letter * 32, model=letter) for letter in "ab")
    with pytest.raises(InputError, match="different weights"):
        ours.agreement(theirs)
    assert ours.agreement(theirs, force=True).rbo == pytest.approx(1)
    assert one.agreement(theirs).rbo == pytest.approx(1)  # of unknown weights
    for options in ({"ks": [0]}, {"ks": [4]}, {"ks": []}, {"p": 1.0}, {"p": 0}, {"ks": [1.9]},
                    {"ks": "1"}, {"p": "0.9"}, {"ks": [True]}):  # fmt: skip
        with pytest.raises(InputError):
            one.agreement(one, **options)
    with pytest.raises(InputError, match="rankings are compared"):
        one.agreement([3, 2, 1])
    with pytest.raises(InputError, match="by name"):
        compare_rankings([one, one])
    assert one.agreement(one, ks=2).ks == (2,)
    with pytest.raises(InputError, match="different ones"):
        rank_biased_overlap([0, 1], [0, 2])
    with pytest.raises(InputError, match="differ in length"):
        rank_biased_overlap([0, 1], [0])
