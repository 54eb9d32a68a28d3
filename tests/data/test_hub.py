"""Datasets of the datasets library: by their columns, pictures left where they are."""

import pickle
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest

import mechvrp.data
from mechvrp.errors import DataError

from .conftest import encode, put_images, put_lines

datasets = pytest.importorskip("datasets")

PICTURES = (encode((3, 4)), encode((5, 6), (0, 0, 9), "PNG"))


def table(**more):
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "number": datasets.Value("int64"),
            "source": datasets.Value("string"),
            **{name: feature for name, (feature, _) in more.items()},
        }
    )
    rows = {
        "picture": [{"bytes": PICTURES[n % 2], "path": "same.jpg"} for n in range(3)],
        "text": ["Is it red?", "Is it blue?", "Is it big?"],
        "label": [1, 0, 1],
        "number": [7, 8, 9],
        "source": ["x", None, "z"],
        **{name: values for name, (_, values) in more.items()},
    }
    return datasets.Dataset.from_dict(rows, features=features)


COLUMNS = {"image": "picture", "question": "text", "answer": "label"}


def load(root, **options):
    options.setdefault("columns", COLUMNS)
    return mechvrp.data.load("hub", root=root, **options)


@pytest.fixture
def saved(tmp_path):
    table().save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_dataset(saved):
    dataset = load(saved)
    assert [(s.question, s.answer, s.task) for s in dataset] == [
        ("Is it red?", "yes", "vqa"),
        ("Is it blue?", "no", "vqa"),
        ("Is it big?", "yes", "vqa"),
    ]
    assert [s.image.size for s in dataset] == [(3, 4), (5, 6), (3, 4)]
    # Identity is the picture's, not its name's.
    first, second, third = dataset.image_ids
    assert first == third != second
    assert dataset[1].meta == {"number": 8, "source": None}
    assert dataset.check() == ()
    copy = pickle.loads(pickle.dumps(dataset[1]))
    assert copy.image.size == (5, 6)


def test_named_fields(saved):
    columns = {**COLUMNS, "answer": "number", "image_id": "text"}
    dataset = load(saved, columns=columns, task="counting")
    assert [(s.answer, s.image_id, s.task) for s in dataset] == [
        ("7", "Is it red?", "counting"),
        ("8", "Is it blue?", "counting"),
        ("9", "Is it big?", "counting"),
    ]


def test_limit_and_splits(tmp_path):
    both = datasets.DatasetDict({"train": table(), "test": table().select([1])})
    both.save_to_disk(str(tmp_path / "both"))
    dataset = load(tmp_path / "both")
    assert [s.split for s in dataset] == ["train", "train", "train", "test"]
    assert [s.question for s in load(tmp_path / "both", split="test")] == ["Is it blue?"]
    assert len(load(tmp_path / "both", limit=2, seed=1)) == 2
    with pytest.raises(DataError, match="no split 'dev'; it has train, test"):
        load(tmp_path / "both", split="dev")


@pytest.mark.parametrize(
    "stored",
    [
        (lambda texts: texts, lambda: datasets.List(datasets.Value("string"))),
        (
            lambda texts: [{"answer": t, "answer_id": n} for n, t in enumerate(texts)],
            lambda: datasets.List(
                {"answer": datasets.Value("string"), "answer_id": datasets.Value("int64")}
            ),
        ),
    ],
    ids=["texts", "objects"],
)
def test_ten_answers_are_scored_as_vqa(tmp_path, stored):
    form, feature = stored
    texts = ["red"] * 3 + ["blue"] * 7
    data = table(answers=(feature(), [form(texts)] * 3))
    data.save_to_disk(str(tmp_path / "saved"))
    sample = load(tmp_path / "saved")[0]
    assert sample.meta["answers"] == texts
    assert mechvrp.data.score(sample, "Red!") == pytest.approx(0.9)


def test_parquet_files(tmp_path):
    table().to_parquet(str(tmp_path / "files" / "test-00000-of-00001.parquet"))
    dataset = load(tmp_path / "files", cache_dir=tmp_path / "cache")
    assert [s.split for s in dataset] == ["test"] * 3
    assert [s.answer for s in dataset] == ["yes", "no", "yes"]
    assert dataset[1].image.size == (5, 6)


def test_files_that_a_table_names(tmp_path):
    put_images(tmp_path / "pictures", "images/a.jpg")
    options = {
        "columns": {},
        "images_root": tmp_path / "pictures",
        "cache_dir": tmp_path / "cache",
    }
    rows = [{"image": "a.jpg", "question": "q", "answer": "007"}] * 2
    put_lines(tmp_path / "files" / "train.jsonl", rows)
    dataset = load(tmp_path / "files", **options)
    assert [(s.image_id, s.answer) for s in dataset] == [("images/a.jpg", "007")] * 2
    put_lines(tmp_path / "more" / "train.jsonl", [*rows, {**rows[0], "image": "../b.jpg"}])
    with pytest.raises(DataError, match="train row 3: .*leaves the folder"):
        load(tmp_path / "more", **options)
    assert len(load(tmp_path / "more", **options, on_error="skip")) == 2


def test_a_class_without_a_name(tmp_path):
    data = table().remove_columns("label").add_column("label", [1, -1, 0])
    data = data.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    data.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="row 2: 'label' holds the class -1, which has no name"):
        load(tmp_path / "saved")


def test_an_image_folder(tmp_path):
    root = tmp_path / "files"
    put_images(root, "train/a.jpg")
    rows = [{"file_name": "a.jpg", "question": "Is it red?", "answer": "yes"}]
    put_lines(root / "train" / "metadata.jsonl", rows)
    (sample,) = load(root, columns={}, cache_dir=tmp_path / "cache")
    assert (sample.question, sample.image_id, sample.split) == (
        "Is it red?",
        "train/a.jpg",
        "train",
    )
    assert sample.image.size == (8, 6)


def rows_of(**values):
    row = {"picture": PICTURES[0], "text": "q", "label": "x", **values}
    features = {
        "picture": datasets.Value("binary"),
        "text": datasets.Value("string"),
        "label": datasets.Value("string"),
    }
    return datasets.Dataset.from_dict(
        {k: [{"picture": PICTURES[0], "text": "q", "label": "x"}[k], row[k]] for k in features},
        features=datasets.Features(features),
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"text": None}, "'text' must be text, got None"),
        ({"text": "  "}, "'text' must be text"),
        ({"label": None}, "'label' must be text or a number, got None"),
        ({"picture": None}, "expected an image or the name of an image file, got None"),
    ],
)
def test_a_bad_row_is_named(tmp_path, values, reason):
    rows_of(**values).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=rf"row 2: {reason}"):
        load(tmp_path / "saved")
    dataset = load(tmp_path / "saved", on_error="skip")
    assert (len(dataset), len(dataset.skipped)) == (1, 1)


def test_a_damaged_image_is_found_when_it_is_opened(tmp_path):
    rows_of(picture=b"damaged").save_to_disk(str(tmp_path / "saved"))
    dataset = load(tmp_path / "saved")
    with pytest.raises(DataError, match=r"row 2: image of 7 bytes cannot be decoded"):
        dataset[1].image
    assert [s.record for s in dataset.check()] == [dataset[1].record]
    assert len(load(tmp_path / "saved", on_error="skip")) == 1


def test_what_the_root_and_the_columns_must_be(saved, tmp_path):
    for columns, message in [
        ({}, r"no column 'image', 'question', 'answer'; it has \['label'"),
        ({**COLUMNS, "task": "kind"}, "no column 'kind'"),
        ({**COLUMNS, "label": "label"}, r"fields \['label'\]"),
    ]:
        with pytest.raises(DataError, match=message):
            load(saved, columns=columns)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("image,question,answer\na.jpg,q,007\n")
    with pytest.raises(DataError, match=r'holds CSV files.*load\("folder"'):
        load(tmp_path / "csv", columns={})
    with pytest.raises(DataError, match=r'is a file; load it with load\("folder"'):
        load(tmp_path / "csv" / "a.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="datasets cannot load"):
        load(tmp_path / "empty")
    for name in ("no-such-folder", "./no/such", "/no/such"):
        with pytest.raises(DataError, match="does not exist; it must hold a dataset"):
            load(name)


def test_a_folder_takes_records_from_itself_alone(tmp_path):
    """A README may name any file, and a table be a link."""
    root, outside = tmp_path / "data", tmp_path / "mine.parquet"
    root.mkdir()
    image = {"bytes": PICTURES[0], "path": None}
    rows = {"image": [image], "question": ["Mine?"], "answer": ["yes"]}
    pa.parquet.write_table(pa.table(rows), outside)
    options = {"columns": {}, "cache_dir": tmp_path / "cache"}
    for name in (str(outside), "../mine.parquet"):
        configs = f"configs:\n- config_name: default\n  data_files: {name}\n"
        (root / "README.md").write_text(f"---\n{configs}---\n")
        with pytest.raises(
            DataError, match=r"records from '.*mine\.parquet', which is not its own"
        ):
            load(root, **options)
    (root / "README.md").unlink()
    (root / "data.parquet").symlink_to(outside)
    with pytest.raises(DataError, match="which is not its own"):
        load(root, **options)
    # The hub's own client leaves links into its cache.
    blob = tmp_path / "cache" / "blob"
    blob.parent.mkdir(exist_ok=True)
    outside.rename(blob)
    (root / "data.parquet").unlink()
    (root / "data.parquet").symlink_to(blob)
    assert load(root, **options)[0].question == "Mine?"


def test_a_name_on_the_hub_is_given_to_the_library(monkeypatch, tmp_path):
    asked = []

    class Builder:
        def __init__(self, *args, **options):
            asked.append((args, options))
            self.config = SimpleNamespace(data_files={"test": files})

        def download_and_prepare(self):
            asked.append("prepared")

        def as_dataset(self):
            return datasets.DatasetDict({"test": table()})

    files = ["hf://datasets/lmms-lab/VQAv2@0123/test.parquet"]
    monkeypatch.setattr(datasets, "load_dataset_builder", Builder)
    dataset = load("lmms-lab/VQAv2", config="small", split="test")
    assert asked == [(("lmms-lab/VQAv2", "small"), {}), "prepared"]
    assert len(dataset) == 3
    for elsewhere in (str(tmp_path / "mine.parquet"), "http://127.0.0.1:9/x.parquet"):
        files[:] = [elsewhere]
        with pytest.raises(DataError, match="which is not its own"):
            load("lmms-lab/VQAv2")
        assert asked.pop() != "prepared"
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **o: 1 / 0)
    with pytest.raises(DataError, match=r"cannot load 'lmms-lab/VQAv2' \(ZeroDivisionError"):
        load("lmms-lab/VQAv2")


def test_without_the_library_it_says_how_to_get_it(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'pip install "mechvrp\[datasets\]"'):
        load(saved)
