"""The tables, run: every bad input gets its own error, and every strange one what was promised."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mechvrp
from mechvrp.cli import app, main
from mechvrp.errors import MechVRPError
from mechvrp.store import RunFolder
from tests.bad_input import (
    command_lines,
    images,
    interventions,
    models,
    numbers,
    records,
    runs,
    scoring,
    sites,
    strange,
)
from tests.bad_input.rows import Bad, Place

TOPICS = {
    "records": records, "images": images, "scoring": scoring, "models": models, "sites": sites,
    "interventions": interventions, "runs": runs, "numbers": numbers,
}  # fmt: skip
BAD = [(topic, row) for topic, module in TOPICS.items() for row in module.ROWS]

#: Seconds of one row; the slowest takes less than one.
LIMIT = 20


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """A tiny model and what is made of it, once."""
    model = mechvrp.load("tiny-llava")
    samples = list(mechvrp.data.load("scenes", limit=2, split="adversarial"))
    batch = model.encode(samples)
    return {
        "model": model,
        "samples": samples,
        "batch": batch,
        "acts": mechvrp.cache(model, batch, "resid_post"),
        "checkpoint": dict(mechvrp.models.embedded_models())["tiny-llava"],
    }


@contextmanager
def limited() -> Iterator[None]:
    """Fails what takes longer than ``LIMIT`` seconds."""

    def stop(*_: Any) -> None:
        pytest.fail(f"it was still running after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def nothing_elsewhere(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails what opens a file for writing, or makes, moves or removes one, outside ``tmp``."""
    import builtins
    import io

    inside = os.path.realpath(tmp)
    opened = io.open

    def check(path: Any, follow: bool = True) -> None:
        if isinstance(path, str | bytes | os.PathLike) and os.fspath(path) != os.devnull:
            name = os.fsdecode(path)  # a link is removed itself, not what it leads to
            folder, last = os.path.split(name)
            real = (
                os.path.realpath(name) if follow else os.path.join(os.path.realpath(folder), last)
            )
            if not real.startswith((inside, "/proc/self", "/dev/null")):
                pytest.fail(f"it writes {real}")

    def watched(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            check(file)
        return opened(file, mode, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", watched)
        patch.setattr(io, "open", watched)
        for name in (
            "mkdir",
            "rename",
            "replace",
            "unlink",
            "remove",
            "rmdir",
            "symlink",
            "mkfifo",
        ):
            real = getattr(os, name)

            def watch(path: Any, *more: Any, real: Any = real, **options: Any) -> Any:
                check(path if real.__name__ != "symlink" else more[0], follow=False)
                return real(path, *more, **options)

            patch.setattr(os, name, watch)
        yield


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{topic}: {ascii(row.name)[1:-1]}") for topic, row in BAD]
)
def test_bad_input_gets_its_error(row: Bad, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp=tmp_path, **shared)
    with limited(), nothing_elsewhere(tmp_path, monkeypatch):
        with pytest.raises(MechVRPError) as raised:
            row.call(place)
    assert type(raised.value) is row.error
    assert row.says in str(raised.value)
    assert len(str(raised.value)) < 4000
    assert not (tmp_path / "out").is_dir() or list((tmp_path / "out").iterdir()) == [
        tmp_path / "out" / "thesis.tex"
    ]
    assert not (tmp_path / "ran").exists()  # code that a checkpoint brings


def test_the_tables_are_large_and_no_row_comes_twice():
    assert len(BAD) + len(command_lines.ROWS) >= 200
    twice = [key for key, n in Counter((topic, row.name) for topic, row in BAD).items() if n > 1]
    assert not twice


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [pytest.param(*row[1:], id=row[0]) for row in command_lines.ROWS],
)
def test_bad_command_lines(arguments, status, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "bomb.yaml").write_text(runs.BOMB)
    os.mkfifo(tmp_path / "pipe")
    RunFolder.create(tmp_path / "run", {"seed": 1})
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    with limited(), nothing_elsewhere(tmp_path, monkeypatch):
        if status == 2:
            result = CliRunner().invoke(app, filled, terminal_width=300)
            code, said = result.exit_code, result.output
        else:
            monkeypatch.setattr("sys.argv", ["mechvrp", *filled])
            with pytest.raises(SystemExit) as stopped:
                main()
            code, said = stopped.value.code, capsys.readouterr().err
            assert said.startswith("error: ")
    assert code == status
    assert says in " ".join(said.replace("│", " ").split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in strange.ROWS])
def test_strange_input_is_read_right(check, shared, tmp_path):
    with limited():
        check(Place(tmp=tmp_path, **shared))
