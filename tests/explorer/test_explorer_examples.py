"""Filters over the examples, and the answers behind them."""

from __future__ import annotations

import pytest

from mechvrp.data import is_correct
from mechvrp.errors import InputError
from mechvrp.explorer import Cancelled, Examples, Job
from mechvrp.reliability import greedy_answers


def test_filters(explorer, scenes, run_code):
    examples = explorer.examples
    assert examples.filter() == tuple(range(48))
    task = examples.tasks[0]
    asked = {"task": task, "text": "HOW"}
    found = examples.filter(**asked)
    assert found == tuple(
        i for i, s in enumerate(scenes) if s.task == task and "how" in s.question.lower()
    )
    assert list(found) == run_code(explorer.model, examples.filter_code(**asked))["chosen"]
    with pytest.raises(InputError, match="no task"):
        examples.filter(task="nothing")


def test_right_and_wrong_need_answers(explorer, scenes, run_code):
    examples = explorer.examples
    with pytest.raises(InputError, match="48 of 48 examples have not been answered"):
        examples.filter(right=True)
    told = []
    examples.answer(job=Job(lambda *one: told.append(one)))
    assert told[0] == ("answering", 0, 48)
    assert told[-1] == ("answering", 48, 48)
    answers = greedy_answers(explorer.model, list(scenes))
    good = [is_correct(s, a.text, reading="strict") for s, a in zip(scenes, answers, strict=True)]
    right = examples.filter(right=True)
    assert right == tuple(i for i, one in enumerate(good) if one)
    assert examples.filter(right=False) == tuple(i for i, one in enumerate(good) if not one)
    code = examples.filter_code(right=False, text="image")
    expected = list(examples.filter(right=False, text="image"))
    assert expected
    assert run_code(explorer.model, code)["chosen"] == expected


def test_a_cancelled_reading_keeps_what_was_answered(explorer):
    examples = Examples(explorer.model, explorer.examples.dataset)
    job = Job(lambda label, done, total: job.cancel() if done else None)
    with pytest.raises(Cancelled):
        examples.answer(job=job)
    # It was cancelled behind the second telling, so the second batch was still answered.
    assert 32 <= len(examples.answers) <= 48
