"""A run that is killed goes on where it was, and ends with what an uninterrupted one has."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import mechvrp
from mechvrp.errors import RunFolderError
from mechvrp.store import RunFolder, atomic
from mechvrp.study import observing
from mechvrp.study.report import write_report
from tests.support.records import same
from tests.support.shuffles import few_shuffles

OPTIONS = {
    "n": 48,
    "ks": (0, 2),
    "n_resamples": 100,
    "batch_size": 8,
    "samples": 3,
    "progress": False,
}
PIECE = 8


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.fixture(scope="module")
def model():
    return mechvrp.load("tiny-llava", device="cpu")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(observing, "_PIECE", PIECE)
    few_shuffles(monkeypatch)


#: A run that has every part: readouts, comparators and causal rows.
EVERYTHING = {
    **OPTIONS,
    "readouts": True,
    "comparators": True,
    "causal": True,
    "mask_draws": 1,
    "noise_draws": 1,
}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """An uninterrupted run, and how many files it wrote."""
    return uninterrupted(model, tmp_path_factory.mktemp("whole"), OPTIONS)


@pytest.fixture(scope="module")
def whole_of_everything(model, tmp_path_factory):
    return uninterrupted(model, tmp_path_factory.mktemp("everything"), EVERYTHING)


def uninterrupted(model, folder, options):
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observing, "_PIECE", PIECE)
        few_shuffles(patch)
        replace = os.replace
        patch.setattr(
            atomic.os, "replace", lambda a, b: (written.append(Path(b).name), replace(a, b))
        )
        result = mechvrp.run_study(model, "scenes", out=folder / "run", **options)
    return result.run, written


@pytest.mark.parametrize("n", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_write_ends_with_the_same_records(
    model, whole, tmp_path, monkeypatch, n
):
    """At random moments, before and after a file has taken its place."""
    pieces = [name for name in whole[1] if name[:6].isdigit()]
    assert len(pieces) >= 14  # six pieces observed and some ablated, two files each
    kill_and_compare(model, whole, OPTIONS, tmp_path, monkeypatch, n)


@pytest.mark.slow
def test_a_run_of_everything_killed_at_any_write(model, whole_of_everything, tmp_path, monkeypatch):
    kill_and_compare(model, whole_of_everything, EVERYTHING, tmp_path, monkeypatch, 8)


def kill_and_compare(model, whole, options, tmp_path, monkeypatch, n):
    run, written = whole
    pieces = [name for name in written if name[:6].isdigit()]
    # One in each part of the run, before (even) and after (odd) a file has taken its place by turns.
    rng, ends = random.Random(0), [len(written) * i // n for i in range(n + 1)]
    moments = [2 * rng.randrange(ends[i], ends[i + 1]) + i % 2 for i in range(n)]
    replace = os.replace
    for moment in moments:
        out = tmp_path / f"at{moment}"
        count = 0

        def dying(a, b, moment=moment):
            nonlocal count
            if 2 * count == moment:
                raise Killed
            replace(a, b)
            count += 1
            if 2 * count - 1 == moment:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", dying)
            with pytest.raises(Killed):
                mechvrp.run_study(model, "scenes", out=out, **options)
        again: list[str] = []

        def noting(a, b, again=again):
            again.append(Path(b).name)
            replace(a, b)

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", noting)
            resumed = mechvrp.run_study(model, "scenes", out=out, **options)
        same(resumed.run, run)
        before = [name for name in written[: (moment + 1) // 2] if name[:6].isdigit()]
        repeated = len(before) + len([n for n in again if n[:6].isdigit()]) - len(pieces)
        assert repeated in (0, 1), (moment, before, again)  # at most the arrays of one piece


def damaged(run: RunFolder, out: Path) -> dict[str, str]:
    """A copy of a run with each kind of damage, one after the other: what making the report says to it."""
    found = {}
    shutil.copytree(run.path, out)
    piece = next(out.glob("chunks/observe/*/000001.parquet"))
    picture = next(out.glob("gallery/*"))
    for path, content in (
        (piece, None), (picture, b""), (picture, None), (out / "versions.json", None),
        (out / "examples.parquet", None), (out / "summary.json", b"{"),
    ):  # fmt: skip
        kept = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(RunFolderError) as error:
            write_report(RunFolder.open(out))
        found[f"{path.name} {content}"] = str(error.value)
        path.write_bytes(kept)
    lists = out.glob("chunks/observe/*/pieces.json")
    for path in (piece, out / "versions.json", out / "examples.parquet", *lists):
        path.unlink()
    picture.write_bytes(b"")
    return found


def test_damage_is_named_and_the_same_command_mends_it(model, whole, tmp_path):
    run, _ = whole
    said = damaged(run, tmp_path / "run")
    again = "the study's command again: it goes on, and makes what is missing"
    assert [text for text in said.values() if again not in text] == []
    words = ("lacks 1 of its 6 pieces", "its 0 bytes are no png image", "has no gallery/")
    words += ("has no versions.json", "has no examples.parquet", "summary.json is damaged")
    for word, text in zip(words, said.values(), strict=True):
        assert word in text
        assert "Errno" not in text
    # It has a report and a summary, and is not taken for finished.
    mended = mechvrp.run_study(model, "scenes", out=tmp_path / "run", **OPTIONS)
    same(mended.run, run)
    assert "versions.json was lost" in (tmp_path / "run" / "report.html").read_text("utf-8")
    picture = next((tmp_path / "run").glob("gallery/*")).name
    assert mended.run.read_gallery_image(picture) == run.read_gallery_image(picture)


def start(out: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys, mechvrp; from mechvrp.study import observing\n"
        f"observing._PIECE = {PIECE}\n"
        f"mechvrp.run_study(mechvrp.load('tiny-llava', device='cpu'), 'scenes', out=sys.argv[1], **{OPTIONS})"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(out)])


def kill_and_resume(model, out: Path, after: int, delay: float) -> RunFolder:
    """Kill a process that has written so many pieces, a little later, and go on in this one."""
    process = start(out)
    try:
        deadline = time.monotonic() + 120
        while len(list(out.rglob("0*.parquet"))) < after and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if process.poll() is None and after:
            with pytest.raises(RunFolderError, match="another process"):
                mechvrp.run_study(model, "scenes", out=out, **OPTIONS)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return mechvrp.run_study(model, "scenes", out=out, **OPTIONS).run


def test_a_killed_process_and_a_second_one(model, tmp_path, whole):
    out = tmp_path / "run"
    run = kill_and_resume(model, out, after=2, delay=0.05)
    assert not list(out.rglob(".mechvrp-tmp-*"))
    # Another process computes with the same code, but possibly with another number of threads.
    a, b = run.read_examples(), whole[0].read_examples()
    pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_twenty_kills(model, tmp_path, whole):
    rng = random.Random(1)
    for attempt in range(20):
        out = tmp_path / f"run{attempt}"
        run = kill_and_resume(model, out, after=rng.randrange(8), delay=rng.random())
        pd.testing.assert_frame_equal(
            run.read_examples(), whole[0].read_examples(), rtol=1e-4, atol=1e-5
        )


def test_another_setting_in_a_used_folder_is_refused(model, whole):
    with pytest.raises(RunFolderError, match="samples: 3 against 4"):
        mechvrp.run_study(model, "scenes", out=whole[0].path, **{**OPTIONS, "samples": 4})
