"""Writing at addresses where a file does not appear as a whole by itself."""

from __future__ import annotations

import threading

import pytest

from mechvrp.errors import RunFolderError
from mechvrp.store.atomic import write_atomically
from mechvrp.store.places import place, put


def test_two_writers_of_one_file_do_not_take_each_other_s(tmp_path, monkeypatch):
    target = place(f"file://{tmp_path}/pieces.json")
    system, both = type(target.fs), threading.Barrier(2, timeout=10)
    put_file = system.put_file

    def together(*args, **kwargs):
        put_file(*args, **kwargs)
        both.wait()  # each has written before either moves

    monkeypatch.setattr(system, "put_file", together)
    failed = []

    def write(text):
        try:
            write_atomically(target, lambda path: path.write_text(text))
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in ("first", "second")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert target.read_text() in ("first", "second")
    assert [path.name for path in tmp_path.iterdir()] == ["pieces.json"]


def test_a_failed_writing_leaves_nothing(tmp_path, monkeypatch):
    local = tmp_path / "made.json"
    local.write_text("{}")
    target = place(f"file://{tmp_path}/run/pieces.json")
    (tmp_path / "run").mkdir()

    def full(*_, **__):
        raise OSError("disk quota exceeded")

    monkeypatch.setattr(type(target.fs), "mv", full)
    with pytest.raises(RunFolderError, match="disk quota exceeded"):
        put(local, target)
    assert list((tmp_path / "run").iterdir()) == []
