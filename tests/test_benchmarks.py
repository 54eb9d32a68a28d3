"""The benchmarks run, at sizes at which their figures mean nothing, and their comparisons hold."""

import pytest

from benchmarks import (
    ablating,
    attention,
    exploring,
    models,
    monitoring,
    observing,
    planting,
    scaling,
    sweeping,
)
from benchmarks.table import Row, markdown
from mechvrp.circuits import RANKING_METHODS


@pytest.mark.parametrize("name", list(models.SHAPES))
def test_sweeps_are_compared_with_their_peers(name):
    """``rows`` itself asserts that every peer gives the sweep's logits."""
    rows = sweeping.rows(models.SHAPES[name].smaller(), examples=2)
    told = " ".join(row.what for row in rows)
    whole = name != "qwen2.5-vl"  # as Qwen2-VL, but for TransformerLens
    for part in ("all positions", "grid", "attribution"):
        assert (part in told) is whole
    assert "last position" in told
    assert "plain hooks" in told
    assert ("TransformerLens" in told) is (name in ("llava", "qwen2.5-vl"))
    assert all(row.value > 0 for row in rows if row.unit == "x")
    least = [row for row in rows if "the least that exactness allows" in row.what]
    assert len(least) == (3 if whole else 1)
    assert all(row.value >= 0.999 for row in least)


def test_attention_rows_are_measured():
    time, memory = attention.rows(models.SHAPES["llava"].smaller(), repeats=1)
    assert time.unit == "%"
    assert memory.value >= 0


@pytest.mark.slow
def test_the_observation_pass_and_the_monitor_are_measured():
    """``rows`` itself asserts that their answers are those of ``generate``."""
    small = models.SHAPES["llava"].smaller()
    short, longer = observing.rows(small, examples=2, repeats=1)
    assert short.least == 8
    assert short.value > 0
    assert longer.value > 0
    (beyond,) = monitoring.rows(small, repeats=2)
    assert beyond.unit == "%"
    assert beyond.value > -100


@pytest.mark.slow
def test_ablation_curves_are_compared_with_the_loop():
    """``rows`` itself asserts that the loop gives the curve's margins."""
    last, everywhere, embedded, embedded_everywhere, whole = ablating.rows(
        models.SHAPES["llava"].smaller(), examples=2, scenes=12, many=16
    )
    assert last.least == embedded.least == 20
    assert 0.9 < everywhere.least < 8  # sets
    assert 0.9 < embedded_everywhere.least < 5
    assert whole.most == 45
    assert whole.unit == "s"
    assert all(row.value > 0 for row in (last, everywhere, embedded, embedded_everywhere, whole))


def test_a_row_knows_whether_it_reached_its_goal():
    assert Row("a", 2.0, "x", least=1.5).reached
    assert not Row("a", 2.0, "x", most=1.5).reached
    assert Row("a", 2.0, "x").reached is None
    lines = markdown([Row("a", 2.0, "x", least=3, detail="d")])
    assert lines[-1] == "| a | 2 x | at least 3 x: **missed** | d |"


@pytest.mark.slow
def test_planted_circuits_are_looked_for():
    methods = ("probe", "mean difference", "random")
    rows = planting.rows(["tiny-llava"], methods=methods, noises=(0.0, 32.0), n=120, seeds=1)
    assert len(rows) == 2 * len(methods)
    assert set(planting.METHODS) == set(RANKING_METHODS)
    clean, lost = (row for row in rows if "by probe" in row.what)
    assert clean.reached
    assert lost.value < 0.5
    assert all(row.reached is None for row in rows if "random" in row.what)


def test_explorer_clicks_are_measured():
    """``rows`` itself asserts that no click ended in an error."""
    rows = exploring.rows(["tiny-llava"], clicks=2)
    assert len(rows) == 15
    assert all(row.unit == "ms" and row.value > 0 for row in rows)


def test_scaling_s_rows_and_figure_say_what_was_measured():
    """The studies themselves take hours: here are three that were not run."""

    def study(n, workers=0, threads=2, seconds=1.0):
        parts = {"observations": 0.01 * n * seconds, "ablations": 2.0}
        whole = 9.0 + parts["observations"]
        return scaling.Measured(n, workers, threads, 3 * whole, whole, parts, 2**30, 2**20)

    sizes = [study(n) for n in (100, 1000, 10000)]
    rows = scaling.rows(sizes, study(500, 1, 1), study(500, 2, 1, seconds=0.5))
    slopes = [row.value for row in rows if row.unit == "ms"]
    assert slopes == pytest.approx([10.0, 10.0])
    assert [row.value for row in rows if row.unit == "s"] == pytest.approx([10, 19, 109])
    assert [row.value for row in rows if row.unit == "MiB"] == [1024] * 3
    assert rows[-1].value == pytest.approx(2.0)
    assert "two workers against one" in rows[-1].what
    time, memory, disk, *proportional = scaling.figure(sizes).data
    assert list(time.y) == pytest.approx([10, 19, 109])
    assert list(memory.y) == [1024] * 3
    assert list(disk.y) == [1] * 3
    assert list(proportional[0].y) == pytest.approx([1.09, 10.9, 109])
