"""Requests for a judge, and what its saved reviews amount to."""

import json

import numpy as np
import pytest

import mechvrp.data
from mechvrp.data import export_for_judge, import_reviews
from mechvrp.errors import DataError

from .conftest import json_lines, put_images, put_lines

CATEGORIES = ("conv", "detail", "complex")
N = 12


@pytest.fixture
def dataset(tmp_path):
    """Twelve questions about six images, of three categories in turn."""
    root = tmp_path / "bench"
    rows = [
        {
            "question_id": n,
            "image": f"{n // 2:03d}.jpg",
            "category": CATEGORIES[n % 3],
            "text": f"Question {n}?",
        }
        for n in range(N)
    ]
    names = sorted({row["image"] for row in rows})
    put_lines(root / "questions.jsonl", rows)
    put_lines(root / "context.jsonl", [{"image": n, "caption": f"Seen: {n}"} for n in names])
    put_lines(
        root / "answers_gpt4.jsonl", [{"question_id": n, "text": f"Ref {n}"} for n in range(N)]
    )
    put_images(root, *(f"images/{name}" for name in names))
    return mechvrp.data.load("llava-bench", root=root)


def reviews(scores):
    return [
        {"question_id": n, "content": f"{a:g} {b:g}\nBecause."} for n, (a, b) in enumerate(scores)
    ]


SCORES = [(8, 4), (9, 9), (10, 5), (7, 7), (8, 2), (9, 6), (8, 8), (7, 3), (9, 9), (8, 1), (6, 6)]
SCORES += [(8, 7.5)]


def test_requests_and_answers_are_written(dataset, tmp_path):
    files = export_for_judge(
        dataset, [f"Mine {n}" for n in range(N)], tmp_path / "out", model_name="tiny"
    )
    assert (files.answers.parent, files.reviews.name) == (tmp_path / "out", "reviews.jsonl")
    answers = json_lines(files.answers)
    assert len(answers) == N
    assert (answers[3]["question_id"], answers[3]["text"]) == ("3", "Mine 3")
    assert (answers[3]["prompt"], answers[3]["model_id"]) == ("Question 3?", "tiny")
    request = json_lines(files.requests)[3]
    assert {key: request[key] for key in ("question_id", "image", "category")} == {
        "question_id": "3",
        "image": "001.jpg",
        "category": "conv",
    }
    system, user = request["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].startswith(
        "[Context]\nSeen: 001.jpg\n\n[Question]\nQuestion 3?\n\n"
        "[Assistant 1]\nRef 3\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nMine 3\n\n[End of Assistant 2]\n\n[System]\nTwo assistants"
    )


def test_answers_by_question_are_the_same(dataset, tmp_path):
    listed = [f"Mine {n}" for n in range(N)]
    a = export_for_judge(dataset, listed, tmp_path / "a")
    by_id = {str(n): text for n, text in reversed(list(enumerate(listed)))}
    b = export_for_judge(dataset, by_id, tmp_path / "b")
    assert a.answers.read_bytes() == b.answers.read_bytes()
    assert a.requests.read_bytes() == b.requests.read_bytes()


def test_nothing_is_overwritten_unasked(dataset, tmp_path):
    export_for_judge(dataset, ["x"] * N, tmp_path / "out")
    with pytest.raises(DataError, match=r"already holds answers\.jsonl, requests\.jsonl"):
        export_for_judge(dataset, ["y"] * N, tmp_path / "out")
    export_for_judge(dataset, ["y"] * N, tmp_path / "out", overwrite=True)
    assert json_lines(tmp_path / "out" / "answers.jsonl")[0]["text"] == "y"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["x"], "expected 12 answers, got 1"),
        ("x" * N, "expected answers, a list"),
        ([*["x"] * (N - 1), None], "answer to question 11 must be text, got None"),
        ({"0": "x"}, r"missing \['1', '2'"),
        ({**{str(n): "x" for n in range(N)}, "99": "x"}, r"unknown \['99'\]"),
    ],
)
def test_answers_must_fit_the_dataset(dataset, tmp_path, answers, message):
    with pytest.raises(DataError, match=message):
        export_for_judge(dataset, answers, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_references_is_refused(dataset, tmp_path):
    for sample in dataset:
        sample.meta.pop("reference", None)
    with pytest.raises(DataError, match=r"has no 'reference'.*Put context\.jsonl and answers_gpt4"):
        export_for_judge(dataset, ["x"] * N, tmp_path / "out")
    scenes = mechvrp.data.load("scenes", limit=2)
    with pytest.raises(DataError, match="cannot be judged"):
        export_for_judge(scenes, ["x"] * 2, tmp_path / "out")


@pytest.fixture
def folder(dataset, tmp_path):
    files = export_for_judge(dataset, ["x"] * N, tmp_path / "out")
    put_lines(files.reviews, reviews(SCORES))
    return tmp_path / "out"


def test_the_score_is_the_ratio_of_means(folder):
    found = import_reviews(folder)
    reference, model = np.array(SCORES, dtype=float).T
    assert found.overall.value == pytest.approx(100 * model.mean() / reference.mean())
    assert (found.overall.model, found.overall.reference) == (model.mean(), reference.mean())
    assert (found.overall.n, found.skipped) == (N, ())
    assert tuple(found.by_category) == ("complex", "conv", "detail")
    conv = found.by_category["conv"]
    assert conv.n == 4
    assert conv.value == pytest.approx(100 * model[::3].mean() / reference[::3].mean())


def test_the_interval_resamples_images(folder):
    interval = import_reviews(folder, n_resamples=4000).overall.interval
    assert (interval.n, interval.n_groups) == (N, 6)
    reference, model = (np.array(SCORES, dtype=float).T).reshape(2, 6, 2)
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 6, (4000, 6))
    values = 100 * model[draws].sum((1, 2)) / reference[draws].sum((1, 2))
    assert (interval.low, interval.high) == pytest.approx(
        np.quantile(values, [0.025, 0.975]), abs=2
    )
    assert interval == import_reviews(folder, n_resamples=4000).overall.interval


def test_one_image_has_no_interval(dataset, tmp_path):
    two = dataset.subset([0, 1])
    path = tmp_path / "reviews.jsonl"
    put_lines(path, reviews(SCORES[:2]))
    found = import_reviews(path, dataset=two)
    assert found.overall.interval is None
    assert found.overall.value == pytest.approx(100 * 13 / 17)


def test_reviews_in_llavas_own_form(dataset, folder, tmp_path):
    path = tmp_path / "reviews" / "model.jsonl"
    rows = [
        {"id": n + 1, "question_id": n, "category": "llava_bench_conv", "tuple": list(pair)}
        for n, pair in enumerate(SCORES)
    ]
    put_lines(path, rows)
    found = import_reviews(path, dataset=dataset)
    assert found == import_reviews(folder)
    with pytest.raises(DataError, match="which image .* dataset="):
        import_reviews(path)


@pytest.mark.parametrize("first", ["8, 4", "8,4", "8 4", " 8  4 ", "8.0 4.0", "8, 4\r"])
def test_how_scores_are_read(folder, first):
    rows = reviews(SCORES)
    rows[0]["content"] = f"{first}\nBoth are fine, 3 of 4."
    put_lines(folder / "reviews.jsonl", rows)
    assert import_reviews(folder).overall.model == pytest.approx(np.mean([b for _, b in SCORES]))


BAD = {
    "no scores": ({"content": "Both are good.\n8 4"}, "expected two scores, but the first line"),
    "one score": ({"content": "8\n4"}, "expected two scores"),
    "three scores": ({"content": "8 4 1"}, "expected two scores"),
    "a range": ({"content": "8/10 4/10"}, "expected two scores"),
    "beyond ten": ({"content": "80 40"}, "scores from 0 to 10"),
    "not a number": ({"content": "nan nan"}, "scores from 0 to 10"),
    "the original's failure": ({"tuple": [-1, -1]}, "scores from 0 to 10, but 'tuple' is"),
    "text for a pair": ({"tuple": "84"}, "expected two scores, but 'tuple' is '84'"),
    "neither": ({}, "expected two scores, but 'tuple' is None"),
    "blank": ({"content": " "}, "'content' must be text"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_reply_without_two_scores_is_never_a_score(folder, case):
    row, reason = BAD[case]
    put_lines(folder / "reviews.jsonl", [{"question_id": 0, **row}, *reviews(SCORES)[1:]])
    with pytest.raises(DataError, match=rf"reviews\.jsonl line 1: .*{reason}"):
        import_reviews(folder)
    found = import_reviews(folder, on_error="skip")
    assert found.overall.n == N - 1
    assert [s.record for s in found.skipped] == ["reviews.jsonl line 1", "reviews.jsonl"]
    assert "no usable review of question 0" in found.skipped[1].reason


def test_missing_repeated_and_foreign_reviews(folder):
    path = folder / "reviews.jsonl"
    put_lines(path, reviews(SCORES)[:-1])
    with pytest.raises(DataError, match="no usable review of question 11"):
        import_reviews(folder)
    put_lines(path, [*reviews(SCORES), reviews(SCORES)[0]])
    with pytest.raises(DataError, match="line 13: reviews question 0 a second time"):
        import_reviews(folder)
    put_lines(path, [*reviews(SCORES), {"question_id": 40, "content": "1 1"}])
    with pytest.raises(DataError, match="line 13: reviews question 40, which was not asked"):
        import_reviews(folder)
    put_lines(path, reviews([(0, 1)] * N))
    with pytest.raises(DataError, match="every reference answer was scored 0"):
        import_reviews(folder)
    path.write_text("")
    with pytest.raises(DataError, match="holds no usable review"):
        import_reviews(folder, on_error="skip")
    path.unlink()
    with pytest.raises(DataError, match="is missing: save the judge's replies there"):
        import_reviews(folder)


def test_requests_can_be_answered_line_by_line(folder):
    """What a user's own script does: replies appended as they come, in any order."""
    path = folder / "reviews.jsonl"
    replies = {row["question_id"]: row for row in reviews(SCORES)}
    lines = [
        json.dumps({**replies[int(request["question_id"])], "image": request["image"]})
        for request in reversed(json_lines(folder / "requests.jsonl"))
    ]
    expected = import_reviews(folder).overall.value
    path.write_text("\n".join(lines))
    assert import_reviews(folder).overall.value == pytest.approx(expected)
