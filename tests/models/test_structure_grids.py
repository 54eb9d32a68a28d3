"""Places of image tokens: each token is tried, and one that is elsewhere is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mechvrp
from mechvrp.models import check_family
from tests.support.anyvlm_classes import CASES


class Reordered(torch.nn.Module):
    """A projector whose output is put into another order, or mixed."""

    def __init__(self, inner: Any, change: Any) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: Any) -> Any:
        return self.change(self.inner(x))


def swapped(i: int, j: int, dim: int = 1) -> Any:
    def change(out: Any) -> Any:
        order = list(range(out.shape[dim]))
        order[i], order[j] = j, i
        return out.index_select(dim, torch.tensor(order))

    return change


def reordered(name: str, projector: str, change: Any) -> Any:
    case = CASES[name]
    hf = case.model()
    setattr(hf.model, projector, Reordered(getattr(hf.model, projector), change))
    return check_family(mechvrp.load(hf, probe=case.inputs()))


@pytest.mark.parametrize("places", [(4, 7), (9, 10), (0, 15), (2, 8)])
def test_tokens_that_are_out_of_order_have_no_grid(places):
    """Wherever they are: every token is tried."""
    report = reordered("deepseek_vl", "aligner", swapped(*places))
    assert not report["grid"].available
    assert "another moves more than the token of" in report["grid"].why
    assert report["projected"].available


def test_in_large_images_places_are_told_by_bits_alone(monkeypatch):
    monkeypatch.setattr("mechvrp.models.structure.cells._FEW", 15)
    monkeypatch.setattr(
        "mechvrp.models.structure.cells._one_by_one", lambda *_: pytest.fail("tried")
    )
    assert reordered("deepseek_vl", "aligner", lambda out: out)["grid"].available
    report = reordered("deepseek_vl", "aligner", swapped(4, 7))
    assert "answers more to other places" in report["grid"].why


def test_tiles_in_each_other_s_place_have_no_grid():
    """The second and third of the probe's tiles are of one image."""
    report = reordered("internvl", "multi_modal_projector", swapped(1, 2, dim=0))
    assert not report["grid"].available


@pytest.mark.parametrize(("share", "fits"), [(0.7, True), (1.5, False)])
def test_tokens_that_take_of_their_neighbours_are_tried_one_by_one(share, fits):
    def mixed(out: Any) -> Any:
        return out + share * out.roll(1, dims=1)

    report = reordered("deepseek_vl", "aligner", mixed)
    assert report["grid"].available is fits
