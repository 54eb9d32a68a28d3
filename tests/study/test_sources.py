"""Images that were made from one another are no independent evidence, in studies, comparisons and monitors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mechvrp
from mechvrp.data.sources import image_sources
from mechvrp.errors import InputError
from mechvrp.patching.changes import batch_images, mean_changes
from mechvrp.reliability.monitor_fitting import _divided
from mechvrp.study.compare_units import load_units


@pytest.fixture(scope="module")
def pairs():
    """Scenes, each with the scene that lacks the digit in question."""
    return mechvrp.data.load("scenes", task="existence", limit=60, counterfactual=True)


def test_tables_of_older_runs_have_the_image_alone():
    table = pd.DataFrame({"image_id": ["a", "b", "c"]})
    assert image_sources(table).tolist() == ["a", "b", "c"]
    # A run that was begun by an older version and gone on with by this one.
    half = table.assign(source_id=pd.Series([None, None, "a"], dtype="string"))
    assert image_sources(half).tolist() == ["a", "b", "a"]
    assert image_sources(half.astype("category")).tolist() == ["a", "b", "a"]


def test_a_batch_counts_scenes(pairs):
    model = mechvrp.load("tiny-llava")
    scene = pairs[0].source_id
    kin = [sample for sample in pairs if sample.source_id == scene]
    assert len({sample.image_id for sample in kin}) > 1
    batch = model.encode(kin)
    assert batch_images(batch) == 1
    _, low, high = mean_changes(np.ones((2, len(kin))), batch, n_resamples=100, seed=0)
    assert np.isnan([low, high]).all()


def test_a_study_counts_scenes_and_not_their_counterfactuals(pairs, tmp_path):
    sources = {sample.source_id for sample in pairs}
    assert len(sources) < len(set(pairs.image_ids))
    result = mechvrp.run_study(
        "tiny-llava",
        pairs,
        out=tmp_path / "run",
        ks=(0, 2),
        samples=0,
        n_resamples=100,
        progress=False,
    )
    section = result.summary.sections[0]
    table = result.run.read_examples()
    assert table["source_id"].tolist() == [sample.source_id for sample in pairs]
    whole = next(row for row in section.accuracy if (row.task, row.split) == ("all", "all"))
    assert whole.n_groups == len(sources)
    held = table[table["split"] == "heldout"]
    assert not set(held["source_id"]) & set(table["source_id"][table["split"] == "train"])
    assert section.ablation.points[0].n_groups == held["source_id"].nunique()
    (unit,), _ = load_units([result.run.path])
    assert len(unit.different_images) == len(sources)


def test_a_monitor_divides_by_source():
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(60), 4)
    table = pd.DataFrame(
        {
            "image_id": [f"{s}-{i % 2}" for i, s in enumerate(source)],
            "source_id": source.astype(str),
            "split": np.where(source < 30, "train", "heldout"),
            "correct": rng.random(240) < 0.5,
        }
    )
    parts = [set(table["source_id"].iloc[rows]) for rows in _divided(table, 0).values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    leaking = table.assign(split=np.where(np.arange(240) % 2, "train", "heldout"))
    with pytest.raises(InputError, match="on both sides"):
        _divided(leaking, 0)
