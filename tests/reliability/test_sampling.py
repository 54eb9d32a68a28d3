"""Nucleus sampling: transformers' own cut, and draws that belong to samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechvrp
from mechvrp.errors import InputError
from mechvrp.reliability.sampling import Sampling, nuclei_of


def dense(nuclei, size):
    found = torch.zeros(len(nuclei.counts), size, dtype=torch.float64)
    return found.scatter(1, nuclei.tokens, nuclei.probabilities)


def theirs(logits, temperature, top_p):
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    scores = TemperatureLogitsWarper(temperature)(None, logits)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores.double().softmax(-1)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize(("size", "scale"), [(7, 2.0), (300, 4.0), (5000, 0.5), (5000, 5.0)])
def test_nuclei_are_those_of_transformers(size, scale, top_p):
    logits = scale * torch.randn(6, size, generator=torch.Generator().manual_seed(size))
    found = nuclei_of(logits, 0.7, top_p)
    expected = theirs(logits, 0.7, top_p)
    # Close to 1 the edge of a nucleus is within the rounding of float32 sums.
    torch.testing.assert_close(dense(found, size), expected, rtol=1e-4, atol=1e-5)
    difference = (found.counts - (expected > 0).sum(-1)).abs().max()
    assert difference <= (2 if 0.99 < top_p < 1 else 0)
    torch.testing.assert_close(found.probabilities.sum(-1), torch.ones(6, dtype=torch.float64))


@given(st.integers(0, 2**31), st.floats(0.05, 1))
def test_draws_follow_the_nucleus(seed, top_p):
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(seed)) * 2
    found = nuclei_of(logits, 1.0, top_p)
    # draws spread evenly hit each token as often as it is probable
    n = 2000
    uniforms = ((torch.arange(n) + 0.5) / n).double().expand(2, n)
    drawn = found.draw(uniforms)
    shares = torch.stack([torch.bincount(row, minlength=9) / n for row in drawn]).double()
    assert (shares - dense(found, 9)).abs().max() <= 1 / n + 1e-9
    ends = torch.tensor([[0.0, 1 - 2**-53]] * 2, dtype=torch.float64)
    inside = dense(found, 9) > 0
    assert inside.gather(1, found.draw(ends)).all()


def test_draws_belong_to_samples():
    model = mechvrp.load("tiny-llava")
    samples = list(mechvrp.data.load("scenes", limit=6))
    whole = Sampling(4).uniforms(model.encode(samples), 3)
    assert whole.shape == (6, 3, 4)
    part = Sampling(4).uniforms(model.encode(samples[::-1][:2]), 3)
    np.testing.assert_array_equal(part, whole[::-1][:2])
    assert not np.array_equal(Sampling(4, seed=1).uniforms(model.encode(samples), 3), whole)
    assert len({row.tobytes() for row in whole}) == 6


@pytest.mark.parametrize(
    "wrong", [{"k": -1}, {"temperature": 0.0}, {"temperature": float("nan")}, {"top_p": 0.0},
              {"top_p": 1.1}, {"seed": -1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)
