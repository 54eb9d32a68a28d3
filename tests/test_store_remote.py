"""Run folders at addresses of fsspec: the same guarantees as on this machine, on an S3-compatible server."""

from __future__ import annotations

import threading
import time

import numpy as np
import pandas as pd
import pytest

from mechvrp.errors import InputError, RunFolderError
from mechvrp.store import Chunks, RunFolder, holding
from mechvrp.store.places import place

TABLE = pd.DataFrame({"example": range(10), "model": ["a", "b"] * 5, "x": np.arange(10) / 3})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(holding, "_RENEWED", 0.1)
    monkeypatch.setattr(holding, "_STALE", 1.0)


def taken(run):
    """Another process takes the lease, until a renewal has seen it (one that had just looked puts it back)."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        holding._write(run.path / "run.lock", "another machine")
        time.sleep(0.02)


def test_what_is_written_is_read_back(bucket):
    run = RunFolder.create(f"{bucket}/run", {"seed": 1})
    pieces = run.chunks("observe", "0-model", total=7, size=4)
    assert pieces.missing() == [0, 1]
    for index in (1, 0):
        rows = pieces.rows(index)
        arrays = {"hidden": np.ones((2, len(rows), 3), np.float32) * index}
        pieces.write(
            index, TABLE.iloc[rows.start : rows.stop], arrays, {"hidden": ("layer", "example", "d")}
        )
    run.write_stage("observe", "0-model", {"n": 7})
    run.write_summary({"accuracy": 0.5})
    run.write_examples(TABLE)
    run.write_report("<p>\u00e9</p>")
    picture = b"\x89PNG\r\nrest"
    run.write_gallery_image("a-1.png", picture)

    again = RunFolder.open(f"{bucket}/run")
    assert again.config == {"seed": 1}
    found = again.written_chunks("observe")["0-model"]
    assert found.complete
    assert found.table().equals(TABLE.iloc[:7])
    assert found.array("hidden")[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert again.read_stage("observe", "0-model") == {"n": 7}
    assert again.read_stage("observe", "other") is None
    assert again.read_summary() == {"accuracy": 0.5}
    assert again.read_examples(["x"], where=[("model", "=", "b")])["x"].tolist() == list(
        TABLE["x"][1::2]
    )
    assert list(again.example_columns()) == list(TABLE)
    assert again.gallery_names() == ["a-1.png"]
    assert again.read_gallery_image("a-1.png") == picture
    assert again.has("report.html")
    again.discard("report.html", "never.html")
    assert not run.has("report.html")
    assert set(again.versions) == {"created", "resumed"}


def test_a_folder_of_another_run_is_refused(bucket):
    RunFolder.create(f"{bucket}/run", {"seed": 1})
    with pytest.raises(RunFolderError, match="seed: 1 against 2"):
        RunFolder.create(f"{bucket}/run", {"seed": 2})
    place(f"{bucket}/mine/notes.txt").write_text("kept")
    with pytest.raises(RunFolderError, match=r"not empty: it holds notes\.txt"):
        RunFolder.create(f"{bucket}/mine", {"seed": 1})
    with pytest.raises(RunFolderError, match="no run folder at s3://bucket/"):
        RunFolder.open(f"{bucket}/nothing")


def test_damage_is_named(bucket):
    run = RunFolder.create(f"{bucket}/run", {})
    run.write_examples(TABLE)
    (run.path / "examples.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RunFolderError, match="is damaged"):
        run.read_examples()
    (run.path / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match="is damaged"):
        run.read_summary()


def test_there_is_one_writer_and_a_dead_one_is_taken_over(bucket, quick):
    run = RunFolder.create(f"{bucket}/run", {})
    other = RunFolder.open(f"{bucket}/run")
    with run.lock():
        assert run.has("run.lock")
        with pytest.raises(RunFolderError, match="written by another process"), other.lock():
            pytest.fail("two writers")
        time.sleep(0.3)  # renewed meanwhile
    assert not run.has("run.lock")
    # What a process that was killed leaves behind.
    holding._write(run.path / "run.lock", "another machine")
    began = time.monotonic()
    with other.lock():
        assert time.monotonic() - began >= holding._STALE
    assert not run.has("run.lock")


def test_a_lease_is_not_written_over_where_a_store_knows_no_create(bucket, quick, monkeypatch):
    monkeypatch.setattr(holding, "_create", holding._write)  # as some S3-compatible stores do it
    run = RunFolder.create(f"{bucket}/run", {})
    with run.lock():
        with pytest.raises(RunFolderError, match="another process"), run.lock():
            pytest.fail("two writers")
        time.sleep(0.3)
        run.write_summary({"n": 1})


def test_of_two_that_take_over_one_has_it(bucket, quick):
    run = RunFolder.create(f"{bucket}/run", {})
    holding._write(run.path / "run.lock", "another machine")
    held, refused = [], []

    def take() -> None:
        try:
            with RunFolder.open(f"{bucket}/run").lock():
                held.append(1)
                time.sleep(0.5)
        except RunFolderError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1)


def test_a_writer_that_lost_its_lease_says_so(bucket, quick):
    run = RunFolder.create(f"{bucket}/run", {})
    with pytest.raises(RunFolderError, match="taken over by another process"), run.lock():
        taken(run)
    assert run.has("run.lock")  # the other's


def test_nothing_is_written_under_a_lease_that_was_lost(bucket, quick):
    run = RunFolder.create(f"{bucket}/run", {})
    pieces = run.chunks("observe", "m", total=10, size=10)
    with pytest.raises(RunFolderError, match="taken over.*Nothing is written any more"), run.lock():
        run.write_summary({"n": 1})
        taken(run)
        for write in (
            lambda: run.write_summary({"n": 2}),
            lambda: pieces.write(0, TABLE),
            lambda: run.discard("summary.json"),
        ):
            with pytest.raises(RunFolderError, match="taken over"):
                write()
    assert run.read_summary() == {"n": 1}
    assert pieces.missing() == [0]


def test_a_lease_that_could_not_be_renewed_is_looked_at_before_a_write(bucket, quick, monkeypatch):
    run = RunFolder.create(f"{bucket}/run", {})
    real, down = holding._owner, [True]

    def owner(path):
        if down[0]:
            raise OSError("the store does not answer")
        return real(path)

    with run.lock():
        monkeypatch.setattr(holding, "_owner", owner)
        time.sleep(0.4)
        with pytest.raises(RunFolderError, match="cannot be reached.*does not answer"):
            run.write_summary({"n": 1})
        down[0] = False
        run.write_summary({"n": 2})  # it answers again, and nobody has taken the lease
    assert run.read_summary() == {"n": 2}
    assert not run.has("run.lock")
    # What nobody writes under is told at the end.
    with pytest.raises(RunFolderError, match="taken over by another process"), run.lock():
        down[0] = True
        holding._write(run.path / "run.lock", "another machine")
        time.sleep(0.3)
        down[0] = False
    assert run.has("run.lock")


def test_a_store_that_does_not_answer_has_not_lost_what_it_has(bucket, monkeypatch):
    run = RunFolder.create(f"{bucket}/run", {})
    run.write_stage("check", "data", {"n": 1})
    pieces = run.chunks("observe", "m", total=10, size=10)
    pieces.write(0, TABLE)

    def throttled(*_, **__):
        raise OSError("slow down")

    for name in ("_info", "_ls", "_lsdir", "_call_s3"):
        monkeypatch.setattr(type(run.path.fs), name, throttled)
    for ask in (
        lambda: run.read_stage("check", "data"),
        lambda: run.has("summary.json"),
        pieces.missing,
        lambda: RunFolder.open(f"{bucket}/run"),
        lambda: RunFolder.create(f"{bucket}/run", {}),
    ):
        with pytest.raises(RunFolderError, match="cannot be reached.*slow down"):
            ask()


def test_where_a_run_cannot_be(bucket, monkeypatch):
    with pytest.raises(InputError, match="knows no protocol 'nowhere'"):
        RunFolder.create("nowhere://bucket/run", {})
    with pytest.raises(RunFolderError, match="cannot be reached or written"):
        RunFolder.create("s3://no-such-bucket-at-all/run", {})
    from fsspec.config import conf

    few = {"retries": {"max_attempts": 1}}
    dead = {**conf["s3"], "endpoint_url": "http://127.0.0.1:9", "config_kwargs": few}
    monkeypatch.setitem(conf, "s3", dead)
    with pytest.raises(RunFolderError, match="cannot be reached"):
        RunFolder.open("s3://bucket/run")


def test_of_arrays_at_an_address_what_is_asked_for_is_fetched(bucket, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4, 64, 300)).astype(np.float32)
    monkeypatch.setattr("mechvrp.store.arrays._CLOSE", 2 * 1200)  # two examples of a layer
    arrays = {"first": np.arange(128.0).reshape(64, 2), "hidden": hidden}
    dims = {"first": ("example", "pair"), "hidden": ("layer", "example", "d")}
    here, there = (
        Chunks(folder, total=64, size=64) for folder in (tmp_path / "run", place(f"{bucket}/run"))
    )
    table = pd.DataFrame({"example": range(64)})
    for pieces in (here, there):
        pieces.write(0, table, arrays, dims)
    fetched = []
    real = there.folder.fs.cat_ranges

    def counted(paths, starts, ends, **options):
        fetched.extend(zip(starts, ends, strict=True))
        return real(paths, starts, ends, **options)

    monkeypatch.setattr(there.folder.fs, "cat_ranges", counted)
    monkeypatch.setattr("mechvrp.store.arrays.fetched", lambda path: pytest.fail("a whole file"))
    for rows, span in (
        (np.arange(64), 64),
        (np.array([5]), 1),
        (np.array([1, 4, 40, 41]), 4 + 2),
        (np.arange(0), 0),
    ):
        for name, at in (("hidden", {}), ("hidden", {"layer": 2}), ("first", {})):
            fetched.clear()
            (expected,), (found,) = (list(p.examples(name, rows, **at)) for p in (here, there))
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
            if name == "hidden":
                size = sum(end - start for start, end in fetched)
                assert size == span * (1 if at else len(hidden)) * 1200
                assert len(fetched) <= 2 * (1 if at else len(hidden))
    assert there.names() == ({"example"}, {"first", "hidden"})


@pytest.mark.parametrize(
    "content",
    [b"", b"12345678", (10**12).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"],
)
def test_a_damaged_file_of_arrays_at_an_address_is_named(bucket, content):
    pieces = Chunks(place(f"{bucket}/run"), total=2, size=2)
    pieces.write(0, TABLE.iloc[:2], {"h": np.ones((1, 2))}, {"h": ("layer", "example")})
    whole = (pieces.folder / "000000.safetensors").read_bytes()
    for bad in (content, whole[:-4]):
        (pieces.folder / "000000.safetensors").write_bytes(bad)
        with pytest.raises(RunFolderError, match="damaged"):
            list(pieces.examples("h", np.arange(2)))
        with pytest.raises(RunFolderError, match="damaged"):
            pieces.names()


def test_a_store_that_fails_while_parts_are_fetched_is_an_error(bucket, monkeypatch):
    pieces = Chunks(place(f"{bucket}/run"), total=2, size=2)
    pieces.write(0, TABLE.iloc[:2], {"h": np.ones((1, 2))}, {"h": ("layer", "example")})
    for answer, words in (
        ([ConnectionError("throttled")], "cannot be reached or written: ConnectionError"),
        ([b"short"], "it ends early"),
    ):
        monkeypatch.setattr(pieces.folder.fs, "cat_ranges", lambda *_, answer=answer: answer)
        with pytest.raises(RunFolderError, match=words):
            list(pieces.examples("h", np.arange(2)))
