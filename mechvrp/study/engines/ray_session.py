"""Ray: started for a study, or a cluster's; and its actors as a `Pool` of workers."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mechvrp.errors import InputError, MechVRPError, WorkerError
from mechvrp.study.engines.ray_worker import ReplicaWorker
from mechvrp.study.engines.team import Died, Ended, Event, Raised

__all__ = ["RayPool", "RaySession", "start_here", "threads_of"]

#: Seconds that Ray may take to find a place for a worker (a cluster may start a machine for it).
_PLACED_WITHIN = 600.0
#: Bytes of shared memory: what goes through it are the records of a few pieces, and one stage's settings.
_STORE = 256 * 2**20
#: Times that Ray is started here before it is given up.
_TRIES = 2
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
#: What workers on other machines must have as it is here, where it is set.
_FORWARDED = (
    *("PYTHONPATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS"),
)


@dataclass
class RaySession:
    """Ray for one study, connected to when it is first needed.

    Attributes:
        workers: how many; by default one for each GPU that Ray has.
        address: of a cluster; else the environment's RAY_ADDRESS; else Ray is started here, for this study.
        device: as ``StudyConfig``.
        say: where to report to.
    """

    workers: int | None
    address: str | None
    device: str
    say: Console
    size: int = 0
    _pool: RayPool | None = None
    _ours: bool = False

    @property
    def pool(self) -> RayPool:
        assert self._pool is not None, "no model was opened"
        return self._pool

    def open(self, entry: str, dtype: str) -> RayPool:
        """A pool of workers for one model; the model before it must be closed.

        Raises:
            InputError: there is no such cluster, or it has too few devices.
        """
        import ray

        address = self.address or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():
            self._connect(ray, address)
        found = ray.cluster_resources()
        cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
        on_gpu = self.device == "cuda" or (self.device == "auto" and gpus > 0)
        if on_gpu and gpus == 0:
            raise InputError("device 'cuda' was asked for, and Ray has no GPU; try device cpu")
        self.size = self._size(on_gpu, cpus, gpus)
        # As Ray's own default, each worker has its share of the processors.
        threads = max(1, cpus // self.size)
        remote = bool(address)
        env = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
        options: dict[str, Any] = {
            # A GPU's worker is placed by the GPU; a machine's processors need not divide evenly.
            "num_cpus": 1 if on_gpu else threads,
            "num_gpus": 1 if on_gpu else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            **({"runtime_env": {"env_vars": env}} if remote and env else {}),
        }
        device = "cuda" if on_gpu else self.device
        count = threads_of(threads)
        self._pool = RayPool(ray, options, (entry, device, dtype), count)
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        self.say.print(
            f"  ray: {self.size} workers on {nodes} machine{'s' if nodes > 1 else ''}, each with "
            + ("a GPU" if on_gpu else f"{count} thread{'s' if count > 1 else ''} of the CPU")
        )
        return self._pool

    def close(self) -> None:
        """Disconnect, and end Ray if it was started here."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    def _size(self, on_gpu: bool, cpus: int, gpus: int) -> int:
        if self.workers is None:
            if not on_gpu:
                raise InputError(
                    f"how many workers? Without GPUs they share {cpus} processors: --workers 2"
                )
            return gpus
        most = gpus if on_gpu else cpus
        if self.workers > most:
            what = "GPUs" if on_gpu else "processors"
            raise InputError(
                f"{self.workers} workers need one of Ray's {what} each, and it has {most}: --workers {most}"
            )
        return self.workers

    def _connect(self, ray: Any, address: str | None) -> None:
        if address:
            try:
                ray.init(address=address, **_QUIET)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, or leave "
                    "--address (and RAY_ADDRESS) out to have workers on this machine"
                ) from error
        else:
            start_here(max(torch.get_num_threads(), self.workers or 1))
        self._ours = True


def threads_of(share: int) -> int:
    """Threads of a worker: its share of the processors, or fewer where OpenMP is told so (``4`` or ``4,2``)."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(share, int(told)) if told.isdecimal() and int(told) else share


def start_here(processors: int) -> None:
    """Start Ray on this machine, for this process: no dashboard, no statistics of use.

    Raises:
        WorkerError: it does not come up.
    """
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when it starts
    for attempt in range(_TRIES):
        try:
            ray.init(
                address="local",
                num_cpus=processors,
                include_dashboard=False,
                **_shared_memory(),
                **_QUIET,
            )
            return
        except Exception as error:  # Ray's own are plain ones
            ray.shutdown()
            # It gives its own processes half a minute, which a busy machine may not have.
            if attempt == _TRIES - 1:
                raise WorkerError(
                    f"Ray could not be started on this machine, {_TRIES} times: {error}. Is it too busy, or "
                    "its memory full? --engine local needs no Ray"
                ) from error


def _shared_memory() -> dict[str, Any]:
    """Settings of Ray's shared memory, on disk where /dev/shm is small (64 MiB in many containers)."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free < 2 * _STORE:
        return {"object_store_memory": _STORE, "_plasma_directory": tempfile.gettempdir()}
    return {"object_store_memory": _STORE}


@dataclass
class _Doing:
    """What a worker does: the task that will end, and whether it is still looking for a place."""

    worker: Any
    placing: bool
    since: float


@dataclass
class RayPool:
    """Ray actors, each a replica; dead ones are not brought back by Ray but by the `Team`.

    Attributes:
        ray: the package.
        options: of an actor: what it needs.
        model: name, device and dtype, as ``ReplicaWorker.load`` takes them.
        threads: of each worker.
    """

    ray: Any
    options: dict[str, Any]
    model: tuple[str, str, str]
    threads: int
    _doing: dict[Any, _Doing] = field(default_factory=dict)

    def start(self) -> Hashable:
        kind = self.ray.remote(ReplicaWorker).options(**self.options)
        worker: Hashable = kind.remote(str(Path.cwd()), self.threads)
        self._note(worker, worker.place.remote(), placing=True)  # type: ignore[attr-defined]
        return worker

    def submit(self, worker: Hashable, call: str, *arguments: Any) -> None:
        try:
            task = getattr(worker, call).remote(*arguments)
        except (TypeError, pickle.PicklingError) as error:
            raise InputError(
                f"what a worker needs cannot be sent to it: {error}. Give images as files, or functions that "
                "can be pickled; --engine local needs neither"
            ) from error
        self._note(worker, task)

    def wait(self) -> tuple[Hashable, Event]:
        from ray.exceptions import RayActorError, RayError, RayTaskError

        while True:
            # In turns, so that Ctrl-C is heard at once.
            found, _ = self.ray.wait(list(self._doing), num_returns=1, timeout=1.0)
            if not found:
                self._check_places()
                continue
            doing = self._doing.pop(found[0])
            try:
                value = self.ray.get(found[0])
            except RayTaskError as error:
                # Ours say all there is to say; of others the worker's traceback is wanted, which Ray's holds.
                cause = error.cause
                return doing.worker, Raised(cause if isinstance(cause, MechVRPError) else error)
            except (RayActorError, RayError) as error:
                return doing.worker, Died(_words(error))
            if doing.placing:
                self._note(doing.worker, doing.worker.load.remote(*self.model))
                continue
            return doing.worker, Ended(value)

    def stop(self, worker: Hashable) -> None:
        self._doing = {task: d for task, d in self._doing.items() if d.worker is not worker}
        self.ray.kill(worker)

    @contextmanager
    def shared(self, value: Any) -> Iterator[Any]:
        """Sent to each machine once, however many calls it is an argument of."""
        yield self.ray.put(value)

    def _note(self, worker: Any, task: Any, placing: bool = False) -> None:
        self._doing[task] = _Doing(worker, placing, time.monotonic())

    def _check_places(self) -> None:
        """Raise where nothing runs and no place is found."""
        if all(
            d.placing and time.monotonic() - d.since > _PLACED_WITHIN for d in self._doing.values()
        ):
            wants = {k: self.options[k] for k in ("num_cpus", "num_gpus") if self.options[k]}
            raise WorkerError(
                f"Ray found no place for a worker in {_PLACED_WITHIN / 60:.0f} minutes: each asks for {wants}, "
                f"free are {self.ray.available_resources()}. Is the cluster in use by others?"
            )


def _words(error: Exception) -> str:
    """What Ray says, on one line; of a traceback its ends."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return f"{type(error).__name__}: " + (
        text if len(text) < 400 else f"{text[:150]} ... {text[-250:]}"
    )
