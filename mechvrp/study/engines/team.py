"""Handing pieces out to workers that may die: who does what, again, and when it is given up.

Nothing here knows how workers are run (`Pool`), so that all of it can be tested without them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mechvrp.errors import WorkerError

__all__ = ["Died", "Ended", "Pool", "Raised", "Team"]

#: Workers that may die over one piece, or in a row while they start, or pieces in a row that may be given up.
_LIMIT = 3


@dataclass(frozen=True)
class Ended:
    """A worker has done what it was given."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """What a worker was given raised an error; the worker is well."""

    error: Exception


@dataclass(frozen=True)
class Died:
    """A worker is gone."""

    reason: str


Event = Ended | Raised | Died


class Pool(Protocol):
    """Processes that do one thing at a time. A worker's start counts as the first thing it does."""

    def start(self) -> Hashable:
        """Begin a worker."""

    def submit(self, worker: Hashable, call: str, *arguments: Any) -> None:
        """Give an idle worker something to do."""

    def wait(self) -> tuple[Hashable, Event]:
        """The next worker that is done with its start or what it was given."""

    def stop(self, worker: Hashable) -> None:
        """End a worker, dead or alive."""


@dataclass
class Team:
    """So many workers, replaced when they die.

    Attributes:
        pool: runs them.
        size: how many.
        tell: told of what goes wrong.
        welcome: told what the start of a worker gave; may raise, and refuse it.
    """

    pool: Pool
    size: int
    tell: Callable[[str], None]
    welcome: Callable[[Any], None]
    ready: list[Hashable] = field(default_factory=list)
    starting: set[Hashable] = field(default_factory=set)
    busy: dict[Hashable, int | None] = field(default_factory=dict)
    _lost: int = 0  # starts in a row that failed, and why the last one did
    _last: str = ""

    def ask(self, call: str, *arguments: Any) -> Any:
        """What one worker says.

        Raises:
            WorkerError: workers die over it.
            Exception: that of the worker.
        """
        reasons: list[str] = []
        while len(reasons) < _LIMIT:
            while not self.ready:
                self._fill()
                self._next()
            worker = self.ready.pop(0)
            self.busy[worker] = None
            self.pool.submit(worker, call, *arguments)
            found = None
            while found is None:
                found = self._next()
            match found[1]:
                case Ended(value):
                    self.ready.insert(0, worker)
                    return value
                case Raised(error):
                    self.ready.insert(0, worker)
                    raise error
                case Died(reason):
                    reasons.append(reason)
                    self.tell(f"a worker has ended ({reason}); another is asked")
        raise WorkerError(
            f"{_LIMIT} workers ended, one after the other, when they were asked about the model; the last: "
            f"{reasons[-1]}"
        )

    def hand_out(
        self,
        indices: Iterable[int],
        submit: Callable[[Hashable, int], None],
        done: Callable[[int, Any], None],
    ) -> None:
        """Have all pieces made, in order as far as workers allow.

        A piece whose worker dies is given to another. One that has ended three workers is given up, and the
        others are still made. After an error of a piece only earlier ones are made: it is the error
        that one process would have met first.

        Args:
            indices: of the pieces.
            submit: gives a piece to a worker.
            done: told of each piece that was made, and what its worker gave.

        Raises:
            WorkerError: pieces were given up, or workers cannot be started.
            Exception: that of the first piece that raised one.
        """
        waiting = sorted(indices)
        failed: dict[int, Exception] = {}
        deaths: dict[int, list[str]] = {}
        given_up: list[int] = []
        in_a_row = 0
        while True:
            bound = min(failed, default=float("inf"))
            if waiting and waiting[0] < bound:
                self._fill(len(waiting))
            while self.ready and waiting and waiting[0] < bound:
                worker, index = self.ready.pop(0), heapq.heappop(waiting)
                self.busy[worker] = index
                submit(worker, index)
            if not self.busy and not (waiting and waiting[0] < bound):
                break
            found = self._next()
            if found is None:
                continue
            worker, event, at = found
            assert at is not None
            match event:
                case Ended(value):
                    self.ready.append(worker)
                    in_a_row = 0
                    done(at, value)
                case Raised(error):
                    self.ready.append(worker)
                    failed[at] = error
                case Died(reason):
                    seen = deaths.setdefault(at, [])
                    seen.append(reason)
                    if len(seen) < _LIMIT:
                        heapq.heappush(waiting, at)
                        self.tell(f"a worker has ended ({reason}); piece {at} is given to another")
                        continue
                    given_up.append(at)
                    in_a_row += 1
                    self.tell(f"piece {at} has ended {_LIMIT} workers and is left out for now")
                    if in_a_row == _LIMIT:
                        raise WorkerError(self._given_up(given_up, deaths, stopped=True))
        if failed:
            raise failed[min(failed)]
        if given_up:
            raise WorkerError(self._given_up(given_up, deaths))

    def close(self) -> None:
        """End all workers."""
        for worker in (*self.ready, *self.starting, *self.busy):
            self.pool.stop(worker)
        self.ready, self.starting, self.busy = [], set(), {}

    def _fill(self, needed: int | None = None) -> None:
        """Start workers that are not there, if there is work for them."""
        there = len(self.ready) + len(self.starting) + len(self.busy)
        free = len(self.ready) + len(self.starting)
        wanted = self.size - there if needed is None else min(self.size - there, needed - free)
        if self._lost >= _LIMIT:
            if there:  # the others go on
                return
            raise WorkerError(
                f"{_LIMIT} workers ended, one after the other, while they loaded the model; the last: "
                f"{self._last}. Is there memory for so many replicas? Fewer --workers need less"
            )
        for _ in range(wanted):
            self.starting.add(self.pool.start())

    def _next(self) -> tuple[Hashable, Event, int | None] | None:
        """What ended of the work that was given; ``None`` if it was a worker's start."""
        worker, event = self.pool.wait()
        if worker not in self.starting:
            index = self.busy.pop(worker)
            if isinstance(event, Died):
                self.pool.stop(worker)
            return worker, event, index
        self.starting.discard(worker)
        match event:
            case Ended(value):
                self.ready.append(worker)
                self._lost = 0
                self.welcome(value)
            case Raised(error):
                self.pool.stop(worker)
                raise error
            case Died(reason):
                self.pool.stop(worker)
                self._lost += 1
                self._last = reason
                self.tell(f"a worker has ended while it started ({reason})")
        return None

    def _given_up(
        self, given_up: list[int], deaths: dict[int, list[str]], stopped: bool = False
    ) -> str:
        which = ", ".join(map(str, sorted(given_up)))
        rest = (
            "and no piece between them was finished, so the run was stopped"
            if stopped
            else "the other pieces are finished and kept"
        )
        return (
            f"pieces given up: {which}. Each ended {_LIMIT} workers, one after the other "
            f"(the last: {deaths[given_up[-1]][-1]}); {rest}. Out of memory? A smaller batch is another run; "
            "fewer --workers, or --engine local, go on with this one"
        )
