"""Pieces among workers that die, by a pool that only pretends to have any."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mechvrp.errors import InputError, RunFolderError, WorkerError
from mechvrp.store import Chunks, software_versions
from mechvrp.store.atomic import TEMPORARY, remove_temporaries
from mechvrp.store.places import make_folder, place
from mechvrp.study.engines import LocalEngine, Piece, Work
from mechvrp.study.engines.ray_engine import RayEngine
from mechvrp.study.engines.ray_worker import Loaded, ReplicaWorker, Target
from mechvrp.study.engines.team import Died, Ended, Raised, Team


class Pretended:
    """A pool in which things end in the order that ``choose`` gives.

    Args:
        fate: of a piece by number, or of a start ("start"): what each try ends with, in turn; at the end Ended.
        latest_first: what was begun last ends first.
    """

    def __init__(self, fate=(), latest_first=False):
        self.fate = {name: list(ends) for name, ends in dict(fate).items()}
        self.latest_first = latest_first
        self.doing, self.stopped, self.given, self.started = [], [], [], 0
        self.alive = set()

    def start(self):
        self.started += 1
        self.alive.add(self.started)
        self.doing.append((self.started, "start"))
        return self.started

    def submit(self, worker, call, *arguments):
        assert worker in self.alive
        assert worker not in [busy for busy, _ in self.doing], "one thing at a time"
        self.given.append(arguments[0])
        self.doing.append((worker, arguments[0]))

    def wait(self):
        assert self.doing, "would wait for ever"
        worker, what = self.doing.pop(-1 if self.latest_first else 0)
        ends = self.fate.get(what, [])
        event = ends.pop(0) if ends else Ended(what)
        if isinstance(event, Died):
            self.alive.discard(worker)
        return worker, event

    def stop(self, worker):
        self.alive.discard(worker)
        self.stopped.append(worker)


def team(pool, size=2):
    said, welcomed = [], []
    made = Team(pool, size, said.append, welcomed.append)
    made.said, made.welcomed = said, welcomed
    return made


def hand_out(made, indices):
    done = []
    made.hand_out(
        indices,
        lambda worker, index: made.pool.submit(worker, "piece", index),
        lambda index, value: done.append(index),
    )
    return done


@pytest.mark.parametrize("latest_first", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_piece_is_made_once_in_order(size, latest_first):
    pool = Pretended(latest_first=latest_first)
    made = team(pool, size)
    assert sorted(hand_out(made, [3, 5, 7, 11])) == [3, 5, 7, 11]
    assert pool.given == [3, 5, 7, 11]
    assert pool.started == min(size, 4)  # no more workers than pieces
    assert set(made.welcomed) == {"start"}
    assert hand_out(made, [12]) == [12]
    assert pool.started == min(size, 4)  # they stay for what comes next
    made.close()
    assert not pool.alive


def test_a_dead_worker_is_replaced_and_its_piece_made_by_another():
    pool = Pretended({1: [Died("killed"), Died("killed again")]})
    made = team(pool)
    assert sorted(hand_out(made, range(4))) == [0, 1, 2, 3]
    assert Counter(pool.given) == {0: 1, 1: 3, 2: 1, 3: 1}
    assert pool.started == 4
    assert len(pool.alive) == 2
    assert "killed again" in made.said[-1]


def test_a_piece_that_ends_all_its_workers_is_named_and_the_others_are_made():
    pool = Pretended({1: [Died("out of memory")] * 9})
    made = team(pool)
    done = []
    with pytest.raises(
        WorkerError, match=r"pieces given up: 1\. Each ended 3 .*out of memory.*kept"
    ):
        made.hand_out(
            range(5), lambda worker, i: pool.submit(worker, "piece", i), lambda i, _: done.append(i)
        )
    assert sorted(done) == [0, 2, 3, 4]
    assert Counter(pool.given)[1] == 3


def test_where_every_piece_ends_its_workers_the_run_stops():
    pool = Pretended({i: [Died("no disk")] * 9 for i in range(100)})
    with pytest.raises(WorkerError, match="no piece between them was finished"):
        hand_out(team(pool, 1), range(100))
    assert len(pool.given) == 9


@pytest.mark.parametrize("latest_first", [False, True])
def test_the_error_is_that_which_one_process_would_have_met_first(latest_first):
    errors = {i: InputError(f"piece {i}") for i in (2, 3)}
    pool = Pretended({i: [Raised(e)] for i, e in errors.items()}, latest_first)
    with pytest.raises(InputError, match="piece 2"):
        hand_out(team(pool, 4), range(50))
    assert {0, 1, 2} <= set(pool.given)
    assert len(pool.given) < 10


def test_an_earlier_piece_whose_worker_died_is_made_before_an_error_is_raised():
    pool = Pretended(
        {0: [Died("killed"), Raised(InputError("piece 0"))], 1: [Raised(InputError("one"))]}
    )
    with pytest.raises(InputError, match="piece 0"):
        hand_out(team(pool), range(9))


def test_starts_that_fail_are_tried_again_and_then_named():
    pool = Pretended({"start": [Died("no memory")] * 2})
    assert sorted(hand_out(team(pool), range(3))) == [0, 1, 2]
    pool = Pretended({"start": [Died("no memory")] * 9})
    with pytest.raises(
        WorkerError, match=r"3 workers ended.*loaded the model; the last: no memory"
    ):
        hand_out(team(pool), range(3))
    # Where one worker has come up, it does the work alone.
    pool = Pretended({"start": [Ended("start"), *[Died("no memory")] * 9]})
    made = team(pool)
    assert made.ask("ask", "name") == "name"
    assert sorted(hand_out(made, range(6))) == [0, 1, 2, 3, 4, 5]


def test_an_error_while_a_model_loads_is_raised_as_it_is():
    pool = Pretended({"start": [Raised(InputError("no model named 'x'"))]})
    with pytest.raises(InputError, match="no model named"):
        team(pool).ask("ask", "name")


def test_a_question_is_asked_again_of_another_worker():
    pool = Pretended({"name": [Died("killed")]})
    made = team(pool)
    assert made.ask("ask", "name") == "name"
    pool.fate["name"] = [Died("killed")] * 3
    with pytest.raises(WorkerError, match="when they were asked about the model"):
        made.ask("ask", "name")
    pool.fate["name"] = [Raised(InputError("that is not to be had"))]
    with pytest.raises(InputError, match="not to be had"):
        made.ask("ask", "name")
    assert sorted(hand_out(made, range(3))) == [0, 1, 2]


def test_a_worker_with_other_weights_is_refused():
    def refuse(loaded):
        raise WorkerError("other weights")

    pool = Pretended()
    made = Team(pool, 2, print, refuse)
    with pytest.raises(WorkerError, match="other weights"):
        hand_out(made, range(3))
    made.close()
    assert not pool.alive


def test_a_worker_whose_study_has_ended_writes_nothing(tmp_path, monkeypatch):
    """Another run may be in its place by then."""
    from mechvrp.study.engines import ray_worker

    worker = ray_worker.ReplicaWorker(str(tmp_path), threads=torch.get_num_threads())
    sign, folder = tmp_path / "sign", tmp_path / "chunks"
    target = ray_worker.Target(folder, 2, 2, sign, "token")
    made = Piece(pd.DataFrame({"example": [0, 1]}), {}, {}, ("no map",))
    for after in (sign.unlink, lambda: sign.write_text("another study's")):
        sign.write_text("token")
        with pytest.raises(WorkerError, match="piece 0 has ended; nothing is written"):
            worker.piece(lambda *_, after=after: (after(), made)[1], None, target, 0)
        assert not folder.exists()
    sign.write_text("token")
    worker.piece(lambda *_: made, None, target, 0)
    assert Chunks.open(folder).notes() == ["no map"]


@pytest.mark.parametrize(("set_to", "threads"), [("3", 3), ("2,1", 2), ("", 8), ("many", 8)])
def test_threads_of_a_worker_are_at_most_those_of_openmp(monkeypatch, set_to, threads):
    from mechvrp.study.engines.ray_session import threads_of

    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert threads_of(8) == threads
    assert threads_of(1) == 1


class InThisProcess:
    """A pool whose workers are replicas in this process."""

    def __init__(self, folder):
        self.folder, self.done = folder, []

    def start(self):
        worker = ReplicaWorker(str(self.folder), threads=torch.get_num_threads())
        self.done.append(
            (worker, Ended(Loaded("m", "f", software_versions()["packages"], "h", "cpu")))
        )
        return worker

    def submit(self, worker, call, *arguments):
        try:
            self.done.append((worker, Ended(getattr(worker, call)(*arguments))))
        except WorkerError as error:
            self.done.append((worker, Raised(error)))

    def wait(self):
        return self.done.pop(0)

    def stop(self, worker):
        pass

    @contextmanager
    def shared(self, value):
        yield value


def test_workers_leave_what_one_process_leaves_their_notes_too(tmp_path, bucket):
    def compute(model, rows, advance):
        notes = ("no map",) if 4 in rows else ()
        arrays = {"h": np.array(rows, np.float32)[None]}
        advance(len(rows))
        table = pd.DataFrame({"example": rows})
        return Piece(table, arrays, {"h": ("layer", "example")}, notes)

    runs = {"local": tmp_path / "local", "ray": tmp_path / "ray", "at an address": place(bucket)}
    for name, run in runs.items():
        make_folder(run)
        found: list[int] = []
        pieces = Chunks(run / "chunks", 7, 2)
        pieces.write(1, pd.DataFrame({"example": [2, 3]}), {"h": np.ones((1, 2))}, notes=["before"])
        (pieces.folder / "pieces.json").unlink()
        work = Work(
            compute, lambda i, p=pieces: list(p.rows(i)), lambda i, p=pieces: len(p.rows(i))
        )
        if name == "local":
            LocalEngine(lambda: None).run(work, pieces, found.append)
        else:
            pool = InThisProcess(tmp_path)
            session = SimpleNamespace(pool=pool, size=2, open=lambda entry, dtype, p=pool: p)
            engine = RayEngine(session, "m", "auto", run)
            engine.run(work, pieces, found.append)
            engine.close()
        assert pieces.complete
        assert pieces.notes() == ["before", "no map"]  # of a piece that was there, too
        assert sum(found) == 7
    one, *others = (
        {p.name: p.read_bytes() for p in run.rglob("*") if p.is_file()} for run in runs.values()
    )
    assert {"000001.notes.json", "000002.notes.json"} < set(one)
    for other in others:
        assert other == one


def test_a_store_that_does_not_let_a_worker_in_is_an_error(tmp_path, bucket, monkeypatch):
    run = place(bucket)
    worker = ReplicaWorker(str(tmp_path), threads=torch.get_num_threads())
    target = Target(run / "chunks", 2, 2, run / "sign", "token")

    def refused(self):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(run), "read_text", refused)
    with pytest.raises(RunFolderError, match="cannot be reached or written: PermissionError"):
        worker.piece(lambda *_: pytest.fail("computed"), None, target, 0)


def test_what_a_killed_study_left_at_an_address_is_removed_when_it_goes_on(bucket):
    run = place(bucket)
    (run / f"{TEMPORARY}sign-1").write_text("token")
    (run / "config.json").write_text("{}")
    assert remove_temporaries(run) == 1
    assert [path.name for path in run.iterdir()] == ["config.json"]
