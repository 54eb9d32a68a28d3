"""Effect maps: each cell is that intervention by itself; the printed code gives the same; cancelling."""

from __future__ import annotations

import numpy as np
import pytest

import mechvrp
from mechvrp.errors import SiteError
from mechvrp.explorer import Cancelled, Job
from mechvrp.explorer.maps import plan_map


def probability_without(model, sample, token, edit):
    with mechvrp.trace(model, model.encode(sample)) as t:
        t.apply(edit)
        logits = t.logits[0, -1].save()
    return float(logits.float().softmax(-1)[token])


@pytest.mark.parametrize("cells", ["tokens", "patches", "heads", "units"])
def test_cells_are_interventions_by_themselves(any_explorer, run_code, cells):
    model, sample = any_explorer.model, any_explorer.sample
    any_explorer.look("mlp_out", 2, "last")
    found = any_explorer.map(cells)
    plan = found.plan
    shapes = {
        "tokens": model.n_layers,
        "patches": 1,
        "heads": model.n_layers,
        "units": 1,
    }
    assert found.probability.shape == (shapes[cells], len(plan.columns))
    first = any_explorer.clean().first
    assert found.base_probability == pytest.approx(first.before, abs=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(4):
        row, column = rng.integers(len(plan.layers)), rng.integers(len(plan.columns))
        edit = mechvrp.zero(plan.component, layer=plan.layers[row], **plan.keywords[column])
        expected = probability_without(model, sample, first.token, edit) - first.before
        assert found.probability[row, column] == pytest.approx(expected, abs=2e-5)
    if cells != "patches":  # the same code but for its cells, and the slowest
        ran = run_code(model, found.code)
        np.testing.assert_allclose(ran["effects"], found.probability, rtol=0, atol=2e-5)
        np.testing.assert_allclose(ran["margins"], found.margin, rtol=0, atol=2e-4)


def test_patches_and_donors_reproduce(explorer, run_code):
    explorer.look("projected", None, "image")
    found = explorer.map("patches")
    rows, cols = explorer.grid
    assert found.plan.grid == (rows, cols)
    assert found.probability.shape == (1, rows * cols)
    ran = run_code(explorer.model, found.code)
    np.testing.assert_allclose(ran["effects"], found.probability, rtol=0, atol=2e-5)
    explorer.look("z", 1, "last")
    found = explorer.map("heads", donor=5)
    ran = run_code(explorer.model, found.code)
    np.testing.assert_allclose(ran["effects"], found.probability, rtol=0, atol=2e-5)
    assert found.method == "patch"
    assert np.abs(found.probability).max() > 0


@pytest.mark.parametrize("cells", ["tokens", "patches", "heads", "units"])
def test_means_are_those_of_the_place(explorer, run_code, cells):
    """A cell of a map is what ablating that place to its mean gives."""
    explorer.look("mlp_out", 2, "last")
    found = explorer.map(cells, "mean")
    assert found.method == "mean"
    plan = found.plan
    rng = np.random.default_rng(1)
    columns = {0, *rng.integers(len(plan.columns), size=3).tolist()}
    for column in columns:
        row = int(rng.integers(len(plan.layers)))
        if not np.isfinite(found.probability[row, column]):
            continue
        explorer.look(plan.component, plan.layers[row], **plan.keywords[column])
        outcome = explorer.ablated("mean")
        expected = outcome.margin_after - outcome.margin_before
        assert found.margin[row, column] == pytest.approx(expected, abs=2e-4)
    assert np.isfinite(found.probability).all(axis=0).sum() > len(plan.columns) / 2
    if cells != "patches":  # the same code but for its cells, and the slowest
        ran = run_code(explorer.model, found.code)
        np.testing.assert_allclose(ran["effects"], found.probability, rtol=0, atol=2e-5)


def test_cells_without_a_value_say_why(explorer, scenes):
    lengths = [explorer.model.encode(s).tokens.length for s in scenes[:20]]
    longest, shortest = int(np.argmax(lengths)), int(np.argmin(lengths))
    assert lengths[longest] > lengths[shortest]
    explorer.choose(longest)
    explorer.look("resid_post", 1, "last")
    with pytest.warns(UserWarning, match="have no values"):
        found = explorer.map("tokens", donor=shortest)
    empty = np.isnan(found.probability)
    assert empty.any()
    assert not empty.all()
    said = np.array([[bool(gap) for gap in row] for row in found.gaps])
    np.testing.assert_array_equal(said, empty)


def test_maps_that_do_not_fit_are_refused(explorer):
    explorer.look("projected", None, "image")
    with pytest.raises(SiteError, match="image tokens only"):
        explorer.map("tokens")
    explorer.look("z", 1, "last")
    with pytest.raises(SiteError, match="belong to heads"):
        explorer.map("units")
    with pytest.raises(ValueError, match="cells are one of"):
        explorer.map("words")


def test_a_cancelled_map_changes_nothing(explorer):
    explorer.look("resid_post", 1, "last")
    place, outcome = explorer.place, explorer.clean()
    told = []
    job = Job(lambda label, done, total: (told.append((label, done, total)), job.cancel()))
    with pytest.raises(Cancelled):
        explorer.map("tokens", job=job)
    assert told
    assert told[0][0] == "mapping"
    assert explorer.place == place
    again = explorer.clean()
    assert again.words == outcome.words
    # The model is free, and the map can be made after all.
    found = explorer.map("heads")
    assert np.isfinite(found.probability).all()


def test_a_plan_names_every_token(explorer):
    batch = explorer.batch
    plan = plan_map(explorer.model, batch, explorer.place, "tokens")
    text = batch.tokens.resolve("text")[0]
    assert len(plan.columns) == 1 + len(text)
    assert plan.columns[0] == "image"
    assert plan.keywords[-1] == {"positions": -1}
