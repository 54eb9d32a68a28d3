"""Tables and their records: every reader, and the arguments of ``mechvrp.data.load``."""

from __future__ import annotations

import io
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mechvrp import data
from tests.bad_input.rows import DEEP, ROW, Bad, Place, bad, encoded, lines, table

__all__ = ["ROWS"]


def field(name: str, value: Any) -> Any:
    return table([{**ROW, name: value}])


def parquet(**columns: Any) -> Any:
    return table(
        _parquet({"image": ["a.png"], "question": ["q"], "answer": ["a"], **columns}),
        "metadata.parquet",
    )


def _parquet(columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns) if isinstance(columns, dict) else columns, buffer)
    return buffer.getvalue()


def csv(text: str | bytes) -> Any:
    return table(text, "metadata.csv")


def of(name: str, files: dict[str, Any], images: tuple[str, ...], **options: Any) -> Any:
    """Loads a benchmark from these files and images."""

    def load(place: Place) -> Any:
        for file, content in files.items():
            place.put(f"data/{file}", content)
        for image in images:
            place.put(f"data/{image}", encoded())
        return data.load(name, root=place.tmp / "data", **options)

    return load


AOKVQA = {
    "split": "val", "image_id": 1, "question_id": "x", "question": "q?", "choices": ["a", "b"],
    "correct_choice_idx": 0, "direct_answers": ["a"] * 10, "difficult_direct_answer": False, "rationales": [],
}  # fmt: skip


def aokvqa(changes: dict[str, Any], **options: Any) -> Any:
    files = {"aokvqa_v1p0_val.json": [{**AOKVQA, **changes}]}
    return of("aokvqa", files, ("val2017/000000000001.jpg",), split="val", **options)


ASKED = {"image_id": 1, "question": "q?", "question_id": 1}
ANSWERED = {
    "question_type": "x", "multiple_choice_answer": "a", "image_id": 1, "answer_type": "other", "question_id": 1,
    "answers": [{"answer": "a", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)],
}  # fmt: skip


def vqa(asked: Any = None, answered: Any = None) -> Any:
    files = {
        "v2_OpenEnded_mscoco_val2014_questions.json": asked or {"questions": [ASKED]},
        "v2_mscoco_val2014_annotations.json": answered or {"annotations": [ANSWERED]},
    }
    return of("vqav2", files, ("val2014/COCO_val2014_000000000001.jpg",), split="val2014")


def gqa(changes: dict[str, Any], raw: Any = None) -> Any:
    row = {"question": "q?", "imageId": "1", "answer": "a", "types": {"semantic": "rel"}, **changes}
    return of("gqa", {"testdev_balanced_questions.json": raw or {"1": row}}, ("images/1.jpg",))


def scienceqa(changes: dict[str, Any], splits: Any = None) -> Any:
    row = {
        "question": "q?",
        "choices": ["a", "b"],
        "answer": 0,
        "hint": "",
        "image": "image.png",
        "split": "test",
    }
    files = {
        "problems.json": {"4": {**row, **changes}},
        "pid_splits.json": splits or {"test": ["4"]},
    }
    return of("scienceqa", files, ("images/test/4/image.png",), split="test")


def counting(answer: Any) -> Any:
    rows = [{"image_id": "a", "question": "How many?", "answer": answer}]
    return of("counting", {"counting.json": rows}, ("a.jpg",))


def vsr(changes: dict[str, Any], **options: Any) -> Any:
    row = {"image": "a.png", "caption": "c", "label": 1, "relation": "r", **changes}
    return of(
        "spatial", {"test.jsonl": lines(row)}, ("a.png",), source="vsr", split="test", **options
    )


def pope(changes: dict[str, Any], *more: Any) -> Any:
    row = {"question_id": 1, "image": "a.png", "text": "q?", "label": "yes", **changes}
    return of("pope", {"coco_pope_random.json": lines(row, *more)}, ("a.png",), split="random")


def pope_table(image: Any) -> Any:
    row = {
        "category": "random",
        "question_id": "1",
        "question": "q?",
        "answer": "yes",
        "image_source": "a",
    }
    columns = {name: [value] for name, value in {**row, "image": image}.items()}
    return of("pope", {"data/x.parquet": _parquet(columns)}, (), split="random")


def llava(changes: dict[str, Any], **files: Any) -> Any:
    row = {"question_id": 1, "image": "a.png", "category": "conv", "text": "q?", **changes}
    return of(
        "llava-bench",
        {"questions.jsonl": lines(row), **{f"{k}.jsonl": v for k, v in files.items()}},
        ("a.png",),
    )


def review(**row: Any) -> Any:
    def load(place: Place) -> Any:
        asked = {"question_id": 1, "image": "a", "category": "conv"}
        place.put("judged/requests.jsonl", lines(asked))
        place.put("judged/reviews.jsonl", lines({"question_id": 1, **row}))
        return data.import_reviews(place.tmp / "judged")

    return load


def pipe(place: Place) -> Any:
    (place.tmp / "data").mkdir()
    os.mkfifo(place.tmp / "data" / "metadata.jsonl")
    return data.load("folder", root=place.tmp / "data" / "metadata.jsonl")


def pipe_inside(place: Place) -> Any:
    pipe_path = place.put("data/a.png", encoded()).with_name("metadata.jsonl")
    os.mkfifo(pipe_path)
    return data.load("folder", root=place.tmp / "data")


def one_of_a_thousand(place: Place) -> Any:
    rows = [{**ROW, "question": f"question {i}?"} for i in range(1000)]
    rows[617] = {**ROW, "question": None}
    return table(rows)(place)


_HEAD = "image,question,answer\n"
_BROKEN_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)

ROWS: list[Bad] = [
    # one table, its bytes
    bad("an empty table", table(""), "holds no usable record"),
    bad("NUL bytes for a table", table(b"\0" * 100), "line 1: not a JSON object"),
    bad("a table in Latin-1", table('{"image":"a.png","question":"é","answer":"a"}'.encode("latin1")), "not a JSON object"),
    bad("nesting without end in a line", table(DEEP), "not a JSON object"),
    bad("nesting without end in an array", table("[" * 100_000), "is not a JSON array"),
    bad("half an array", table('[{"image": "a.png"'), "is not a JSON array"),
    bad("a list in a line", table("[1]\n{}"), "expected a JSON object, got list"),
    bad("a field given twice", table('{"image":"a.png","question":"q","answer":"a","answer":"b"}'), "'answer' comes twice"),
    bad("a number of 5,000 digits", table('{"image":"a.png","question":"q","answer":' + "9" * 5000 + "}"), "not a JSON object"),
    bad("one bad record in a thousand", one_of_a_thousand, "metadata.jsonl line 618: question"),
    bad("a table that is a pipe", pipe_inside, "must hold exactly one of metadata.jsonl"),
    bad("a root that is a pipe", pipe, "must hold exactly one of metadata.jsonl"),
    bad("two tables", lambda p: (p.put("data/metadata.csv", _HEAD), table()(p)), "must hold exactly one of"),
    bad("a table of another kind", lambda p: data.load("folder", root=p.put("t.xlsx", b"PK")), "expected a file ending in"),
    # one record
    bad("no question", table([{"image": "a.png", "answer": "a"}]), "has no column 'question'"),
    bad("a blank question", field("question", "  "), "question (column 'question') is missing or empty"),
    bad("a list for a question", field("question", ["q"]), "must be text or a number, got list"),
    bad("null for an answer", field("answer", None), "answer (column 'answer') is missing or empty"),
    bad("NaN for an answer", field("answer", float("nan")), "answer (column 'answer') is missing or empty"),
    bad("infinity for an answer", table('{"image":"a.png","question":"q","answer":1e999}'), "must be text or a number, got float inf"),
    bad("an object for an answer", field("answer", {"a": 1}), "must be text or a number, got dict"),
    bad("a list for an image id", field("image_id", [1]), "image_id (column 'image_id') must be text"),
    bad("an object for a task", field("task", {}), "task (column 'task') must be text"),
    bad("a list for a split", field("split", ["a"]), "split (column 'split') must be text"),
    bad("a number for an image", field("image", 3), "expected the name of an image file, got 3"),
    bad("a list for an image", field("image", ["a.png"]), "expected the name of an image file"),
    # CSV
    bad("an empty CSV file", csv(""), "expected a header of distinct column names"),
    bad("a CSV header with a name twice", csv("image,image,question\n"), "expected a header of distinct column names"),
    bad("semicolons for commas", csv("image;question;answer\na.png;q;a\n"), "has no column"),
    bad("a quotation mark without its other", csv(_HEAD + 'a.png,"q,a\n'), "is not CSV"),
    bad("a CSV row too long", csv(_HEAD + "a.png,q,a,b\n"), "has 4 values under 3 columns"),
    bad("a CSV row in Latin-1", csv((_HEAD + "a.png,é,a\n").encode("latin1")), "is not UTF-8 text"),
    bad("a CSV file in UTF-16", csv((_HEAD + "a.png,q,a\n").encode("utf-16")), "values under 3 columns"),
    bad("a CSV cell of 200,000 signs", csv(_HEAD + "a.png," + "q" * 200_000 + ",a\n"), "field larger than field limit"),
    # Parquet
    bad("Parquet that is none", table(b"PAR1" + b"\0" * 40 + b"PAR1", "metadata.parquet"), "as Parquet"),
    bad("a Parquet file cut off", table(_parquet({"image": ["a"]})[:-9], "metadata.parquet"), "as Parquet"),
    bad("a Parquet file without rows", table(_parquet({"image": pa.array([], pa.string())}), "metadata.parquet"), "holds no usable record"),
    bad("a date beyond the calendar", parquet(t=pa.array([2**62], pa.timestamp("us"))), "as Parquet: date value out of range"),
    bad("text that is not UTF-8 in Parquet", parquet(t=_BROKEN_TEXT), "as Parquet: 'utf-8' codec"),
    bad("bytes for a question", parquet(question=pa.array([b"\xff"], pa.binary())), "must be text or a number, got bytes"),
    bad("Parquet columns of one name", table(_parquet(pa.Table.from_arrays([pa.array(["a"])] * 4, ["image", "image", "question", "answer"])), "metadata.parquet"), "exists 2 times in schema"),
    # arguments
    *(
        bad(f"{name}={value!r}", table(**{name: value}), says)
        for name, value, says in (
            ("limit", 0, "limit must be None or a whole number"),
            ("limit", 1.5, "limit must be None or a whole number"),
            ("limit", True, "limit must be None or a whole number"),
            ("seed", "a", "seed must be a whole number"),
            ("on_error", "ignore", "on_error must be 'raise' or 'skip'"),
            ("split", 3, "split= must be text, got 3"),
            ("split", "nope", "has no record of split 'nope'"),
            ("task", 3, "task= must be text, got 3"),
            ("columns", "image", "columns= says which column"),
            ("columns", {"image": ["a"]}, "columns['image'] must be text"),
            ("columns", {"picture": "a"}, "columns= names fields ['picture']"),
            ("images_root", 3, "images_root= is text or a Path; got 3"),
            ("images_root", "/nowhere", "'a.png' is missing"),
            ("verify_images", "no", "verify_images must be True, False or None"),
            ("max_pixels", 0, "max_pixels must be a whole number"),
            ("max_pixel", 5, "did you mean 'max_pixels'?"),
        )
    ),
    *(
        bad(f"root={root!r:.20}", lambda p, root=root: data.load("folder", root=root), says)
        for root, says in (
            (None, "needs root="), (3, "root= is text or a Path; got 3"), (b"x", "root= is text or a Path"),
            ("", "root= is empty"), ("a\0b", "holds a NUL character"), ("a" * 9999, "File name too long"),
            ("\ud800", "surrogates not allowed"), ("/nowhere", "does not exist"),
        )
    ),
    *(
        bad(f"a dataset called {name!r}", lambda p, name=name: data.load(name), says)
        for name, says in (
            (None, "the name of a dataset must be text"), (["pope"], "the name of a dataset must be text"),
            ("popes", "did you mean 'pope'?"), ("", "there is no dataset ''"), ("../pope", "there is no dataset"),
        )
    ),
    bad("scenes without end", lambda p: data.load("scenes", limit=10**12), "at most 10,000,000"),
    bad("scenes of another split", lambda p: data.load("scenes", split="advers"), "the splits are"),
    bad("scenes from files", lambda p: data.load("scenes", root=p.tmp), "reads no files"),
    bad("a negative seed of scenes", lambda p: data.load("scenes", limit=3, seed=-1), "must not be negative"),
    # benchmarks
    bad("A-OKVQA: a call for direct answers", aokvqa({"direct_answers": "__import__('os').getcwd()"}, task="direct-answer"), "is no list of texts"),
    bad("A-OKVQA: a set that cannot be", aokvqa({"direct_answers": "{[]: 1}"}, task="direct-answer"), "is no list of texts"),
    bad("A-OKVQA: brackets without end", aokvqa({"direct_answers": "[" * 10_000}, task="direct-answer"), "is no list of texts"),
    bad("A-OKVQA: a right choice beyond the choices", aokvqa({"correct_choice_idx": 2}), "from 0 below 2, got 2"),
    bad("A-OKVQA: thirty choices", aokvqa({"choices": [str(i) for i in range(30)]}), "expected 2 to 26 choices, got 30"),
    bad("A-OKVQA: the test split", lambda p: data.load("aokvqa", root=p.tmp, split="test"), "has no public answers"),
    bad("VQAv2: a list on top", vqa(asked="[]"), "expected one JSON object, got list"),
    bad("VQAv2: NaN for a question", vqa(asked='{"questions":[NaN]}'), "expected a JSON object, got float"),
    bad("VQAv2: nesting without end", vqa(asked=DEEP), "is not sound JSON"),
    bad("VQAv2: answers that are texts", vqa(answered={"annotations": [{**ANSWERED, "answers": ["a"] * 10}]}), "answers[0] has no text under 'answer'"),
    bad("VQAv2: another image in the annotation", vqa(answered={"annotations": [{**ANSWERED, "image_id": 2}]}), "image"),
    bad("VQAv2: a question without annotation", vqa(answered={"annotations": [{**ANSWERED, "question_id": 2}]}), "question 1 has no annotation"),
    bad("GQA: an image id that climbs", gqa({"imageId": "../1"}), "leaves the folder"),
    bad("GQA: types that are a list", gqa({"types": []}), "'types' must be an object"),
    bad("GQA: a blank question id", gqa({}, {"": {"question": "q", "imageId": "1", "answer": "a", "types": {}}}), "'question_id' must be text"),
    bad("GQA: a list for a split", lambda p: data.load("gqa", root=p.tmp, split=["x"]), "split= must be text"),
    bad("ScienceQA: a split that climbs", scienceqa({"split": "../test"}), "leaves the folder"),
    bad("ScienceQA: a hint that is a list", scienceqa({"hint": ["x"]}), "'hint' must be text"),
    bad("ScienceQA: an answer that is a letter", scienceqa({"answer": "A"}), "'answer' must be a whole number"),
    bad("ScienceQA: splits that are a list", scienceqa({}, splits=["4"]), "expected one JSON object"),
    bad("ScienceQA: a problem that is not there", scienceqa({}, splits={"test": ["5"]}), "problem 5 is not in problems.json"),
    bad("counting: -3", counting("-3"), "must be a whole number"),
    bad("counting: a number with an exponent", counting(1e300), "must be a whole number"),
    bad("counting: three hundred", counting("three hundred"), "must be a whole number"),
    bad("counting: a half", counting("½"), "must be a whole number"),
    bad("VSR: a label of True", vsr({"label": True}), "from 0 below 2, got True"),
    bad("VSR: a template without a place", vsr({}, template="Is it true?"), "template must hold '{caption}'"),
    bad("VSR: a template that is a number", vsr({}, template=3), "template must hold '{caption}'"),
    bad("POPE: a question id that is a list", pope({"question_id": [1]}), "expected the question_id as text"),
    bad("POPE: maybe", pope({"label": "maybe"}), "expected the label 'yes' or 'no', got 'maybe'"),
    bad("POPE: no text", pope({"text": None}), "expected a question, got None"),
    bad("POPE: an image that climbs", pope({"image": "../a.png"}), "leaves the folder"),
    bad("POPE: text for an image's bytes", pope_table({"bytes": "/etc/hostname"}), "not bytes"),
    bad("POPE: a path that climbs in a table", pope_table({"path": "../../etc/hostname"}), "leaves the folder"),
    bad("LLaVA-Bench: another category", llava({"category": "chat"}), "'category' must be one of"),
    bad("LLaVA-Bench: a caption that is a number", llava({}, context=lines({"image": "a.png", "caption": 3})), "'caption' must be text"),
    bad("hub: a file that is no Parquet", lambda p: (p.put("h/x.parquet", b"junk"), data.load("hub", root=p.tmp / "h", cache_dir=p.tmp / "cache")), "datasets cannot load"),
    bad("hub: a script", lambda p: (p.put("h/load.py", "raise SystemExit(3)"), data.load("hub", root=p.tmp / "h", cache_dir=p.tmp / "cache")), "datasets cannot load"),
    bad("hub: splits that climb", lambda p: (p.put("h/dataset_dict.json", {"splits": ["../../x"]}), data.load("hub", root=p.tmp / "h", cache_dir=p.tmp / "cache")), "datasets cannot load"),
    # reviews
    *(
        bad(f"a review of {content!r}", review(content=content), says)
        for content, says in (
            ("", "'content' must be text"), ("7", "expected two scores"), ("7 8 9", "expected two scores"),
            ("nan 8", "two scores from 0 to 10"), ("1e400 3", "two scores from 0 to 10"), ("11 3", "two scores from 0 to 10"),
            ("0 3", "every reference answer was scored 0"), ([7, 8], "'content' must be text"),
        )
    ),
    bad("a review of true and 8", review(tuple=[True, 8]), "expected two scores"),
    bad("a review of nothing asked", review(question_id=2, content="7 8"), "which was not asked"),
]  # fmt: skip
