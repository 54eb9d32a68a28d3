"""Noise by layer window: what one forward each gives, and maps that are those of the noisy run."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mechvrp
from mechvrp.data import is_correct
from mechvrp.errors import InputError, NumericalError, ShapeError
from mechvrp.reliability import (
    CORRUPTIONS,
    Outcomes,
    corrupt_windows,
    corruption_variants,
    entropy_shares,
    layer_windows,
    mask_attended_patches,
    mean_map,
    spatial_entropy,
)
from mechvrp.reliability.corrupting import other_positions

SCALES = np.array([1.0, 2.0, 4.0, 6.0])


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava")


@pytest.fixture(scope="module")
def scenes():
    return list(mechvrp.data.load("scenes", limit=10))


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 18, 28, 32, 80])
def test_windows_are_few_cover_all_layers_and_end_with_all_of_them(n):
    found = layer_windows(n)
    assert len(found) <= 8
    assert len(set(found)) == len(found)
    assert found[-1] == (0, n - 1)
    assert all(0 <= a <= b < n for a, b in found)
    assert {i for a, b in (found[:-1] or found) for i in range(a, b + 1)} == set(range(n))


@pytest.mark.parametrize("of", CORRUPTIONS)
@pytest.mark.parametrize("name", ["tiny-llava", "tiny-paligemma"])
def test_outcomes_and_maps_are_those_of_one_forward_each(name, of, scenes):
    model, samples = mechvrp.load(name), scenes[:6]
    windows, scales = [(0, 1), (2, 2)], np.linspace(1, 3, mechvrp.load(name).n_layers)
    found = corrupt_windows(
        model, samples, windows, of=of, scales=scales, draws=2, seed=3, batch_size=4
    )
    assert found.edited.shape == found.control.shape == (2, 2, 6)
    assert found.errors == ("", "")
    batch = model.encode(samples)
    edits, controls = corruption_variants(batch, windows, of=of, scales=scales, draws=2, seed=3)
    for kind, made in (("edited", edits), ("control", controls)):
        for v, edit in enumerate(made):
            w, draw = divmod(v, 2)
            begin = 1 + windows[w][of != "hidden states"]
            rows = []
            with mechvrp.trace(model, batch) as t:
                t.apply(edit)
                for layer in range(begin, model.n_layers):
                    rows.append(t.attention_rows(layer).save())
                tokens = t.logits[:, -1].argmax(-1).save()
            for i, (sample, token) in enumerate(zip(samples, tokens, strict=True)):
                text = model.tokenizer.decode([int(token)], skip_special_tokens=True).strip()
                assert getattr(found, kind)[w, draw, i] == is_correct(sample, text)
                if kind == "edited":
                    at = batch.tokens.images[i]
                    maps = np.stack([row[i].float().numpy()[:, at.position] for row in rows])
                    grid = maps.reshape(*maps.shape[:2], *at.shapes[0])
                    wanted = spatial_entropy(mean_map(grid)) / math.log(len(at))
                    assert found.entropy_after[w, draw, i] == pytest.approx(wanted, abs=1e-4)


def test_noise_belongs_to_examples_and_not_to_batches(model, scenes):
    windows = [(0, 0), (1, 3)]
    runs = [
        corrupt_windows(model, part, windows, scales=SCALES, draws=2, batch_size=size)
        for part, size in ((scenes, 10), (scenes, 3), (scenes[4:], 6))
    ]
    for other in runs[1:]:
        n = other.edited.shape[-1]
        assert np.array_equal(runs[0].edited[..., -n:], other.edited)
        assert np.array_equal(runs[0].control[..., -n:], other.control)
        assert np.allclose(
            runs[0].entropy_after[..., -n:], other.entropy_after, atol=1e-4, equal_nan=True
        )
    seeded = corrupt_windows(model, scenes, windows, scales=SCALES, draws=2, seed=1)
    assert not np.allclose(seeded.entropy_after[0], runs[0].entropy_after[0], atol=1e-4)


def test_a_window_that_leaves_no_layer_behind_has_no_entropy(model, scenes):
    hidden = corrupt_windows(model, scenes[:2], [(3, 3), (0, 3)], scales=SCALES, draws=1)
    assert np.isnan(hidden.entropy_after[0]).all()
    assert np.isfinite(hidden.entropy_after[1]).all()
    rows = corrupt_windows(model, scenes[:2], [(0, 3)], of="attention", draws=1)
    assert np.isnan(rows.entropy_before).all()


def test_the_control_is_at_other_text_behind_the_image(model, scenes):
    batch = model.encode(scenes)
    texts = batch.tokens.resolve("text")
    seen = set()
    for draw in range(30):
        chosen = batch.tokens.resolve(other_positions(batch, draw, 0))
        for i, place in enumerate(chosen):
            assert int(place) in texts[i].tolist()
            assert int(batch.tokens.images[i].position.max()) < int(place) < batch.tokens.length - 1
            seen.add(int(place) - batch.tokens.length)
    assert len(seen) > 5


def test_unfitting_settings_are_refused_before_any_forward(model, scenes, monkeypatch):
    monkeypatch.setattr(type(model), "encode", lambda *a, **k: pytest.fail("it ran"))
    for windows in ([], [(1, 0)], [(0, 4)], [(0, 0), (0, 0)]):
        with pytest.raises(InputError, match="windows are"):
            corrupt_windows(model, scenes, windows, scales=SCALES)
    with pytest.raises(ShapeError, match="scales"):
        corrupt_windows(model, scenes, [(0, 0)])
    with pytest.raises(InputError, match="layer 1 are constant"):
        corrupt_windows(model, scenes, [(0, 0)], scales=np.array([1.0, 0, 1, 1]))
    with pytest.raises(NumericalError, match="NaN"):
        corrupt_windows(model, scenes, [(0, 0)], scales=np.array([1.0, np.nan, 1, 1]))
    with pytest.raises(InputError, match="noise is put on"):
        corrupt_windows(model, scenes, [(0, 0)], of="logits", scales=SCALES)
    with pytest.raises(InputError, match="draws"):
        corrupt_windows(model, scenes, [(0, 0)], scales=SCALES, draws=0)


def test_masking_everything_attended_costs_more_than_masking_nothing_of_note(model):
    scenes = list(mechvrp.data.load("scenes", limit=40))
    maps = [mean_map(found) for found in mechvrp.reliability.attention_maps(model, scenes)]
    found = mask_attended_patches(model, scenes, maps, draws=2, batch_size=20)
    assert found.edited.shape == (2, 1, 40)
    assert found.control.shape == (2, 2, 40)
    top, bottom = found.edited.mean((1, 2))
    assert top < found.control[0].mean() <= found.clean.mean()
    assert bottom > top
    with pytest.raises(ShapeError, match="maps were given"):
        mask_attended_patches(model, scenes, maps[:3])


def test_entropy_shares_are_spatial_entropy_over_log_s():
    rng = np.random.default_rng(0)
    maps = rng.random((5, 12))
    wanted = [spatial_entropy((m / m.sum()).reshape(3, 4)) / math.log(12) for m in maps]
    assert entropy_shares(maps) == pytest.approx(wanted)
    assert entropy_shares(np.ones((1, 9))) == pytest.approx([1], abs=1e-6)
    assert np.isnan(entropy_shares(np.array([[0.0, 0.0]]))).all()
    assert np.isnan(entropy_shares(np.ones((2, 1)))).all()


def test_outcomes_join_by_example():
    part = Outcomes(np.ones(2, bool), np.ones((1, 1, 2)), np.zeros((1, 3, 2)), ("",))
    bad = Outcomes(np.ones(1, bool), -np.ones((1, 1, 1)), np.zeros((1, 3, 1)), ("why",))
    found = Outcomes.joined([part, bad])
    assert found.edited.tolist() == [[[1, 1, -1]]]
    assert found.errors == ("why",)
    assert found.entropy_after is None
    with pytest.raises(InputError, match="no outcomes"):
        Outcomes.joined([])
