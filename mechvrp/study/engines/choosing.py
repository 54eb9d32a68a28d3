"""Which engine a study's models compute in."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mechvrp.errors import InputError
from mechvrp.models import VLM
from mechvrp.store.places import is_remote
from mechvrp.study.engines.base import Engine
from mechvrp.study.engines.local import LocalEngine, loader

if TYPE_CHECKING:
    from mechvrp.study.config import StudyConfig

__all__ = ["ENGINES", "check_engine", "open_engines"]

ENGINES = ("local", "ray")


def check_engine(
    engine: str,
    workers: int | None,
    address: str | None,
    entries: Sequence[str | VLM],
    config: StudyConfig,
) -> None:
    """Raise ``InputError`` where an engine is not there, or cannot do what is asked; nothing is started."""
    if engine not in ENGINES:
        raise InputError(f"engines are {', '.join(ENGINES)}; got {engine!r}")
    if engine == "local":
        for name, value in (("workers", workers), ("address", address)):
            if value is not None:
                raise InputError(
                    f"{name} {value!r} is for the engine ray; the engine local is this one process. "
                    f"Add --engine ray (engine='ray'), or leave {name} out"
                )
        return
    if workers is not None and (type(workers) is not int or workers < 1):
        raise InputError(f"workers must be a whole number of at least 1; got {workers!r}")
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "the engine ray needs Ray, which is not installed: pip install 'mechvrp[distributed]'"
        )
    for entry in entries:
        if isinstance(entry, VLM):
            raise InputError(
                f"the model {entry.name} is an object in this process, and workers of the engine ray load "
                "their own replicas: give its name, folder or hub id"
            )
    if ":" in config.device:
        raise InputError(
            f"device {config.device!r} is one device, and each worker of the engine ray has its own: ask for "
            f"{config.device.split(':')[0]!r}. Which GPUs are used is Ray's to know (CUDA_VISIBLE_DEVICES)"
        )


@contextmanager
def open_engines(
    engine: str,
    workers: int | None,
    address: str | None,
    entries: Sequence[str | VLM],
    config: StudyConfig,
    folder: Path,
    say: Console,
) -> Iterator[list[Engine]]:
    """An engine for each model; nothing is loaded or started before it is needed.

    Args:
        engine, workers, address, entries, config: as `check_engine` has passed them.
        folder: the run's.
        say: where to report to.

    Raises:
        InputError: workers, and a run folder in this process's memory.
    """
    if engine == "local":
        yield [LocalEngine(loader(entry, config), not isinstance(entry, VLM)) for entry in entries]
        return
    if is_remote(folder) and folder.protocol == "memory":  # type: ignore[attr-defined]
        raise InputError(
            f"workers of the engine ray write into a folder that all of them see, and {folder} is in this "
            "process's memory: give a folder or an address on shared storage, or use the engine local"
        )
    from mechvrp.study.engines.ray_engine import RayEngine, RaySession

    session = RaySession(workers, address, config.device, say)
    engines = [RayEngine(session, str(entry), config.dtype, folder) for entry in entries]
    try:
        yield list(engines)
    except KeyboardInterrupt:
        say.print("interrupted: the workers are ended; the same command goes on")
        raise
    finally:
        for one in engines:
            one.close()
        session.close()
