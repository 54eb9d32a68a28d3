"""Rankings on disk: the same when read back, refused when they are not rankings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechvrp.circuits import Ranking
from mechvrp.errors import DataError, InputError, NumericalError, ShapeError

SITES = ("blocks.0.mlp.hook_post", "blocks.2.mlp.hook_post")


def full(seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=8)
    return Ranking(
        SITES,
        scores,
        "probe weight, ω",
        scores - 0.1,
        scores + 1 / 3,
        "tiny-llava",
        "ab" * 16,
        frozenset({"image-2", "bild ü"}),
        {"c": 0.1, "path": [{"c": 1e-300, "nonzero": 3}], "interval": None},
        {"p": rng.random(8), "entered": rng.integers(-1, 5, 8)},
        rng.permutation(8).astype(float),
    )


@given(seed=st.integers(0, 99))
def test_a_ranking_is_read_back_as_it_was(seed, tmp_path_factory):
    one = full(seed)
    path = one.save(tmp_path_factory.mktemp("rankings") / "one.json")
    again = Ranking.load(path)
    for name in ("sites", "method", "model", "fingerprint", "images", "settings"):
        assert getattr(again, name) == getattr(one, name), name
    for name in ("scores", "low", "high", "ties"):
        assert np.array_equal(getattr(again, name), getattr(one, name)), name
    assert again.columns.keys() == one.columns.keys()
    assert np.array_equal(again.columns["p"], one.columns["p"])
    assert again.to_frame().equals(one.to_frame())
    assert again.agreement(one).rbo == pytest.approx(1)


def test_a_plain_ranking_too(tmp_path):
    path = Ranking((SITES[0],), np.array([0.0, -1.0])).save(tmp_path / "plain.json")
    again = Ranking.load(str(path))
    assert again.low is None
    assert again.ties is None
    assert again.images == frozenset()
    assert again.order.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "mechvrp-monitor"}, "no ranking"),
        ({"format_version": 2}, "written in format 2"),
        ({"scores": None}, "scores"),
        ({"scores": [1, "two"]}, "list of numbers"),
        ({"scores": [1, 2, 3]}, "expected one for each unit of 2 sites"),
        ({"low": None}, "two ends"),
        ({"low": [True] * 8}, "low"),
        ({"sites": ["layer 3"]}, "no site"),
        ({"sites": [3]}, "expected text"),
        ({"images": [1]}, "expected text"),
        ({"settings": []}, "settings"),
        ({"columns": {"p": [1]}}, "p of shape"),
        ({"model": 3}, "model"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_no_ranking_is_refused(tmp_path, change, words):
    path = full().save(tmp_path / "one.json")
    record = json.loads(path.read_text()) | change
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=words) as caught:
        Ranking.load(path)
    assert str(path) in str(caught.value)


def test_damaged_missing_and_unwritable(tmp_path):
    path = full().save(tmp_path / "one.json")
    text = path.read_text()
    for broken in (text[: len(text) // 2], "[]", text.replace("1e-300", "NaN"), ""):
        path.write_text(broken)
        with pytest.raises(DataError):
            Ranking.load(path)
    record = json.loads(text)
    del record["images"]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="lacks images"):
        Ranking.load(path)
    with pytest.raises(DataError, match="not a file"):
        Ranking.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="not a folder"):
        full().save(tmp_path / "no" / "one.json")
    with pytest.raises(InputError, match="JSON types"):
        Ranking((SITES[0],), np.ones(2), settings={"c": object()}).save(tmp_path / "x.json")
    with pytest.raises(NumericalError, match="NaN|nan"):
        Ranking((SITES[0],), np.ones(2), settings={"c": np.nan}).save(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_columns_and_ties_are_of_the_units():
    with pytest.raises(ShapeError, match="p of shape"):
        Ranking((SITES[0],), np.ones(2), columns={"p": np.ones(3)})
    with pytest.raises(ShapeError, match="ties"):
        Ranking((SITES[0],), np.ones(2), ties=np.ones(3))
    with pytest.raises(InputError, match="cannot be called 'score'"):
        Ranking((SITES[0],), np.ones(2), columns={"score": np.ones(2)})
