"""Run folders: what goes in comes out, and what is foreign, damaged or half-written is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mechvrp.errors import InputError, NumericalError, RunFolderError
from mechvrp.files import distinct_names
from mechvrp.store import Chunks, RunFolder, software_versions
from mechvrp.store.arrays import write_arrays

CONFIG = {"model": "tiny", "n": 4, "ks": [0, 1, 2], "nested": {"seed": 0}}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", CONFIG)


def test_create_and_open(run: RunFolder) -> None:
    assert RunFolder.open(run.path).config == CONFIG
    assert run.versions["created"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert run.versions["resumed"] == []
    assert not run.has("summary.json")


def test_same_configuration_resumes_and_keeps_files(run: RunFolder) -> None:
    run.write_summary({"a": 1})
    again = RunFolder.create(run.path, {**CONFIG, "ks": (0, 1, 2), "n": np.int64(4)})
    assert again.read_summary() == {"a": 1}


def test_other_configuration_is_refused_with_the_difference(run: RunFolder) -> None:
    other = {"model": "tiny", "n": 5, "ks": [0, 1, 2], "nested": {"seed": 1}, "extra": True}
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create(run.path, other)
    message = str(caught.value)
    assert "n: 4 against 5" in message
    assert "nested.seed: 0 against 1" in message
    assert "extra: nothing against True" in message
    assert "model" not in message


def test_resumption_with_other_software_is_recorded(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**software_versions(), "python": "CPython 9.9"}
    monkeypatch.setattr("mechvrp.store.folder.software_versions", lambda: other)
    for _ in range(2):
        RunFolder.create(run.path, CONFIG)
    assert [environment["python"] for environment in run.versions["resumed"]] == ["CPython 9.9"]


def test_foreign_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder at"):
        RunFolder.open(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds notes.txt"):
        RunFolder.create(tmp_path, CONFIG)
    with pytest.raises(RunFolderError, match=r"no config\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(tmp_path / "notes.txt", CONFIG)
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(RunFolderError, match="another program's"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": NaN}', "\x00"])
def test_damaged_json(run: RunFolder, content: str) -> None:
    (run.path / "summary.json").write_text(content)
    with pytest.raises(RunFolderError, match="damaged"):
        run.read_summary()


def test_damaged_tables_and_arrays(run: RunFolder) -> None:
    (run.path / "examples.parquet").write_bytes(b"not this format at all")
    for read in (run.read_examples, run.example_columns):
        with pytest.raises(RunFolderError, match="damaged"):
            read()
    chunks = run.chunks("observe", "tiny", 2, 2)
    chunks.write(0, *piece(chunks, 0))
    (chunks.folder / "000000.safetensors").write_bytes(b"not this format at all")
    with pytest.raises(RunFolderError, match="damaged"):
        list(chunks.arrays())


def test_newer_format_is_refused(run: RunFolder) -> None:
    header = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**header, "format_version": 2}))
    with pytest.raises(RunFolderError, match="format 2"):
        RunFolder.open(run.path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_summary_refuses_nan_and_names_the_place(run: RunFolder, value: float) -> None:
    with pytest.raises(NumericalError, match=r"summary\.rows\[1\]\.auroc"):
        run.write_summary({"rows": [{"auroc": 0.5}, {"auroc": value}]})
    assert not run.has("summary.json")


def test_summary_refuses_other_types(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"summary\.path is a"):
        run.write_summary({"path": Path("a")})
    with pytest.raises(InputError, match="keys must be text"):
        run.write_summary({"k": {1: 2}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(value=json_values)
def test_summary_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", {})
    run.write_summary({"value": value})
    assert run.read_summary() == {"value": value}


def test_examples_round_trip(run: RunFolder) -> None:
    table = pd.DataFrame(
        {
            "question": ["<b>?</b>", 'a "quote", 日本語'],
            "correct": [True, False],
            "score": [0.5, np.nan],
            "gallery": [None, "a.png"],
        },
        index=[7, 9],
    )
    run.write_examples(table)
    read = run.read_examples()
    assert read["question"].tolist() == table["question"].tolist()
    assert read["correct"].tolist() == [True, False]
    assert read["score"].isna().tolist() == [False, True]
    assert read["gallery"].isna().tolist() == [True, False]


def test_examples_that_parquet_cannot_hold(run: RunFolder) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        run.write_examples(pd.DataFrame({"mixed": [1, "a", object()]}))
    with pytest.raises(InputError, match="no rows"):
        run.write_examples(pd.DataFrame({"a": []}))
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "run.lock",
        "versions.json",
    ]


def one_piece(run: RunFolder, arrays, dims=None) -> Chunks:
    chunks = run.chunks("observe", "tiny", 2, 2)
    chunks.write(0, pd.DataFrame({"example": [0, 1]}), arrays, dims)
    return chunks


def test_arrays_round_trip(run: RunFolder) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    chunks = one_piece(
        run,
        {"resid": base[:, ::2], "half": torch.ones(3, dtype=torch.bfloat16), "view": base},
        {"resid": ("layer", "example", "d_model")},
    )
    (read,) = chunks.arrays()
    assert np.array_equal(read["resid"], base[:, ::2])
    assert read["resid"].dtype == np.float32
    assert read["half"].dtype == np.float32
    assert np.array_equal(chunks.array("resid"), base[:, ::2])
    with pytest.raises(RunFolderError, match="no dimension 'example'"):
        chunks.array("view")
    assert [list(part) for part in chunks.arrays(["view"])] == [["view"]]
    modes = {path.stat().st_mode for path in chunks.folder.iterdir()}
    assert len(modes) == 1
    with pytest.raises(InputError, match="no activations named"):
        list(chunks.arrays(["absent"]))


def test_arrays_in_another_order_are_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"a": np.ones((2, 3)), "b": np.zeros(2)}
    dims = {"a": ("layer", "example"), "b": ("example",)}
    for name, order in (("one", ["a", "b"]), ("other", ["b", "a"])):
        write_arrays(tmp_path / name, {k: arrays[k] for k in order}, {k: dims[k] for k in order})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_arrays_refused(run: RunFolder) -> None:
    with pytest.raises(NumericalError, match="'a' hold 1 values"):
        one_piece(run, {"a": np.array([1.0, np.nan])})
    with pytest.raises(InputError, match="dtype"):
        one_piece(run, {"a": np.array(["text"])})
    with pytest.raises(InputError, match="do not fit"):
        one_piece(run, {"a": np.zeros((2, 2))}, {"a": ("layer",)})


def test_examples_in_parts_are_one_table(run: RunFolder) -> None:
    """A column that is empty in one part, or absent, has the others' type; one part at a time."""
    parts = [
        pd.DataFrame({"example": [0, 1], "score": pd.Series([None, None], dtype="Float64")}),
        pd.DataFrame({"example": [2], "score": [0.5], "word": ["w"]}),
    ]
    run.write_examples_in_parts(lambda: iter(parts))
    table = run.read_examples()
    assert table["example"].tolist() == [0, 1, 2]
    assert table["score"].dropna().tolist() == [0.5]
    assert table["word"].isna().tolist() == [True, True, False]
    assert run.example_columns() == {
        "example": "whole number",
        "score": "number",
        "word": "text",
    }
    assert run.read_examples(["example"], where=[("word", "=", "w")])["example"].tolist() == [2]
    with pytest.raises(InputError, match="no rows"):
        run.write_examples_in_parts(lambda: iter([]))
    odd = [pd.DataFrame({"a": ["x"]}), pd.DataFrame({"a": [[1]]})]
    with pytest.raises(InputError, match="cannot be written"):
        run.write_examples_in_parts(lambda: iter(odd))
    assert run.read_examples()["example"].tolist() == [0, 1, 2]  # the old one stays


def test_what_a_stage_found_is_kept(run: RunFolder) -> None:
    assert run.read_stage("correlate", "0-a/b") is None
    run.write_stage("correlate", "0-a/b", {"auroc": np.float64(0.5)})
    assert run.read_stage("correlate", "0-a/b") == {"auroc": 0.5}
    assert (run.path / "stages/correlate/0-a-b.json").is_file()
    with pytest.raises(NumericalError, match="auroc"):
        run.write_stage("correlate", "0-a/b", {"auroc": np.nan})


def test_gallery(run: RunFolder) -> None:
    held = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(held, "PNG")
    image = held.getvalue()
    run.write_gallery_image("ex-1.png", image)
    assert run.gallery_names() == ["ex-1.png"]
    assert run.read_gallery_image("ex-1.png") == image
    with pytest.raises(InputError, match="no webp image"):
        run.write_gallery_image("ex-1.webp", image)
    with pytest.raises(InputError, match="no png image"):
        run.write_gallery_image("ex-2.png", b"<svg onload=alert(1)>")
    for name in ("../out.png", "a/b.png", "<img>.png", ".png", "a.svg", "a.png\n"):
        with pytest.raises(InputError, match="gallery image name"):
            run.write_gallery_image(name, image)


def test_a_failed_write_leaves_the_old_file(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_report("<p>old</p>")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mechvrp.store.atomic.os.replace", fail)
    with pytest.raises(RunFolderError, match="cannot be written: disk full"):
        run.write_report("<p>new</p>")
    assert (run.path / "report.html").read_text() == "<p>old</p>"
    assert not list(run.path.glob(".mechvrp-tmp-*"))


def test_unfinished_stage(run: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"has no summary\.json"):
        run.read_summary()


def test_versions_name_no_machine() -> None:
    import getpass
    import platform

    text = json.dumps(software_versions())
    assert platform.node() not in text or len(platform.node()) < 4
    assert f"/{getpass.getuser()}" not in text
    assert "/" not in text


def test_a_folder_has_one_writer(run: RunFolder) -> None:
    with run.lock():
        with (
            pytest.raises(RunFolderError, match="another process"),
            RunFolder.open(run.path).lock(),
        ):
            pass
    with run.lock():  # free again
        assert RunFolder.open(run.path).config == CONFIG


def test_the_lock_of_a_killed_process_is_free(run: RunFolder) -> None:
    code = (
        "import sys, time; from mechvrp.store import RunFolder\n"
        "with RunFolder.open(sys.argv[1]).lock():\n"
        "    (RunFolder.open(sys.argv[1]).path / '.mechvrp-tmp-1-x').write_text('half')\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="another process"), run.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    with run.lock():
        assert not list(run.path.glob(".mechvrp-tmp-*"))


def piece(chunks: Chunks, index: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    rows = np.array(chunks.rows(index))
    return pd.DataFrame({"example": rows, "word": [f"w{r}" for r in rows]}), {
        "h": rows[None, :, None] * np.ones((2, 1, 3), np.float32)
    }


@given(st.integers(1, 40), st.integers(1, 12), st.randoms())
def test_pieces_in_any_order_make_the_same_whole(total: int, size: int, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chunks = RunFolder.create(Path(folder) / "run", CONFIG).chunks(
            "observe", "a/b", total, size
        )
        order = list(range(len(chunks)))
        random.shuffle(order)
        for done, index in enumerate(order):
            assert set(chunks.missing()) == set(order[done:])
            chunks.write(index, *piece(chunks, index), dims={"h": ("layer", "example", "d_model")})
        assert chunks.complete
        assert chunks.table()["example"].tolist() == list(range(total))
        whole = np.concatenate([part["h"] for part in chunks.arrays()], axis=1)
        assert (whole[0, :, 0] == np.arange(total)).all()


def test_a_piece_without_its_table_is_not_there(run: RunFolder) -> None:
    chunks = run.chunks("observe", "tiny", 10, 4)
    assert len(chunks) == 3
    chunks.write(0, *piece(chunks, 0))
    table, arrays = piece(chunks, 1)
    with pytest.raises(InputError, match="4 examples"):
        chunks.write(1, table[:2], arrays)
    with pytest.raises(NumericalError):
        chunks.write(1, table, {"h": np.full((1, 4, 1), np.nan)})
    with pytest.raises(InputError, match="cannot be written"):
        chunks.write(1, table.assign(bad=[object()] * 4), arrays)  # after its arrays
    assert chunks.missing() == [1, 2]
    with pytest.raises(RunFolderError, match=r"000001.parquet is missing"):
        chunks.table()
    for index in (1, 2):
        chunks.write(index, *piece(chunks, index))
    assert len(chunks.table(["word"])) == 10
    (chunks.folder / "000002.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(RunFolderError, match="damaged"):
        chunks.table()


def test_pieces_are_found_again_by_their_folder(run: RunFolder) -> None:
    assert run.written_chunks("observe") == {}
    chunks = run.chunks("observe", "tiny", 10, 4)
    chunks.write(2, *piece(chunks, 2))
    found = run.written_chunks("observe")
    assert list(found) == ["tiny"]
    assert (found["tiny"].total, found["tiny"].size, found["tiny"].missing()) == (10, 4, [0, 1])
    (chunks.folder / "pieces.json").write_text('{"total": 10}')
    with pytest.raises(RunFolderError, match="damaged"):
        run.written_chunks("observe")


def test_a_folder_that_was_left_half_made_is_made(tmp_path: Path) -> None:
    for name in ("versions.json", "run.lock", ".mechvrp-tmp-1-config.json"):
        folder = tmp_path / name.strip(".")
        folder.mkdir()
        (folder / name).write_text("{}")
        assert RunFolder.open(RunFolder.create(folder, CONFIG).path).config == CONFIG
    with RunFolder.create(tmp_path / "a", CONFIG).lock():
        (tmp_path / "a" / "config.json").unlink()  # as another process that is making it leaves it
        with pytest.raises(RunFolderError, match="another process"):
            RunFolder.create(tmp_path / "a", CONFIG)


def test_a_piece_that_lost_its_arrays_is_made_anew(run: RunFolder) -> None:
    chunks = run.chunks("observe", "tiny", 4, 2)
    for index in range(2):
        chunks.write(index, *piece(chunks, index))
    (chunks.folder / "000001.safetensors").unlink()
    again = run.chunks("observe", "tiny", 4, 2)
    assert again.missing() == [1]
    again.write(1, *piece(again, 1))
    assert again.complete
    path = chunks.folder / "000000.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-8] + b"\xff" * 8)
    with pytest.raises(RunFolderError, match=r"not finite.*Remove it"):
        list(again.arrays())


def test_what_of_a_piece_could_not_be_had_is_kept_with_it(run: RunFolder) -> None:
    chunks = run.chunks("observe", "tiny", 10, 4)
    chunks.write(2, *piece(chunks, 2), notes=["no signal x"])
    chunks.write(0, *piece(chunks, 0), notes=["no map", "no signal x"])
    # As a process that is killed leaves it: the notes of a piece that is not there do not count.
    (chunks.folder / "000001.notes.json").write_text('["of no piece"]')
    again = run.chunks("observe", "tiny", 10, 4)
    assert again.notes() == ["no map", "no signal x", "no signal x"]
    again.write(1, *piece(again, 1))
    assert again.notes() == ["no map", "no signal x", "no signal x"]
    (chunks.folder / "000002.notes.json").write_text('{"no": 1}')
    with pytest.raises(RunFolderError, match="damaged"):
        again.notes()


def test_a_lost_list_of_pieces_is_made_anew_and_another_one_refused(run: RunFolder) -> None:
    chunks = run.chunks("observe", "tiny", 10, 4)
    for index in (0, 2):
        chunks.write(index, *piece(chunks, index))
    (chunks.folder / "000002.safetensors").unlink()
    (chunks.folder / "pieces.json").unlink()
    again = run.chunks("observe", "tiny", 10, 4)
    assert again.missing() == [1, 2]  # a piece without its arrays is none, here too
    again.restore()
    assert RunFolder.open(run.path).written_chunks("observe")["tiny"].missing() == [1, 2]
    for index in (1, 2):
        again.write(index, *piece(again, index))
    (chunks.folder / "pieces.json").unlink()
    assert not again.missing()
    assert not again.complete
    for total, size in ((11, 4), (10, 5)):
        again.restore()
        with pytest.raises(RunFolderError, match="holds pieces of 4 of 10 examples, and now"):
            run.chunks("observe", "tiny", total, size).missing()


def test_some_examples_are_read_and_nothing_else(run: RunFolder) -> None:
    chunks = run.chunks("observe", "tiny", 10, 4)
    dims = {"h": ("layer", "example", "d_model")}
    for index in range(3):
        table, arrays = piece(chunks, index)
        arrays["h"] = arrays["h"] * np.array([[[1]], [[10]]], np.float32)
        chunks.write(index, table, arrays, dims=dims)
    rows = np.array([0, 1, 3, 9])
    whole = chunks.array("h")
    (chunks.folder / "000001.safetensors").write_bytes(b"never opened")
    found = list(chunks.examples("h", rows))
    assert np.array_equal(np.concatenate(found, axis=1), whole[:, rows])
    assert [part.shape for part in found] == [(2, 3, 3), (2, 1, 3)]
    one = list(chunks.examples("h", rows, layer=1))
    assert np.array_equal(np.concatenate(one), whole[1, rows])
    (none,) = chunks.examples("h", rows[:0])
    assert none.shape == (2, 0, 3)
    for name, at, words in (
        ("h", {"layer": 2}, "expected 4 examples, and before them {'layer': 2}"),
        ("h", {"d_model": 0}, "before them"),
        ("h", {"head": 0}, "the dimensions"),
        ("other", {}, "no array 'other'"),
    ):
        with pytest.raises(RunFolderError, match=words):
            list(chunks.examples(name, rows, **at))
    chunks.write(0, *piece(chunks, 0))  # whose dimensions are not named
    with pytest.raises(RunFolderError, match="damaged"):
        list(chunks.examples("h", rows))


def test_a_full_disk_is_an_error_of_the_folder(run: RunFolder) -> None:
    """By a limit on the size of files, which fails as a full disk does."""
    import resource

    words = [np.random.default_rng(i).bytes(10_000).hex() for i in range(4)]
    table = pd.DataFrame({"example": range(4), "word": words})
    chunks = run.chunks("observe", "tiny", 4, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        for write in (
            lambda: chunks.write(0, table),
            lambda: chunks.write(0, table[["example"]], {"h": np.ones((4, 10_000))}),
            lambda: run.write_summary({"x": "y" * 20_000}),
            lambda: run.write_examples(table),
        ):
            with pytest.raises(RunFolderError, match="cannot be written: "):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert chunks.missing() == [0]
    assert not list(run.path.rglob(".mechvrp-tmp-*"))
    chunks.write(0, table)


@pytest.mark.parametrize(
    "name", ["run.lock", "chunks", "stages/observe", "gallery/a.png", "config.json"]
)
def test_a_link_that_leaves_a_run_is_refused(run: RunFolder, tmp_path: Path, name: str) -> None:
    for folder in ("stages", "gallery"):
        (run.path / folder).mkdir()
    (run.path / "run.lock").unlink()
    outside = tmp_path / "mine"
    if name == "config.json":
        (run.path / name).rename(outside)
    elif "." in name:
        outside.write_text("kept")
    else:
        outside.mkdir()
    (run.path / name).symlink_to(outside)
    with pytest.raises(RunFolderError, match="is a link that leaves the folder"):
        RunFolder.open(run.path)
    with pytest.raises(RunFolderError, match="is a link that leaves"), run.lock():
        pytest.fail("it was held")
    (run.path / name).unlink()
    if name != "config.json":
        # The folder itself may be one, and so may what stays in it.
        (run.path / name).symlink_to(run.path / "versions.json")
        (tmp_path / "other").symlink_to(run.path)
        assert RunFolder.open(tmp_path / "other").config == CONFIG


def test_a_lock_that_cannot_be_taken_is_an_error_of_the_folder(run: RunFolder) -> None:
    (run.path / "run.lock").unlink()
    (run.path / "run.lock").mkdir()
    with pytest.raises(RunFolderError, match=r"run\.lock cannot be locked"), run.lock():
        pytest.fail("it was held")


def test_a_name_that_comes_twice_is_found_among_many() -> None:
    pairs = [(f"n{i}", i) for i in range(200_000)]
    with pytest.raises(ValueError, match="'n199999' comes twice"):  # in minutes, if each is counted
        distinct_names([*pairs, pairs[-1]])


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    for name in ("~/run", Path("~/run")):
        assert RunFolder.create(name, {"seed": 1}).path == tmp_path / "home" / "run"
    assert RunFolder.open("~/run").config == {"seed": 1}
    assert not (tmp_path / "~").exists()
    assert RunFolder.create("./~", {"seed": 1}).path.resolve() == tmp_path / "~"
