"""The engine ``ray``: data-parallel workers, each with a replica on a device of its own."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from mechvrp.errors import RunFolderError, WorkerError
from mechvrp.store import software_versions
from mechvrp.store.atomic import TEMPORARY, remove_temporaries, write_atomically
from mechvrp.store.places import is_remote
from mechvrp.study.engines.base import Advance, Work
from mechvrp.study.engines.ray_session import RaySession
from mechvrp.study.engines.ray_worker import Loaded, Target
from mechvrp.study.engines.team import Team

if TYPE_CHECKING:
    from mechvrp.store import Chunks

__all__ = ["RayEngine", "RaySession"]

#: Seconds within which pieces that workers wrote must be seen here.
_SEEN_WITHIN = 120.0


@dataclass
class RayEngine:
    """One model's replicas.

    Attributes:
        session: Ray, for all models of a study.
        entry: name, folder or hub id, loaded by each worker.
        dtype: as ``StudyConfig``.
        folder: the run's: on shared storage, or an address.
    """

    session: RaySession
    entry: str
    dtype: str
    folder: Path
    _team: Team | None = None
    _known: list[Loaded] = field(default_factory=list)

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        return self.team.ask("ask", question, *arguments)

    def run(self, work: Work, chunks: Chunks, advance: Advance) -> None:
        chunks.restore()
        missing = chunks.missing()
        for index in sorted(set(range(len(chunks))) - set(missing)):
            advance(work.steps(index))
        if not missing:
            return
        team, pool = self.team, self.session.pool
        token = uuid.uuid4().hex
        sign = self.folder / f"{TEMPORARY}sign-{token}"
        pieces = chunks.folder
        if not is_remote(sign):  # as all machines call it, wherever they are
            sign, pieces = sign.resolve(), pieces.resolve()
        target = Target(pieces, chunks.total, chunks.size, sign, token)
        write_atomically(sign, lambda path: path.write_text(token))
        try:
            with pool.shared(work.compute) as compute:
                team.hand_out(
                    missing,
                    lambda worker, index: pool.submit(
                        worker, "piece", compute, work.inputs(index), target, index
                    ),
                    lambda index, _: advance(work.steps(index)),
                )
        finally:
            sign.unlink(missing_ok=True)
        _wait_for(chunks)
        remove_temporaries(chunks.folder)  # of workers that were killed while they wrote

    def close(self) -> None:
        if self._team is not None:
            with contextlib.suppress(Exception):  # the cluster may be gone, and the workers with it
                self._team.close()
            self._team = None
            self._known.clear()

    @property
    def team(self) -> Team:
        """The workers; made at the first use."""
        if self._team is None:
            pool = self.session.open(self.entry, self.dtype)
            self._team = Team(pool, self.session.size, self._tell, self._welcome)
        return self._team

    def _tell(self, words: str) -> None:
        self.session.say.print(f"  [yellow]ray[/yellow]: {escape(words)}", soft_wrap=True)

    def _welcome(self, loaded: Loaded) -> None:
        """Refuse a worker whose packages or weights are not the others'."""
        here = software_versions()["packages"]
        other = [
            f"{name} {loaded.packages.get(name)} against {version}"
            for name, version in here.items()
            if loaded.packages.get(name) != version
        ]
        if other:
            raise WorkerError(
                f"{loaded.host} has other packages than this process: {', '.join(other)}. Records would not be "
                "those of one process; install the same versions on all machines"
            )
        for first in self._known[:1]:
            if loaded.fingerprint != first.fingerprint:
                raise WorkerError(
                    f"{loaded.host} has loaded other weights of {self.entry} (fingerprint "
                    f"{loaded.fingerprint}) than {first.host} ({first.fingerprint}); give all "
                    "machines the same checkpoint"
                )
        self._known.append(loaded)


def _wait_for(chunks: Chunks) -> None:
    """Until what workers wrote is seen here: a network file system may be behind."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while missing := chunks.missing():
        if time.monotonic() > deadline:
            raise RunFolderError(
                f"workers have written all pieces, and {len(missing)} of them are not in {chunks.folder}: is "
                "it on storage that all machines share? The same command goes on"
            )
        time.sleep(0.5)
