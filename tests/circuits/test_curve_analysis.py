"""Bottleneck index, areas and contrasts on outcomes whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mechvrp
from mechvrp.circuits import (
    AblationCurve,
    CurveOutcomes,
    Ranking,
    analyse_ablation,
    area_between,
    bottleneck_index,
    chance_levels,
    compare_curves,
    curve_of,
    matched_sets,
)
from mechvrp.circuits.bottleneck import difference_floor, index_resamples
from mechvrp.circuits.crossed import Crossed
from mechvrp.circuits.curves import rank_p
from mechvrp.data import Sample
from mechvrp.errors import InputError, NumericalError, RunFolderError, ShapeError
from mechvrp.plots import ablations_by_model

KS = (0, 2, 10)
UNITS = 20


def made(
    top: np.ndarray,
    random: np.ndarray,
    *,
    clean: np.ndarray | None = None,
    images: np.ndarray | None = None,
    chance: float = 0.5,
    ks: tuple[int, ...] = KS,
    **more: object,
) -> CurveOutcomes:
    """From accuracy under the top [k, example] and under random sets [draw, k, example]."""
    n = top.shape[1]
    return CurveOutcomes(
        ks=ks,
        units=UNITS,
        clean={"accuracy": np.ones(n, bool) if clean is None else clean},
        values={"accuracy": {"top": top[None], "random": random}},
        images=np.arange(n).astype(str) if images is None else images,
        tasks=np.array(["x"] * n),
        chance=np.full(n, chance),
        **more,  # type: ignore[arg-type]
    )


def known(n: int = 100, draws: int = 5) -> CurveOutcomes:
    """All right when clean; the top's 2 take 30 %, its 10 take 60 %; random 2 take 0, random 10 take 20 %."""
    top, random = np.ones((3, n), bool), np.ones((draws, 3, n), bool)
    top[1, : n * 3 // 10], top[2, : n * 6 // 10] = False, False
    random[:, 2, : n // 5] = False
    return made(top, random)


def test_the_index_is_its_formula() -> None:
    out = known()
    found = bottleneck_index(out)
    # The top's 40 % are below chance, and count as its 50 %.
    assert found.value == pytest.approx(((1 - 0.7) + (0.8 - 0.5)) / 2 / (1 - 0.5))
    assert found.low < found.value < found.high
    # Trapezoids over shares 0, 0.1 and 0.5 of the layer, with gaps 0, 0.3 and 0.4.
    area = area_between(out)
    assert area.value == pytest.approx(0.1 * 0.15 + 0.4 * 0.35)
    assert 0 < area.low < area.value < area.high
    assert area_between(made(out.values["accuracy"]["top"][0][1:], out.values["accuracy"]["random"][:, 1:],
                             ks=KS[1:])).value == pytest.approx(area.value)  # fmt: skip


def test_the_index_is_0_where_the_top_is_as_random() -> None:
    same = np.random.default_rng(0).random((3, 80)) < 0.6
    same[0] = True
    out = made(same, np.repeat(same[None], 4, axis=0))
    found = bottleneck_index(out)
    assert found.value == 0
    assert found.low < 0 < found.high  # no width of none: unseen images can differ
    assert area_between(out).value == 0


def test_no_index_where_clean_accuracy_is_not_above_chance() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random(100) < 0.52
    top = np.repeat(clean[None], 3, axis=0)
    out = made(top, np.repeat(top[None], 4, axis=0), clean=clean)
    with pytest.raises(InputError, match="not above chance"):
        bottleneck_index(out)
    curve = curve_of(out, n_resamples=100)
    assert curve.bottleneck == {}
    assert "not above chance" in curve.bottleneck_gap
    assert "no bottleneck index" in repr(curve)
    with pytest.raises(InputError, match="no control 'matched'"):
        bottleneck_index(known(), control="matched")
    with pytest.raises(InputError, match="no part 'y'"):
        bottleneck_index(known(), part="y")


def simulated(rng: np.random.Generator, images: int, draws: int, per: int = 3) -> CurveOutcomes:
    """Images of their own difficulty, random sets of their own harm; the top loses 20 pp more on average."""
    ease = rng.normal(0, 0.6, images).repeat(per)
    n = images * per
    noise = rng.normal(size=(draws + 1, n))
    harm = np.append(rng.normal(0.7, 0.3, draws), 1.4)
    right = noise + ease + 1.6 > harm[:, None]
    clean = rng.normal(size=n) + ease + 1.6 > 0
    names = np.arange(images).repeat(per).astype(str)
    return made(right[-1][None], right[:-1, None], clean=clean, images=names, ks=(5,))


@pytest.fixture(scope="module")
def truth() -> float:
    from scipy.stats import norm

    def share(mean: float, variance: float) -> float:
        return float(norm.cdf(mean / np.sqrt(variance)))

    wide = 1 + 0.6**2
    clean = share(1.6, wide)
    return (share(0.9, wide + 0.3**2) - share(0.2, wide)) / (clean - 0.5)


def test_intervals_of_the_index_keep_their_level(truth: float) -> None:
    rng = np.random.default_rng(1)
    repeats, inside = 500, 0
    for i in range(repeats):
        found = bottleneck_index(simulated(rng, 80, 20), seed=i, n_resamples=400)
        inside += found.low <= truth <= found.high
    assert 0.93 <= inside / repeats <= 0.97


def test_a_top_that_is_one_of_the_draws_is_rarely_told_from_them() -> None:
    """The null: rank p of the whole curve and of each k keep their level, the index's interval holds 0."""
    rng, low, beyond = np.random.default_rng(2), 0, 0
    repeats = 200
    for i in range(repeats):
        harm = rng.normal(0.7, 0.4, 40)[:, None, None] * np.array([0.0, 0.5, 1.0])[:, None]
        clean = rng.normal(1.6, 1, 120)
        right = clean + rng.normal(0, 0.5, (40, 3, 120)) * (harm > 0) > harm
        p = rank_p(right[0, 1:].mean(), right[1:, 1:].mean((1, 2)))
        if i % 40 == 0:  # which is the p of the whole analysis
            among = (np.arange(120) // 4, KS, ["x"] * 120)
            curve = analyse_ablation(
                clean > 0, right[0], right[1:], *among, n_resamples=20, least_draws=1
            )
            assert curve.curve_p["all"] == p
        low += p <= 0.05
        found = bottleneck_index(made(right[0], right[1:], clean=clean > 0), n_resamples=200)
        beyond += found.low > 0
    assert low <= 21
    assert (
        beyond > low
    )  # the index's interval is about this top, not about rankings: the p is the test


def test_contrasts_and_the_smallest_k() -> None:
    out = known(200, 199)
    margins = np.random.default_rng(0).normal(size=(200, 3, 200)).astype(np.float32)
    margins[0, 2] -= 5
    out.clean["margin"] = np.zeros(200, np.float32)  # type: ignore[index]
    out.values["margin"] = {"top": margins[:1], "random": margins[1:]}  # type: ignore[index]
    curve = curve_of(out, n_resamples=200)
    assert curve.smallest_k() == 2
    assert curve.smallest_k(part="x") == 2
    with pytest.raises(InputError, match="no part 'z'"):
        curve.smallest_k(part="z")
    of = {(c.measure, c.k): c for c in curve.contrasts if c.part == "all"}
    assert of["accuracy", 10].excess.value == pytest.approx(-40)
    assert of["accuracy", 10].p == pytest.approx(1 / 200)
    assert of["margin", 10].excess.value == pytest.approx(-5, abs=0.3)
    assert of["margin", 10].excess.high < -4
    assert of["margin", 10].q == pytest.approx(2 / 200)
    assert of["margin", 2].p > 0.05
    # As the curve itself has it.
    assert of["accuracy", 10].excess.value == pytest.approx(curve.points[2].excess.value)
    assert of["accuracy", 10].p == curve.points[2].excess_p
    assert "bottleneck index 0.60" in repr(curve)
    (note,) = curve.notes
    assert (
        "below chance (0.5), and counts as chance in the bottleneck index, under top 10 (0.4)"
        in note
    )


def test_few_draws_are_told_and_give_no_p(tmp_path: Path) -> None:
    out = known(draws=198)
    out.values["accuracy"]["matched"] = out.values["accuracy"]["random"]  # type: ignore[index]
    few = curve_of(out, n_resamples=20)
    assert "198 draws: no p against random sets is given" in few.notes[0]
    assert "below 0.00503; give at least 199 draws" in few.notes[0]
    assert {(one.p, one.q) for one in few.contrasts} == {(None, None)}
    assert few.contrasts[-1].excess.high < 0
    assert few.matched_p == {}
    frame = few.sets_to_frame()
    tests = frame[["p_random", "q_random", "p_matched", "q_matched"]]
    assert tests.isna().all(axis=None)
    assert set(tests.dtypes) == {np.dtype(float)}
    again = AblationCurve.load(few.save(tmp_path / "few.json"))
    assert again.contrasts == few.contrasts
    assert again.points == few.points
    many = curve_of(known(draws=199), n_resamples=20)
    assert not any("no p" in note for note in many.notes)
    assert {one.p for one in many.contrasts} == {1 / 200}
    wide = made(*(np.ones(s, bool) for s in ((20, 9), (199, 20, 9))), ks=tuple(range(1, 21)))
    told = curve_of(wide, n_resamples=20).notes[0]
    assert "only where several k stand out" in told
    assert "399 draws" in told


def test_two_curves_on_the_same_images_are_paired() -> None:
    rng = np.random.default_rng(0)
    n = 200
    hard = rng.random(n) < 0.5  # images on which both lose all, so that differences are small
    top = np.ones((3, n), bool)
    top[1:, hard] = False
    random = np.ones((20, 3, n), bool)
    other = top.copy()
    other[1:, rng.permutation(n)[:20]] = False
    a, b = (curve_of(made(one, random, chance=0.2), n_resamples=200) for one in (top, other))
    found = compare_curves({"a": b, "b": a})
    (one,) = found.differences
    assert one.difference.value == pytest.approx(
        b.bottleneck["random"].value - a.bottleneck["random"].value
    )
    assert one.shared_images == n
    assert one.difference.low > 0
    assert one.p < 0.01
    elsewhere = made(top, random, chance=0.2, images=np.arange(n, 2 * n).astype(str))
    apart = compare_curves({"a": b, "b": curve_of(elsewhere, n_resamples=200)})
    (wide,) = apart.differences
    assert wide.shared_images == 0
    assert wide.difference.high - wide.difference.low > 2 * (
        one.difference.high - one.difference.low
    )
    frame = found.to_frame()
    assert frame["model"].tolist() == ["a"] * 3 + ["b"] * 3
    assert frame["share"].tolist() == [0, 0.1, 0.5] * 2
    assert frame["bottleneck"].notna().all()
    assert found.differences_to_frame()["q"].tolist() == [one.p]
    names = [trace.name for trace in found.plot().data if trace.name]
    assert names == [
        f"{which}, {what}" for which in "ab" for what in ("band", "random k", "top k, n = 200")
    ]
    assert "a - b: +" in repr(found)
    drawn = ablations_by_model({"a": a})
    assert list(drawn.data[0].x) == pytest.approx([0, 10, 50])


def test_curves_that_never_differ_may_yet_differ() -> None:
    """Resamples of nothing but zeros have no width; what is known of the difference has."""
    n = 40
    right = np.ones((3, n), bool)
    out = made(right, np.repeat(right[None], 5, axis=0))
    elsewhere = replace(out, images=np.arange(n, 2 * n).astype(str), _parts={})
    curves = [curve_of(one, n_resamples=100) for one in (out, out, elsewhere)]
    index = curves[0].bottleneck["random"]
    for other, shared in ((1, n), (2, 0)):
        (one,) = compare_curves({"a": curves[0], "b": curves[other]}).differences
        # Of each side an answer more gained and one more lost, of room 0.5: the variances add up.
        reach = 1.959964 * np.sqrt(2 * 2) / (n + 2) / 0.5
        assert (one.difference.low, one.difference.high) == pytest.approx((-reach, reach))
        assert one.difference.high == pytest.approx(np.sqrt(2) * index.high)
        assert (one.difference.value, one.p, one.shared_images) == (0, 1, shared)
        assert "at least Bonett-Price" in one.difference.method
    # All of one model's answers broken by the top, of three images: no resample differs, and three is few.
    few, broken = right[:, :3], right[:, :3].copy()
    broken[1:] = False
    random = np.repeat(few[None], 5, axis=0)
    a, b = (curve_of(made(top, random), n_resamples=50) for top in (broken, few))
    (one,) = compare_curves({"a": a, "b": b}).differences
    assert one.difference.low < 0 < one.difference.value == 1
    assert one.p > 0.05


@given(st.integers(0, 10_000), st.integers(2, 30), st.floats(0, 1), st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_difference_is_no_better_known_than_its_indices_allow(seed, n, rate, shared) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        top, random = rng.random((3, n)) >= rate / 2, rng.random((4, 3, n)) >= rate / 4
        top[0], random[:, 0] = True, True
        images = rng.integers(0, max(2, n // 2), n) + (0 if shared or not sides else 100)
        images[:2] = images[0], images[0] + 1  # two images at least
        sides.append(made(top, random, images=images.astype(str), chance=0.2))
    a, b = sides
    centre, spread = difference_floor(a, b, "random")
    back = difference_floor(b, a, "random")
    assert back == pytest.approx((-centre, spread))
    assert spread >= 1.999 / (n + 2) / 0.8  # two added answers of each side, room 0.8
    curves = {name: curve_of(one, n_resamples=20) for name, one in zip("ab", sides, strict=True)}
    (found,) = compare_curves(curves, n_resamples=40).differences
    assert found.difference.low <= centre - 1.95 * spread
    assert found.difference.high >= centre + 1.95 * spread
    assert found.difference.low <= found.difference.value <= found.difference.high
    if not shared:
        alone = [difference_floor(one, one, "random")[1] for one in sides]
        apart = [
            difference_floor(one, replace(one, images=np.char.add(one.images, "x"), _parts={}), "random")[1]
            for one in sides
        ]  # fmt: skip
        assert spread**2 == pytest.approx(sum(x**2 for x in apart) / 2)
        assert alone[0] <= apart[0]  # paired with itself, only what was added is left


def test_a_bottleneck_is_told_from_spread_information() -> None:
    """200 examples: 10 of 20 units of one model carry the answer alone; in the other any 10 carry half."""
    rng = np.random.default_rng(3)
    n, random = 200, np.ones((20, 3, 200), bool)
    narrow, spread = np.ones((3, n), bool), np.ones((3, n), bool)
    narrow[1:] = rng.random((2, n)) < 0.5
    spread[2] = rng.random(n) < 0.75
    random[:, 2] = rng.random((20, n)) < 0.8
    curves = {name: curve_of(made(top, random)) for name, top in (("n", narrow), ("s", spread))}
    (one,) = compare_curves(curves).differences
    assert one.p < 0.01
    assert one.difference.low > 0


def test_what_cannot_be_compared_is_refused() -> None:
    curve = curve_of(known(), n_resamples=50)
    with pytest.raises(InputError, match="two curves or more"):
        compare_curves({"a": curve})
    plain = analyse_ablation(
        *(np.ones(s, bool) for s in (4, (1, 4), (2, 1, 4))), np.arange(4), (1,), ["x"] * 4, n_resamples=50
    )  # fmt: skip
    assert isinstance(plain, AblationCurve)
    with pytest.raises(InputError, match="holds no outcomes"):
        compare_curves({"a": curve, "b": plain})
    with pytest.raises(InputError, match="no control 'matched'"):
        compare_curves({"a": curve, "b": curve}, control="matched")


def test_chance_is_of_a_constant_answer() -> None:
    def ask(task: str, *answers: str) -> list[Sample]:
        return [Sample(None, "?", a, f"{task}{i}", task) for i, a in enumerate(answers)]  # type: ignore[arg-type]

    polls, counts = (
        ask("existence", "yes", "Yes", "no"),
        ask("counting", "two", "two", "one", "three"),
    )
    assert chance_levels(polls + counts).tolist() == [2 / 3] * 3 + [0.5] * 4
    assert chance_levels(ask("existence", *["no"] * 4, "yes")).tolist() == [0.8] * 5
    assert chance_levels(ask("existence", "no", "yes")).tolist() == [0.5] * 2
    assert chance_levels(counts + ask("counting", "one")).tolist() == [0.4] * 5
    assert chance_levels(polls, 0.25).tolist() == [0.25] * 3
    with pytest.raises(InputError, match="no level for the tasks counting"):
        chance_levels(polls + counts, {"existence": 0.5})
    for bad in ("half", [0.5], {"existence": "half"}, True):
        with pytest.raises(InputError, match="chance is a share"):
            chance_levels(polls, bad)  # type: ignore[arg-type]


def test_the_index_is_1_where_the_top_breaks_every_answer() -> None:
    """Clean 62 %, nothing right without the top: below chance there is nothing to carry."""
    n = 200
    clean = np.arange(n) < 124
    random = np.repeat(np.repeat(clean[None], 3, axis=0)[None], 20, axis=0)
    top = np.zeros((3, n), bool)
    top[0] = clean
    curve = curve_of(made(top, random, clean=clean), n_resamples=500)
    index = curve.bottleneck["random"]
    assert index.value == pytest.approx(1)
    assert index.low < 1
    told = [note for note in curve.notes if "below chance" in note]
    assert len(told) == 1
    assert "top 2 (0), top 10 (0)" in told[0]
    # Random sets that break answers too: nothing is left to either.
    broken = np.zeros_like(random)
    broken[:, 0] = clean
    assert bottleneck_index(made(top, broken, clean=clean), n_resamples=100).value == 0
    # In every resample as on the data: no index above 1.
    out = made(top, random, clean=clean)
    resampled = index_resamples(out, out.part("all"), "random", Crossed(out.images))
    assert np.nanmax(resampled) <= 1 + 1e-9


def test_a_model_that_always_says_no_has_no_index() -> None:
    samples = [
        Sample(None, "?", "no" if i % 5 else "yes", str(i), "existence")  # type: ignore[arg-type]
        for i in range(200)
    ]
    clean = np.array([sample.answer == "no" for sample in samples])
    same = np.repeat(clean[None], 3, axis=0)
    level = chance_levels(samples)
    out = made(same, np.repeat(same[None], 20, axis=0), clean=clean, chance=float(level[0]))
    assert "not above chance" in curve_of(out, n_resamples=100).bottleneck_gap


@pytest.mark.parametrize("name", ["all", "split: x"])
def test_a_curve_s_own_names_are_refused(name: str) -> None:
    out = known()
    labels = np.array([name] * 60 + ["b"] * 40)
    right = out.values["accuracy"]
    for field in ("tasks", "splits"):
        with pytest.raises(InputError, match=f"{field} holds the name '{name}'"):
            replace(out, **{field: labels})
    with pytest.raises(InputError, match=f"tasks holds the name '{name}'"):
        analyse_ablation(
            out.clean["accuracy"], right["top"][0], right["random"], out.images, KS, labels
        )


def test_outcomes_that_do_not_fit_are_refused() -> None:
    out = known()
    for change, match in (
        ({"images": out.images[:5]}, "tasks of shape"),
        ({"ks": (0, 1)}, "expected \\(1, 2, 100\\)"),
        ({"ks": (2, 0, 1)}, "ascend"),
        ({"units": 3}, "ascend within 0 to 3"),
        ({"chance": np.full(100, np.nan)}, "from 0 to 1"),
        ({"clean": {"accuracy": np.ones(100)}}, "dtype float64"),
        ({"clean": {}}, "same measures"),
        ({"values": {"accuracy": {"top": out.values["accuracy"]["top"]}}}, "set 'random'"),
        ({"shared": np.zeros(3)}, "no outcomes"),
    ):
        with pytest.raises(InputError, match=match):
            replace(out, **change)  # type: ignore[arg-type]


def test_bottom_units_are_told_from_random_ones_on_the_other_side() -> None:
    """Without units that speak against the answer the margin rises by 3, without random ones by nothing."""
    n, rng = 60, np.random.default_rng(0)
    right = np.ones((1, 1, n), bool)
    margins = rng.normal(0, 0.1, (201, 1, n)).astype(np.float32)
    margins[0] += 3
    out = CurveOutcomes(
        ks=(5,),
        units=UNITS,
        clean={"accuracy": right[0, 0], "margin": np.zeros(n, np.float32)},
        values={
            "accuracy": {"top": right, "bottom": right, "random": np.repeat(right, 199, axis=0)},
            "margin": {"top": margins[1:2], "bottom": margins[:1], "random": margins[2:]},
        },
        images=np.arange(n).astype(str),
        tasks=np.array(["x"] * n),
        chance=np.full(n, 0.5),
    )
    curve = curve_of(out, n_resamples=50)
    of = {(c.measure, c.set): c for c in curve.contrasts if c.part == "all"}
    assert of["margin", "bottom"].p == pytest.approx(1 / 200)
    assert of["margin", "bottom"].tail == "upper"
    assert of["margin", "top"].tail == "lower"
    frame = curve.sets_to_frame().set_index(["part", "measure", "set"])
    assert frame.loc[("all", "margin", "bottom"), "tail_random"] == "upper"


def test_ranks_on_either_side() -> None:
    draws = np.arange(9.0)
    assert rank_p(-1, draws) == pytest.approx(1 / 10)
    assert rank_p(-1, draws, "upper") == 1
    assert rank_p(9, draws, "upper") == pytest.approx(1 / 10)
    assert rank_p(9, draws, "two-sided") == rank_p(-1, draws, "two-sided") == pytest.approx(0.2)
    assert rank_p(4, draws, "two-sided") == 1
    with pytest.raises(InputError, match="tail is"):
        rank_p(0, draws, "left")  # type: ignore[arg-type]


def _fewer(held: dict[str, Any]) -> None:
    held["outcomes"]["images"] = held["outcomes"]["images"][:5]


def _accuracy(**change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda held: held["outcomes"]["clean"]["accuracy"].update(change)


DAMAGE: dict[str, Callable[[dict[str, Any]], None]] = {
    "draws": lambda held: held.update(draws="x"),
    "other draws": lambda held: held.update(draws=6),
    "estimate": lambda held: held["clean_accuracy"].update(value="abc"),
    "no interval": lambda held: held["clean_accuracy"].update(low=2.0),
    "accuracy": lambda held: held["clean_accuracy"].update(value=0.25, low=0.2),
    "images": _fewer,
    "ks": lambda held: held["outcomes"].update(ks=[0, 1]),
    "a point's k": lambda held: held["points"][1].update(k=3),
    "more bits": _accuracy(shape=[900]),
    "fewer bits": _accuracy(shape=[50]),
    "negative": _accuracy(shape=[-1]),
    "kind": _accuracy(kind="f16", shape=[3]),
    "p": lambda held: held["points"][1].update(excess_p=3.0),
    "contrast": lambda held: held["contrasts"][0].update(p="low"),
    "tail": lambda held: held["contrasts"][0].update(tail="left"),
    "names": lambda held: held["outcomes"].update(images=list(range(100))),
    "chance": lambda held: held["outcomes"].update(chance=["0.5"] * 100),
    "notes": lambda held: held.update(notes=[1]),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_damaged_file_is_refused(what: str, tmp_path: Path) -> None:
    path = curve_of(known(), n_resamples=20).save(tmp_path / "curve.json")
    held = json.loads(path.read_text())
    DAMAGE[what](held)
    path.write_text(json.dumps(held))
    with pytest.raises(RunFolderError, match="is damaged"):
        AblationCurve.load(path)


def test_a_file_from_before_tails_had_names_is_read(tmp_path: Path) -> None:
    path = curve_of(known(), n_resamples=20).save(tmp_path / "curve.json")
    held = json.loads(path.read_text())
    for row in held["contrasts"]:
        del row["tail"]
    path.write_text(json.dumps(held))
    assert {one.tail for one in AblationCurve.load(path).contrasts} == {"lower"}


@given(st.integers(2, 120), st.integers(1, 2), st.integers(1, 4), st.integers(0, 50), st.data())
def test_matched_sets_hold_what_they_promise(
    width: int, sites: int, draws: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    ranking = Ranking(
        tuple(f"blocks.{i}.mlp.hook_post" for i in range(sites)), rng.normal(size=width * sites)
    )
    norms = np.exp(rng.normal(size=width * sites))
    ks = sorted({data.draw(st.integers(1, width * sites)) for _ in range(3)})
    found = matched_sets(ranking, norms, ks, draws, seed)
    more = matched_sets(ranking, norms, ks, draws + 2, seed)
    assert np.array_equal(more.rows[:draws], found.rows)
    for row in found.rows:
        assert len(set(row)) == len(row) == ks[-1]
        for k in ks:  # of each site as many as the top
            assert np.array_equal(
                np.bincount(ranking.places[row[:k]], minlength=sites),
                np.bincount(ranking.places[ranking.top(k)], minlength=sites),
            )
    for i, k in enumerate(ks):
        own = np.sqrt((norms[ranking.top(k)] ** 2).sum())
        mine = np.sqrt((norms[found.rows[:, :k]] ** 2).sum(1))
        assert found.ratio[:, i] == pytest.approx(mine / own)


def test_a_ranking_of_chance_is_rarely_told_from_sets_of_its_norm() -> None:
    """Few units matter, loud ones more: the rank among matched sets keeps its level all the same."""
    low, plain = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        norms = np.exp(rng.normal(size=100))
        harm = norms * (rng.random(100) < 0.1)
        # By chance but for the norm: loud units rank high.
        ranking = Ranking(
            ("blocks.0.mlp.hook_post",), norms * rng.permutation(np.linspace(1, 3, 100))
        )
        found = matched_sets(ranking, norms, (10,), 39, seed)
        top = harm[ranking.top(10)].sum()
        low += (1 + (harm[found.rows].sum(1) >= top).sum()) / 40 <= 0.05
        plain += (1 + (harm[ranking.random(10, 39, seed)].sum(1) >= top).sum()) / 40 <= 0.05
    assert low <= 21
    assert plain > 21  # which is what the control is for


def test_norms_that_cannot_be_matched_are_refused() -> None:
    ranking = Ranking(("blocks.0.mlp.hook_post",), np.arange(4.0))
    with pytest.raises(ShapeError, match="norms of shape"):
        matched_sets(ranking, np.ones(3), (1,), 1, 0)
    with pytest.raises(NumericalError, match="finite"):
        matched_sets(ranking, np.array([1, 2, np.nan, 1]), (1,), 1, 0)
    with pytest.raises(InputError, match="draws=0"):
        matched_sets(ranking, np.ones(4), (1,), 0, 0)
    silent = matched_sets(ranking, np.zeros(4), (2,), 2, 0)
    assert (silent.ratio == 1).all()


def test_the_package_has_it_at_the_top() -> None:
    assert mechvrp.ablation_curve is mechvrp.circuits.ablation_curve
