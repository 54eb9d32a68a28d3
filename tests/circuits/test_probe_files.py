"""A probe in a file: what is saved is loaded, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mechvrp.circuits import FittedProbe
from mechvrp.errors import DataError, InputError

ARRAYS = {
    "mean": np.array([1.0, 2.0]),
    "scale": np.array([0.5, 1.0]),
    "coef": np.array([3.0, -1.0]),
    "intercept": np.array([0.25]),
}
RECORD = {"format": "mechvrp-probe", "format_version": 1, "c": 0.1, "images": ["a", "ä"]}


@pytest.fixture
def probe():
    return FittedProbe(*(ARRAYS[n] for n in ("mean", "scale", "coef")), 0.25, 0.1, ["ä", "a"])


def written(path, arrays=ARRAYS, record=RECORD, **other):
    text = record if isinstance(record, str) else json.dumps({**record, **other})
    path.write_bytes(save(arrays, metadata={"mechvrp": text}))
    return path


def test_what_is_saved_is_loaded(probe, tmp_path):
    path = probe.save(tmp_path / "probe.safetensors")
    again = FittedProbe.load(path)
    for name, value in asdict(probe).items():
        assert np.array_equal(getattr(again, name), value), name
    features = np.random.default_rng(0).normal(size=(5, 2))
    assert np.array_equal(again.scores(features), probe.scores(features))
    assert FittedProbe.load(written(tmp_path / "other")).images == probe.images
    strange = FittedProbe(probe.mean, probe.scale, probe.coef, 0.0, np.float32(2), ["a\udcff", "b"])
    assert FittedProbe.load(strange.save(path)).images == strange.images
    assert FittedProbe.load(path).c == 2
    unknown = FittedProbe(probe.mean, probe.scale, probe.coef, 0.0, 1.0)
    assert FittedProbe.load(unknown.save(path)).images is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"record": "{"}, "is no probe"),
        ({"record": "[]"}, "is no probe"),
        ({"format": "mechvrp-ranking"}, "is no probe"),
        ({"format_version": 2}, "this version of mechvrp reads 1"),
        ({"more": 1}, "it says"),
        ({"images": "a"}, "expected texts or null"),
        ({"images": [1]}, "expected texts or null"),
        ({"c": True}, "c is True"),
        ({"c": 0}, "above 0"),
        ({"arrays": {n: ARRAYS[n] for n in ("mean", "scale", "coef")}}, "it holds"),
        ({"arrays": {**ARRAYS, "more": np.ones(1)}}, "it holds"),
        ({"arrays": {**ARRAYS, "mean": np.ones(3)}}, r"mean is float64 \(3,\)"),
        ({"arrays": {**ARRAYS, "coef": np.ones((1, 2))}}, "coef is float64"),
        ({"arrays": {**ARRAYS, "mean": np.ones(2, np.float32)}}, "mean is float32"),
        ({"arrays": {**ARRAYS, "mean": np.array([1.0, np.nan])}}, "NaN"),
        ({"arrays": {**ARRAYS, "scale": np.zeros(2)}}, "scales above 0"),
    ],
)
def test_another_file_is_refused(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        FittedProbe.load(written(tmp_path / "probe", **change))


def test_a_file_that_is_none_is_refused(probe, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(DataError, match="cannot be read"):
            FittedProbe.load(path)
    with pytest.raises(InputError, match="is not a folder"):
        probe.save(tmp_path / "nowhere/probe")
    broken = FittedProbe(probe.mean, probe.scale, probe.coef * np.inf, 0.0, 1.0)
    with pytest.raises(InputError, match="NaN or infinity"):
        broken.save(tmp_path / "probe")
    assert not (tmp_path / "probe").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_an_error_of_ours(probe, tmp_path, data):
    path = probe.save(tmp_path / "probe")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :])
    with contextlib.suppress(DataError):
        FittedProbe.load(path)
