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


def test_workers_do_not_see_this_process_s_memory():
    with pytest.raises(InputError, match="is in this process's memory"):
        mechvrp.run_study(
            "tiny-llava",
            "scenes",
            out="memory://run",
            engine="ray",
            workers=2,
            device="cpu",
            **OPTIONS,
        )


@pytest.mark.slow
def test_workers_write_to_s3_what_one_process_writes_here(s3, bucket, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    # Workers are processes of their own: settings of fsspec reach them by the environment.
    for name, value in s3.items():
        monkeypatch.setenv(f"FSSPEC_S3_{name.upper()}", value)
    options = {
        **OPTIONS,
        "device": "cpu",
        "stages": ["observe", "correlate", "intervene", "report"],
    }
    here = mechvrp.run_study("tiny-llava", "scenes", out=tmp_path / "run", **options)
    there = mechvrp.run_study(
        "tiny-llava", "scenes", out=f"{bucket}/run", engine="ray", workers=2, **options
    )
    pd.testing.assert_frame_equal(there.run.read_examples(), here.run.read_examples())
    assert not [path.name for path in there.run.path.iterdir() if path.name.startswith(".")]
    again = mechvrp.run_study("tiny-llava", "scenes", out=f"{bucket}/run", **options)
    assert again.summary == there.summary
