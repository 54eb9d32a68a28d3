"""POPE: the official files as they are, the tables, and what happens to bad records."""

import json
import shutil
import warnings
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import POPE_FILES, encode, json_lines

FIRST = "COCO_val2014_000000310196.jpg"


def load(root, split="random", **options):
    return mechvrp.data.load("pope", root=root, split=split, **options)


# The official files


def test_the_whole_official_splits(make_pope):
    root = make_pope()
    random, adversarial = load(root), load(root, "adversarial")
    for dataset, split in ((random, "random"), (adversarial, "adversarial")):
        assert len(dataset) == 3000
        assert Counter(sample.answer for sample in dataset) == {"yes": 1500, "no": 1500}
        assert set(Counter(dataset.image_ids).values()) == {6}
        assert len(set(dataset.image_ids)) == 500
        assert {(sample.task, sample.split) for sample in dataset} == {("existence", split)}
    assert random.image_ids == adversarial.image_ids
    first = adversarial[0]
    assert first.question == "Is there a snowboard in the image?"
    assert (first.answer, first.image_id) == ("yes", FIRST)
    assert first.meta["question_id"] == "1"
    assert first.image.mode == "RGB"
    assert first.image.size == (8, 6)
    assert adversarial[1].question == "Is there a backpack in the image?"  # a CRLF file


def test_the_order_and_every_field_are_the_files(make_pope):
    dataset = load(make_pope(), "adversarial")
    rows = json_lines(POPE_FILES / "coco_pope_adversarial.json")
    assert [(s.meta["question_id"], s.image_id, s.question, s.answer) for s in dataset] == [
        (str(row["question_id"]), row["image"], row["text"], row["label"]) for row in rows
    ]


@pytest.mark.parametrize("files", ["", "output/coco"])
@pytest.mark.parametrize("images", ["val2014", "images/val2014", ""])
def test_every_layout(make_pope, files, images):
    assert len(load(make_pope(files, images, rows=12))) == 12


def test_images_elsewhere(make_pope, tmp_path):
    root = make_pope(rows=6)
    shutil.move(root / "val2014", tmp_path / "coco")
    with pytest.raises(DataError, match="images_root="):
        load(root)
    assert load(root, images_root=tmp_path / "coco")[0].image.size == (8, 6)


def test_all_splits_need_all_files(make_pope):
    root = make_pope(rows=24)
    with pytest.raises(DataError, match=r"coco_pope_popular\.json.*pass split="):
        load(root, None)
    shutil.copyfile(POPE_FILES / "coco_pope_popular.head24.json", root / "coco_pope_popular.json")
    dataset = load(root, None)
    assert Counter(s.split for s in dataset) == {"random": 24, "popular": 24, "adversarial": 24}
    assert len(set(dataset.image_ids)) == 4


@pytest.mark.parametrize("source", ["aokvqa", "gqa"])
def test_seem_files_are_arrays(tmp_path, source):
    folder = tmp_path / "output" / "seem" / source
    folder.mkdir(parents=True)
    name = f"{source}_pope_seem_random.json"
    shutil.copyfile(POPE_FILES / f"{source}_pope_seem_random.head6.json", folder / name)
    rows = json.loads((folder / name).read_text())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / rows[0]["image"]).write_bytes(encode())
    dataset = load(tmp_path, source=source)
    assert [s.answer for s in dataset] == [row["label"] for row in rows]


def test_an_early_copy_is_warned_about(make_pope):
    root = make_pope()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(root)
    path = root / "coco_pope_random.json"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2910]))
    with pytest.warns(UserWarning, match="2,910"):
        assert len(load(root)) == 2910


def test_the_published_typo_is_corrected_and_kept(make_pope):
    root = make_pope(rows=1)
    row = {"question_id": 1, "imange": FIRST, "label": "YES"}
    row["text"] = "Is there an umbrella in the imange?"
    (root / "coco_pope_random.json").write_text(json.dumps(row))
    sample = load(root)[0]
    assert sample.question == "Is there an umbrella in the image?"
    assert sample.meta["published_question"] == "Is there an umbrella in the imange?"
    assert sample.answer == "yes"


# Bad images


def test_a_missing_image_is_found_at_load(make_pope):
    root = make_pope()
    (root / "val2014" / FIRST).unlink()
    with pytest.raises(DataError, match=rf"line 1 \(random question 1\).*'{FIRST}' is missing"):
        load(root)
    dataset = load(root, on_error="skip")
    assert len(dataset) == 2994
    assert [s.record.split(" (")[0] for s in dataset.skipped] == [
        f"coco_pope_random.json line {n}" for n in range(1, 7)
    ]
    assert all("missing" in s.reason for s in dataset.skipped)
    assert dataset.info["skipped"] == 6


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"not an image", "cannot be decoded"),
        (encode((40, 40))[:-40], "cannot be decoded"),  # cut short
        (encode((40, 50)), r"40 x 50 pixels, more than the 1,999"),
        (encode((30, 30), kind="PNG")[:60], "cannot be decoded"),
    ],
)
def test_a_bad_image_raises_when_opened_or_is_skipped(make_pope, data, reason):
    root = make_pope(rows=12)
    (root / "val2014" / FIRST).write_bytes(data)
    dataset = load(root, max_pixels=1999)
    with pytest.raises(DataError, match=rf"(?s)line 2 \(random question 2\).*{reason}"):
        dataset[1].image
    assert [s.record for s in dataset.check()] == [s.record for s in dataset[:6]]
    with pytest.raises(DataError, match="random question 1"):
        load(root, max_pixels=1999, verify_images=True)
    kept = load(root, max_pixels=1999, on_error="skip")
    assert [s.meta["question_id"] for s in kept] == [str(n) for n in range(7, 13)]
    assert len(kept.skipped) == 6
    assert all(s.image.mode == "RGB" for s in kept)
    assert kept.check() == ()


def test_nothing_is_decoded_at_load(make_pope):
    root = make_pope(rows=6)
    dataset = load(root)
    (root / "val2014" / FIRST).write_bytes(encode((5, 7)))
    assert dataset[0].image.size == (5, 7)
    (root / "val2014" / FIRST).unlink()
    with pytest.raises(DataError, match="random question 1"):
        dataset[0].image


@pytest.mark.parametrize("name", ["../secret.jpg", "val2014/../../secret.jpg", "ABSOLUTE", "link"])
def test_a_path_that_leaves_the_root_is_refused(make_pope, tmp_path, name):
    root = make_pope(rows=6)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encode())
    (root / "val2014" / "link").symlink_to(secret)
    row = {"question_id": 7, "image": str(secret) if name == "ABSOLUTE" else name}
    row |= {"text": "Is there a key in the image?", "label": "no"}
    with (root / "coco_pope_random.json").open("a") as file:
        file.write(json.dumps(row))
    with pytest.raises(DataError, match=r"random question 7\).*leaves the folder"):
        load(root)
    dataset = load(root, on_error="skip")
    assert (len(dataset), len(dataset.skipped)) == (6, 1)


def test_a_link_inside_the_root_is_fine(make_pope):
    root = make_pope(rows=6)
    (root / "val2014" / FIRST).rename(root / "real.jpg")
    (root / "val2014" / FIRST).symlink_to(root / "real.jpg")
    assert load(root)[0].image.size == (8, 6)


# Bad records

BAD_LINES = {
    "not JSON": b'{"question_id": 1, "image": ',
    "not an object": b"[1, 2]",
    "not UTF-8": b'{"question_id": 1, "text": "\xff"}',
    "too deep": b"{" + b'"a":[' * 100_000,
    "no image": b'{"question_id": 1, "text": "q", "label": "yes"}',
    "no question": b'{"question_id": 1, "image": "a.jpg", "label": "yes"}',
    "empty question": b'{"question_id": 1, "image": "a.jpg", "text": " ", "label": "yes"}',
    "no label": b'{"question_id": 1, "image": "a.jpg", "text": "q"}',
    "bad label": b'{"question_id": 1, "image": "a.jpg", "text": "q", "label": "maybe"}',
    "label of another type": b'{"question_id": 1, "image": "a.jpg", "text": "q", "label": true}',
    "no question_id": b'{"image": "a.jpg", "text": "q", "label": "yes"}',
    "image of another type": b'{"question_id": 1, "image": 5, "text": "q", "label": "yes"}',
    "null byte": b'{"question_id": 1, "image": "a\\u0000.jpg", "text": "q", "label": "yes"}',
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_malformed_record_is_named_by_file_and_line(make_pope, line):
    root = make_pope(rows=6)
    path = root / "coco_pope_random.json"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(DataError, match=r"^coco_pope_random\.json line 4"):
        load(root)
    dataset = load(root, on_error="skip")
    assert [s.meta["question_id"] for s in dataset] == list("123456")
    assert len(dataset.skipped) == 1


@example(bad={0: "not an object"})  # looks like an array of its own
@given(bad=st.dictionaries(st.integers(0, 23), st.sampled_from(sorted(BAD_LINES)), max_size=12))
def test_skipping_loses_exactly_the_bad_records(tmp_path_factory, bad):
    root = tmp_path_factory.mktemp("pope")
    lines = (POPE_FILES / "coco_pope_popular.head24.json").read_bytes().split(b"\n")[:24]
    for line in lines:
        (root / json.loads(line)["image"]).write_bytes(encode())
    mixed = [BAD_LINES[bad[i]] if i in bad else line for i, line in enumerate(lines)]
    (root / "coco_pope_popular.json").write_bytes(b"\n".join(mixed))
    dataset = load(root, "popular", on_error="skip")
    assert [int(s.meta["question_id"]) - 1 for s in dataset] == sorted(set(range(24)) - set(bad))
    assert len(dataset.skipped) == len(bad)


def test_a_damaged_array_has_no_records_to_skip(tmp_path):
    (tmp_path / "coco_pope_random.json").write_text('[{"question_id": 1}, {"quest')
    with pytest.raises(DataError, match="not a JSON array"):
        load(tmp_path, on_error="skip")


def test_nothing_left_is_an_error_that_tells_why(make_pope):
    root = make_pope(rows=6)
    (root / "val2014" / FIRST).unlink()
    with pytest.raises(DataError, match=r"no samples \(6 records were skipped.*missing"):
        load(root, on_error="skip")


# The limit


def test_a_limit_draws_by_seed_keeps_order_and_nests(make_pope):
    root = make_pope()

    def ids(**options):
        return [int(s.meta["question_id"]) for s in load(root, **options)]

    hundred = ids(limit=100)
    assert len(hundred) == 100
    assert hundred == sorted(hundred) == ids(limit=100)
    assert hundred != ids(limit=100, seed=1)
    assert set(ids(limit=40)) < set(hundred)
    assert len(ids(limit=10**6)) == 3000


def test_a_limit_is_filled_past_bad_images(make_pope):
    root = make_pope(rows=24)
    (root / "val2014" / FIRST).write_bytes(b"damaged")
    assert len(load(root, limit=18, on_error="skip")) == 18


# Parquet

ROWS = [
    {
        "id": str(index),
        "question_id": str(number),
        "question": f"Is there a {thing} in the imange?",
        "answer": "yes",
        "image_source": f"COCO_val2014_{number:012d}",
        "category": category,
    }
    for index, (category, number, thing) in enumerate(
        (category, number, thing)
        for category in ("adversarial", "popular", "random")
        for number, thing in ((1, "dog"), (2, "cat"))
    )
]


def write_table(path, rows, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist([{**r, "image": i} for r, i in zip(rows, images, strict=True)]), path
    )


def stored(row):
    """An image whose width tells its number."""
    number = int(row["question_id"])
    return {"bytes": encode((number, 9)), "path": None}


def test_tables_with_bytes(tmp_path):
    write_table(tmp_path / "data" / "test-00000.parquet", ROWS, map(stored, ROWS))
    dataset = load(tmp_path, None)
    assert Counter(s.split for s in dataset) == {"adversarial": 2, "popular": 2, "random": 2}
    assert set(dataset.image_ids) == {f"COCO_val2014_{n:012d}.jpg" for n in (1, 2)}
    assert [s.image.size for s in dataset] == [(1, 9), (2, 9)] * 3
    # One object for the three copies of an image.
    assert len({id(s._image.data) for s in dataset}) == 2
    assert [s.question for s in load(tmp_path, "popular")] == [
        "Is there a dog in the image?",
        "Is there a cat in the image?",
    ]
    assert dataset.info["layout"] == "parquet"


def test_tables_with_paths(tmp_path):
    (tmp_path / "val2014").mkdir()
    paths = [{"bytes": None, "path": r["image_source"] + ".jpg"} for r in ROWS]
    write_table(tmp_path / "test.parquet", ROWS, paths)
    for row in ROWS:
        (tmp_path / "val2014" / f"{row['image_source']}.jpg").write_bytes(stored(row)["bytes"])
    assert [s.image.size for s in load(tmp_path, "random")] == [(1, 9), (2, 9)]
    (tmp_path / "val2014" / f"{ROWS[0]['image_source']}.jpg").unlink()
    dataset = load(tmp_path, "random", on_error="skip")
    assert [s.record for s in dataset.skipped] == ["test.parquet row 5 (random question 1)"]


def test_two_configurations_side_by_side_are_not_read_twice(tmp_path):
    write_table(tmp_path / "data" / "test-00000.parquet", ROWS, map(stored, ROWS))
    for category in ("adversarial", "popular", "random"):
        rows = [row for row in ROWS if row["category"] == category]
        write_table(tmp_path / "Full" / f"{category}-00000.parquet", rows, map(stored, rows))
    assert len(load(tmp_path, None)) == 6
    assert len(load(tmp_path, "random")) == 2


def test_a_table_without_categories_is_of_the_split_in_its_name(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "category"} for row in ROWS[:2]]
    write_table(tmp_path / "Full" / "popular-00000-of-00001.parquet", rows, map(stored, rows))
    assert [s.split for s in load(tmp_path, None)] == ["popular", "popular"]
    with pytest.raises(DataError, match="no rows of POPE's random"):
        load(tmp_path, "random")


def test_a_repeated_key_is_refused(tmp_path):
    rows = [*ROWS, ROWS[0]]
    write_table(tmp_path / "test.parquet", rows, map(stored, rows))
    with pytest.raises(DataError, match=r"row 7: adversarial question 1 was already .* row 1"):
        load(tmp_path, None)
    assert len(load(tmp_path, None, on_error="skip")) == 6


def test_damaged_bytes_in_a_table_are_skipped(tmp_path):
    images = [stored(row) for row in ROWS]
    images[2] = {"bytes": b"damaged", "path": None}
    write_table(tmp_path / "test.parquet", ROWS, images)
    dataset = load(tmp_path, None, on_error="skip")
    assert len(dataset) == 5
    assert dataset.skipped[0].record == "test.parquet row 3 (popular question 1)"


def test_a_damaged_table(tmp_path):
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"cannot read .*test\.parquet as Parquet"):
        load(tmp_path)


# Arguments


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "all"}, "splits random, popular, adversarial"),
        ({"source": "vg"}, "sources coco, aokvqa, gqa"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"limit": 0}, "limit"),
    ],
)
def test_arguments_are_checked(make_pope, options, named):
    with pytest.raises(DataError, match=named):
        load(make_pope(rows=6), **options)
