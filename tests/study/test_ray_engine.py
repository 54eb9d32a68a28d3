"""The engine ``ray``: real workers, killed while they work, leave the records of one process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import mechvrp
from mechvrp.errors import DataError, InputError, RunFolderError, WorkerError
from mechvrp.store import RunFolder
from mechvrp.store.atomic import TEMPORARY
from mechvrp.study import observing, plan_study
from tests.support.records import same
from tests.support.shuffles import few_shuffles

OPTIONS = {
    "n": 64,
    "ks": (0, 2),
    "n_resamples": 100,
    "batch_size": 8,
    "samples": 3,
    "device": "cpu",
    "progress": False,
}
PIECE = 8
RAY = {"engine": "ray", "workers": 2}
CAUSAL = {"causal": True, "mask_draws": 1, "noise_draws": 1}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(observing, "_PIECE", PIECE)
    few_shuffles(monkeypatch)


def uninterrupted(folder: Path, **options) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observing, "_PIECE", PIECE)
        few_shuffles(patch)
        return mechvrp.run_study("tiny-llava", out=folder / "run", **OPTIONS, **options).run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process."""
    return uninterrupted(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def whole_causal(tmp_path_factory):
    return uninterrupted(tmp_path_factory.mktemp("causal"), **CAUSAL)


@pytest.fixture(scope="module")
def ray_here():
    """Ray, started once for these tests: a study uses what is there, and leaves it."""
    ray = pytest.importorskip("ray")
    from mechvrp.study.engines.ray_session import start_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # what is set meanwhile is undone, too
        start_here(2)
        yield ray
        ray.shutdown()


@pytest.fixture
def told(monkeypatch):
    """What the engine says went wrong."""
    pytest.importorskip("ray")
    from mechvrp.study.engines.ray_engine import RayEngine

    said: list[str] = []
    monkeypatch.setattr(RayEngine, "_tell", lambda self, words: said.append(words))
    return said


def replicas(process: psutil.Process) -> list[psutil.Process]:
    """The workers that a process has, by the name that Ray gives them."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "ReplicaWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def ended(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within a minute; one that nobody waits for has ended, too."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        statuses = set()
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                statuses.add(one.status())
        if statuses <= {psutil.STATUS_ZOMBIE}:
            return True
        time.sleep(0.1)
    return False


def kill_one(out: Path, rng: random.Random, moments: list[int]) -> threading.Thread:
    """Kill a worker each time that so many pieces are there, in the background."""

    def kill() -> None:
        for moment in moments:
            deadline = time.monotonic() + 120
            while len(list(out.rglob("0*.parquet"))) < moment and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.05 * rng.random())
            if workers := replicas(psutil.Process()):
                rng.choice(workers).send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def test_two_workers_one_of_them_killed_leave_the_records_of_one_process(
    whole, ray_here, told, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    killing = kill_one(out, random.Random(0), [2])
    # As a worker that is killed while it writes leaves it: this run's, since older ones go when it begins.
    monkeypatch.setattr(
        "mechvrp.study.engines.ray_engine._wait_for",
        lambda chunks: leave_unfinished(chunks.folder),
    )
    found = mechvrp.run_study("tiny-llava", out=out, **OPTIONS, **RAY)
    killing.join()
    assert any("a worker has ended" in words for words in told), told
    same(found.run, whole)
    assert not list(out.rglob(".mechvrp-tmp-*"))
    assert not replicas(psutil.Process())  # none is left
    # The other engine takes it for what it is: finished.
    assert mechvrp.run_study("tiny-llava", out=out, **OPTIONS).report == found.report
    for path in (*out.glob("chunks/observe/*/00000[13].*"), out / "report.html"):
        path.unlink()
    again = mechvrp.run_study("tiny-llava", out=out, **OPTIONS)
    same(again.run, whole)


@pytest.mark.slow
def test_workers_killed_at_random_moments(whole_causal, ray_here, told, tmp_path):
    rng = random.Random(1)
    for attempt in range(2):
        out = tmp_path / f"run{attempt}"
        # Of the 8 pieces observed, and some of the interventions.
        killing = kill_one(out, rng, sorted(rng.sample(range(11), 3)))
        found = mechvrp.run_study("tiny-llava", out=out, **OPTIONS, **CAUSAL, **RAY)
        killing.join()
        same(found.run, whole_causal)
    assert sum("a worker has ended" in words for words in told) >= 3


@pytest.mark.slow
def test_the_driver_killed_at_random_moments_and_either_engine_goes_on(whole, ray_here, tmp_path):
    rng = random.Random(2)
    for attempt, engine in enumerate(({}, RAY, {})):
        out = tmp_path / f"run{attempt}"
        driver = start(out)
        try:
            after, deadline = rng.randrange(1, 10), time.monotonic() + 240
            while len(list(out.rglob("0*.parquet"))) < after and driver.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert driver.poll() is None
            with pytest.raises(RunFolderError, match="another process"):
                mechvrp.run_study("tiny-llava", out=out, **OPTIONS)
            left = replicas(psutil.Process(driver.pid))
            time.sleep(0.3 * rng.random())
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        found = mechvrp.run_study("tiny-llava", out=out, **OPTIONS, **engine)
        same(found.run, whole)
        # Workers end with it.
        assert ended(left)


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(whole, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "run"
    driver = start(out, stderr=subprocess.PIPE)
    while not list(out.rglob("0*.parquet")):
        assert driver.poll() is None
        time.sleep(0.01)
    left = replicas(psutil.Process(driver.pid))
    assert left
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=60)
    assert driver.returncode
    assert b"KeyboardInterrupt" in error
    assert ended(left)
    assert not list(out.rglob(".mechvrp-tmp-*"))
    same(mechvrp.run_study("tiny-llava", out=out, **OPTIONS).run, whole)


def leave_unfinished(folder: Path) -> None:
    (folder / f"{TEMPORARY}1-0-000001.parquet").write_bytes(b"unfinished")


def start(out: Path, **options) -> subprocess.Popen[bytes]:
    code = (
        "import sys, mechvrp, pytest; from mechvrp.study import observing\n"
        "from tests.support.shuffles import few_shuffles\n"
        f"few_shuffles(pytest.MonkeyPatch()); observing._PIECE = {PIECE}\n"
        f"mechvrp.run_study('tiny-llava', out=sys.argv[1], **{OPTIONS}, **{RAY})"
    )
    root = str(Path(__file__).parents[2])
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", code, str(out)], env=where, **options)


def elsewhere(sample: mechvrp.Sample, do) -> mechvrp.Sample:
    """A sample whose image is whole in the study's own process; in another one, opening it is ``do()``."""
    image, home = sample.image, os.getpid()

    def opened():  # goes to workers by value, unlike what a test module has at its top
        if os.getpid() != home:
            do()
        return image

    return mechvrp.Sample(
        opened, sample.question, sample.answer, sample.image_id, sample.task, sample.split
    )


@pytest.mark.slow
def test_a_piece_that_ends_workers_is_named_the_others_are_kept_and_one_process_goes_on(
    ray_here, told, tmp_path
):
    scenes = mechvrp.data.load("scenes", limit=48)
    samples = list(scenes)
    samples[20] = elsewhere(samples[20], lambda: os.kill(os.getpid(), signal.SIGKILL))  # of piece 2
    data = mechvrp.Dataset("deadly", samples)
    options = {k: v for k, v in OPTIONS.items() if k != "n"} | {"stages": ["observe"]}
    out = tmp_path / "run"
    with pytest.raises(WorkerError, match=r"pieces given up: 2\. Each ended 3 workers"):
        mechvrp.run_study("tiny-llava", data, out=out, **options, **RAY)
    kept = sorted(p.name for p in out.rglob("0*.parquet"))
    assert kept == [f"{i:06d}.parquet" for i in (0, 1, 3, 4, 5)]
    result = mechvrp.run_study("tiny-llava", data, out=out, **options)
    (pieces,) = result.run.written_chunks("observe").values()
    assert pieces.complete


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_one_that_one_process_raises(ray_here, tmp_path):
    def broken():
        raise DataError("line 7: the image is gone")

    samples = list(mechvrp.data.load("scenes", limit=24))
    samples[3] = elsewhere(samples[3], broken)  # as a file that is lost once a run has checked it
    options = {k: v for k, v in OPTIONS.items() if k != "n"}
    with pytest.raises(DataError, match="line 7"):
        mechvrp.run_study(
            "tiny-llava", mechvrp.Dataset("lost", samples), out=tmp_path / "run", **options, **RAY
        )


def test_what_ray_cannot_do_is_refused_before_anything_is_started(tmp_path, monkeypatch):
    out = tmp_path / "run"
    pytest.importorskip("ray")
    for options, words in (
        ({"workers": 2}, "Add --engine ray"),
        ({"address": "auto"}, "Add --engine ray"),
        ({"engine": "dask"}, "engines are local, ray"),
        ({"engine": "ray", "workers": 0}, "at least 1"),
        ({**RAY, "device": "cuda:1"}, "each worker of the engine ray has its own: ask for 'cuda'"),
    ):
        with pytest.raises(InputError, match=words):
            mechvrp.run_study("tiny-llava", out=out, **{**OPTIONS, **options})
        with pytest.raises(InputError, match=words):
            plan_study("tiny-llava", **{**OPTIONS, **options})
    loaded = mechvrp.load("tiny-llava", device="cpu")
    with pytest.raises(InputError, match="give its name, folder or hub id"):
        mechvrp.run_study(loaded, out=out, **OPTIONS, **RAY)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mechvrp\[distributed\]'"):
        mechvrp.run_study("tiny-llava", out=out, **OPTIONS, **RAY)
    assert not out.exists()


def test_what_ray_has_not_is_refused_before_a_worker_is_started(ray_here, tmp_path):
    for options, words in (
        ({"engine": "ray"}, "how many workers"),
        ({"engine": "ray", "workers": 3}, "--workers 2"),
        ({**RAY, "device": "cuda"}, "Ray has no GPU"),
    ):
        with pytest.raises(InputError, match=words):
            mechvrp.run_study("tiny-llava", out=tmp_path / "run", **{**OPTIONS, **options})
    assert not replicas(psutil.Process())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_sees_another_folder_computes_nothing(tmp_path, monkeypatch):
    from mechvrp.study.engines import ray_worker

    monkeypatch.setattr(ray_worker, "_SEEN_WITHIN", 0.0)
    worker = ray_worker.ReplicaWorker(str(tmp_path), threads=1)
    sign = tmp_path / "sign"
    target = ray_worker.Target(tmp_path / "chunks", 8, 8, sign, "token")

    def never(*_):
        pytest.fail("computed")

    for content in (None, "another run's"):
        if content:
            sign.write_text(content)
        with pytest.raises(WorkerError, match="does not see the run folder"):
            worker.piece(never, None, target, 0)
    lost = ray_worker.ReplicaWorker(str(tmp_path / "none"), threads=1)
    with pytest.raises(WorkerError, match="a folder that all machines share"):
        lost.load("tiny-llava", "cpu", "auto")
