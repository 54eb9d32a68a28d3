"""One's own tables: the three formats alike, values as they stand, bad records by line."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import encode

ROWS = [
    {"image": "a.jpg", "question": "How many?", "answer": "007", "task": "counting", "split": "x"},
    {"image": "sub/b.png", "question": 'Is "it" red, or\nblue?', "answer": "None", "split": "y"},
    {
        "image": "a.jpg",
        "question": "Où?",
        "answer": "NA",
        "image_id": "12",
        "source": "mine",
        "record": "r",
    },
]
COLUMNS = ("image", "question", "answer", "image_id", "task", "split", "source", "record")


def write_csv(path, rows, columns=COLUMNS, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    full = [
        {name: row.get(name) for name in dict.fromkeys(k for r in rows for k in r)} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(full), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def load(root, **options):
    return mechvrp.data.load("folder", root=root, **options)


def described(dataset):
    return [(s.image_id, s.question, s.answer, s.task, s.split) for s in dataset]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode((3, 4)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.png").write_bytes(encode((5, 6), kind="PNG"))
    return tmp_path


@pytest.mark.parametrize("kind", WRITERS)
def test_the_three_formats_say_the_same(folder, kind):
    WRITERS[kind](folder / f"metadata.{kind}", ROWS)
    dataset = load(folder)
    assert described(dataset) == [
        ("a.jpg", "How many?", "007", "counting", "x"),
        ("sub/b.png", 'Is "it" red, or\nblue?', "None", "vqa", "y"),
        ("12", "Où?", "NA", "vqa", ""),
    ]
    assert dataset[2].meta == {"source": "mine", "record": "r"}
    assert dataset[2].record.startswith(f"metadata.{kind} ")
    assert [s.image.size for s in dataset] == [(3, 4), (5, 6), (3, 4)]
    assert described(load(folder / f"metadata.{kind}")) == described(dataset)
    assert described(load(folder, split="y")) == described(dataset)[1:2]
    assert load(folder, task="mine")[1].task == "mine"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_numbers_become_strings(folder, kind):
    row = {"image": "a.jpg", "question": "q", "answer": 3, "image_id": 7}
    WRITERS[kind](folder / f"metadata.{kind}", [row])
    assert (load(folder)[0].answer, load(folder)[0].image_id) == ("3", "7")


def test_a_json_array_and_a_byte_order_mark(folder):
    path = folder / "questions.json"
    path.write_text("\ufeff" + json.dumps(ROWS, indent=2), encoding="utf-8")
    assert len(load(path)) == 3
    write_csv(folder / "metadata.csv", ROWS, encoding="utf-8-sig")
    assert described(load(folder)) == described(load(path))


def test_file_name_and_named_columns(folder):
    write_jsonl(folder / "a.jsonl", [{"file_name": "a.jpg", "question": "q", "answer": "x"}])
    assert load(folder / "a.jsonl")[0].image_id == "a.jpg"
    write_jsonl(folder / "b.jsonl", [{"img": "a.jpg", "text": "q", "label": "x", "answer": "no"}])
    columns = {"image": "img", "question": "text", "answer": "label"}
    sample = load(folder / "b.jsonl", columns=columns)[0]
    assert (sample.question, sample.answer, sample.meta["answer"]) == ("q", "x", "no")
    with pytest.raises(
        DataError, match=r"no column 'file_name', 'question'.*it has \['answer', 'img"
    ):
        load(folder / "b.jsonl")
    with pytest.raises(DataError, match=r"fields \['label'\].*image, question, answer"):
        load(folder / "b.jsonl", columns={"label": "label"})
    with pytest.raises(DataError, match="no column 'typo'"):
        load(folder / "b.jsonl", columns={**columns, "task": "typo"})


def test_two_names_of_one_image_are_one_image(folder):
    (folder / "again.jpg").symlink_to(folder / "a.jpg")
    names = ("a.jpg", "./a.jpg", "sub//b.png", "again.jpg")
    write_jsonl(
        folder / "metadata.jsonl", [{"image": n, "question": "q", "answer": "x"} for n in names]
    )
    assert load(folder).image_ids == ("a.jpg", "a.jpg", "sub/b.png", "a.jpg")


def test_images_inside_a_table(folder):
    data = encode((9, 9))
    rows = [
        {"image": {"bytes": data, "path": "x.jpg"}, "question": "q", "answer": "x"},
        {"image": {"bytes": None, "path": "a.jpg"}, "question": "q", "answer": "x"},
        {"image": {"bytes": data, "path": "y.jpg"}, "question": "q", "answer": "x"},
    ]
    write_parquet(folder / "metadata.parquet", rows)
    dataset = load(folder)
    assert [s.image.size for s in dataset] == [(9, 9), (3, 4), (9, 9)]
    assert dataset.image_ids[0] == dataset.image_ids[2] != dataset.image_ids[1]


# Bad records

GOOD = {"image": "a.jpg", "question": "q", "answer": "x"}
BAD = {
    "no question": ({**GOOD, "question": None}, "question .* is missing"),
    "blank answer": ({**GOOD, "answer": " "}, "answer .* is missing"),
    "missing image": ({**GOOD, "image": "c.jpg"}, "'c.jpg' is missing"),
    "outside": ({**GOOD, "image": "../c.jpg"}, "leaves the folder"),
    "a folder": ({**GOOD, "image": "sub"}, "'sub' is missing"),
}
BAD_JSON = {
    **BAD,
    "list of answers": ({**GOOD, "answer": ["x"]}, r"must be text or a number, got list \['x'\]"),
    "number for a file": ({**GOOD, "image": 3}, "name of an image file, got 3"),
    "not a number": ({**GOOD, "answer": float("nan")}, "answer .* is missing"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_bad_json_record_is_named(folder, case):
    row, reason = BAD_JSON[case]
    write_jsonl(folder / "metadata.jsonl", [GOOD, row, GOOD])
    with pytest.raises(DataError, match=rf"^metadata\.jsonl line 2: .*{reason}"):
        load(folder)
    dataset = load(folder, on_error="skip")
    assert (len(dataset), [s.record for s in dataset.skipped]) == (2, ["metadata.jsonl line 2"])


@pytest.mark.parametrize("case", BAD)
def test_a_bad_csv_record_is_named_by_its_line(folder, case):
    row, reason = BAD[case]
    # The record before it spans two lines of the file.
    rows = [{**GOOD, "question": "two\nlines"}, row, GOOD]
    write_csv(folder / "metadata.csv", rows, columns=("image", "question", "answer"))
    with pytest.raises(DataError, match=rf"^metadata\.csv line 4: .*{reason}"):
        load(folder)
    assert len(load(folder, on_error="skip")) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.jpg,q", "has 2 values under 3 columns"),
        (b"a.jpg,q,x,y", "has 4 values"),
        (b"a.jpg,\xff,x", "not UTF-8"),
        (b'a.jpg,"q"z,x', "is not CSV"),
    ],
)
def test_a_malformed_csv_line_costs_only_itself(folder, line, reason):
    lines = [b"image,question,answer", b"a.jpg,q,x", line, b"a.jpg,q,y", b""]
    (folder / "metadata.csv").write_bytes(b"\r\n".join(lines))
    with pytest.raises(DataError, match=rf"^metadata\.csv line 3: .*{reason}"):
        load(folder)
    dataset = load(folder, on_error="skip")
    assert [s.answer for s in dataset] == ["x", "y"]
    assert len(dataset.skipped) == 1


def test_an_unpaired_quote_names_the_lines_it_swallows(folder):
    text = 'image,question,answer\na.jpg,q,x\na.jpg,"q,x\na.jpg,q,x\n'
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=r"metadata\.csv lines 3-4: is not CSV.*quotation mark"):
        load(folder)
    assert len(load(folder, on_error="skip")) == 1


def test_what_the_root_must_hold(folder):
    with pytest.raises(DataError, match=r"exactly one of metadata\.jsonl.*holds none"):
        load(folder)
    for kind in ("csv", "jsonl"):
        WRITERS[kind](folder / f"metadata.{kind}", ROWS)
    with pytest.raises(DataError, match=r"holds metadata\.jsonl, metadata\.csv"):
        load(folder)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"ending in \.jsonl"):
        load(folder / "notes.txt")
    (folder / "empty.csv").write_text("")
    with pytest.raises(DataError, match="header"):
        load(folder / "empty.csv")
    (folder / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no usable record"):
        load(folder / "empty.jsonl")


def test_an_unknown_split_lists_the_ones_there_are(folder):
    write_jsonl(folder / "metadata.jsonl", ROWS)
    with pytest.raises(DataError, match="no record of split 'z'; it names x, y"):
        load(folder, split="z")


# Any text survives the way through a file

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@given(
    rows=st.lists(st.tuples(text, text), min_size=1, max_size=8),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_any_text_comes_back_as_written(tmp_path_factory, rows, kind):
    folder = tmp_path_factory.mktemp("folder")
    (folder / "a.jpg").write_bytes(encode())
    records = [{"image": "a.jpg", "question": q, "answer": a} for q, a in rows]
    if kind == "csv":
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, ("image", "question", "answer"))
        writer.writeheader()
        writer.writerows(records)
        (folder / "metadata.csv").write_bytes(buffer.getvalue().encode())
    else:
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        (folder / "metadata.jsonl").write_bytes("\n".join(lines).encode())
    assert [(s.question, s.answer) for s in load(folder)] == rows
