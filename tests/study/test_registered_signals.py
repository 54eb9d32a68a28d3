"""Signals that were registered: measured where a study names them, judged like its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechvrp
from mechvrp.errors import InputError, NumericalError, ShapeError, UnavailableError
from mechvrp.reliability import Signal, known_signals, measure_signal, register_signal, registered
from mechvrp.study.config import StudyConfig
from mechvrp.study.report import write_report
from mechvrp.study.settings import checked_settings

WORDS = Signal(
    name="question_words", kind="comparator", higher_means_right=None, uses_label=False, cost_forwards=0,
    description="Words of the question.", source="a test", unit="words",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean():
    before = dict(registered._REGISTERED)
    yield
    registered._REGISTERED.clear()
    registered._REGISTERED.update(before)


def words(model, samples, seen):
    assert len(seen.answers) == len(seen.samples) == len(samples)
    return [len(s.question.split()) if "left" not in s.question else np.nan for s in samples]


def test_a_study_measures_and_judges_them(tmp_path):
    def never(model, samples, seen):
        raise UnavailableError("no such thing in this model")

    register_signal(WORDS, words)
    register_signal(replace(WORDS, name="never"), never)
    found = mechvrp.run_study(
        "tiny-llava", "scenes", out=tmp_path / "run", n=40, samples=0, n_resamples=100,
        signals=("question_words", "never"), stages=["observe", "correlate", "report"], progress=False,
    )  # fmt: skip
    (section,) = found.summary.sections
    rows = {(row.name, row.scope): row for row in section.signals.rows}
    samples = mechvrp.data.load("scenes", limit=40)
    expected = [len(s.question.split()) for s in samples if "left" not in s.question]
    assert rows["question_words", "all"].n == len(expected) < 40
    assert rows["question_words", "all"].auroc is not None
    assert rows["never", "all"].auroc is None
    assert any("no signal never for 40 examples: no such thing" in note for note in section.notes)
    table = found.run.read_examples(["question_words"])["question_words"]
    assert table.dropna().tolist() == expected
    assert table.isna().sum() == 40 - len(expected)
    # The report is read where the signal's package is not, too.
    registered._REGISTERED.clear()
    write_report(found.run)
    page = (found.run.path / "report.html").read_text()
    assert "question_words" in page or "question words" in page


@pytest.mark.parametrize("name", ["correct", "task", "image_id", "votes", "probe_score"])
def test_no_signal_takes_the_place_of_a_column(name):
    register_signal(replace(WORDS, name=name), words)
    with pytest.raises(InputError, match=f"columns called {name}"):
        StudyConfig(signals=(name,))


def test_what_could_not_be_had_before_a_kill_is_told_after_it(tmp_path, monkeypatch):
    from mechvrp.study import observing

    monkeypatch.setattr(observing, "_PIECE", 8)
    options = {
        "n": 24, "samples": 0, "n_resamples": 100, "signals": ("never",), "batch_size": 8,
        "stages": ["observe"], "progress": False, "out": tmp_path / "run",
    }  # fmt: skip
    calls = []

    def never(model, samples, seen):
        calls.append(len(samples))
        if len(calls) == 2:
            raise KeyboardInterrupt
        raise UnavailableError(
            f"no such thing, {['', 'at first', '', 'later', 'later'][len(calls)]}"
        )

    register_signal(replace(WORDS, name="never"), never)
    with pytest.raises(KeyboardInterrupt):
        mechvrp.run_study("tiny-llava", "scenes", **options)
    run = mechvrp.run_study("tiny-llava", "scenes", **options).run
    assert len(calls) == 4
    assert run.read_stage("observe", "0-tiny-llava")["notes"] == [
        f"no signal never for 8 examples: no such thing, {when}" for when in ("at first", "later")
    ]


def test_what_is_refused():
    with pytest.raises(InputError, match="unknown signal 'question_words'"):
        StudyConfig(signals=("question_words",))
    with pytest.raises(InputError, match="'p_tok' is measured in every study"):
        StudyConfig(signals=("p_tok",))
    register_signal(WORDS, lambda *_: [1.0, 2.0])
    assert known_signals()["question_words"] == WORDS
    with pytest.raises(InputError, match="replace=True"):
        register_signal(WORDS, words)
    with pytest.raises(InputError, match="exists already"):
        register_signal(replace(WORDS, name="p_tok"), words)
    with pytest.raises(InputError, match="letters, digits and _"):
        register_signal(replace(WORDS, name="a b"), words)
    with pytest.raises(ShapeError, match=r"shape \[2\] for 3 samples"):
        measure_signal("question_words", None, [1, 2, 3], None)
    for bad, why in (
        ([1.0, np.inf], "infinite for 1 of 2"), (["a", "b"], "no number"), (["1", "2"], "no number"),
        ([1j, 2.0], "no number"),
    ):  # fmt: skip
        register_signal(WORDS, lambda *_, bad=bad: bad, replace=True)
        with pytest.raises(NumericalError, match=why):
            measure_signal("question_words", None, [1, 2], None)
    register_signal(WORDS, lambda *_: 1 / 0, replace=True)
    with pytest.raises(InputError, match="'question_words' failed on 1 samples: ZeroDivisionError"):
        measure_signal("question_words", None, [1], None)
    given = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    register_signal(WORDS, lambda *_: given, replace=True)
    assert measure_signal("question_words", None, [1, 2], None).tolist() == [1, 1]
    for wrong in ((WORDS, None), ("question_words", words)):
        with pytest.raises(InputError, match="expected a Signal and a function"):
            register_signal(*wrong)
    assert checked_settings({"signals": "question_words"}, "--set") == {
        "signals": ("question_words",)
    }
