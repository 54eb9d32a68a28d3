"""A study whose run folder is at an address: the records of one on this machine."""

from __future__ import annotations

import pandas as pd
import pytest

import mechvrp
from mechvrp.errors import InputError
from mechvrp.store import RunFolder

OPTIONS = {"n": 40, "ks": (0, 2, 48), "samples": 0, "n_resamples": 100, "progress": False}


def test_a_study_on_s3_is_what_it_is_here(bucket, tmp_path):
    model = mechvrp.load("tiny-llava", device="cpu")
    here = mechvrp.run_study(model, "scenes", out=tmp_path / "run", **OPTIONS)
    there = mechvrp.run_study(model, "scenes", out=f"{bucket}/run", **OPTIONS)
    assert isinstance(there.run.path, type(there.run.path / "x"))
    pd.testing.assert_frame_equal(there.run.read_examples(), here.run.read_examples())
    ours, theirs = here.run.read_summary(), there.run.read_summary()
    for summary in (ours, theirs):
        summary.pop("created")
        for section in summary["sections"]:
            section.pop("timings_s")
    assert theirs == ours
    assert "<html" in (there.run.path / "report.html").read_text()
    # The same command returns to it, and a monitor is fitted on it.
    again = mechvrp.run_study(model, "scenes", out=f"{bucket}/run", **OPTIONS)
    assert again.summary == there.summary
    assert RunFolder.open(f"{bucket}/run").gallery_names() == here.run.gallery_names()


def test_workers_take_a_folder(bucket):
    with pytest.raises(InputError, match="is an address: give a folder on shared storage"):
        mechvrp.run_study(
            "tiny-llava",
            "scenes",
            out=f"{bucket}/run",
            engine="ray",
            workers=2,
            device="cpu",
            **OPTIONS,
        )
