"""``Panel``: an explorer driven by messages, one at a time in a thread; what is shown goes out by name.

A view (the widget, or a test) sends messages such as ``{"do": "ablate"}`` and is given, by
``show(name, value)``, whatever changed: one of ``NAMES`` and a JSON value. Only ``cancel`` is done at once.
The last ``status`` of a message has the message's ``id``, if it has one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mechvrp.errors import InputError, MechVRPError, SiteError
from mechvrp.explorer import showing
from mechvrp.explorer.jobs import Cancelled, Job, Worker

if TYPE_CHECKING:
    from mechvrp.explorer.outcomes import Outcome
    from mechvrp.explorer.session import Explorer

__all__ = ["NAMES", "Panel"]

T = TypeVar("T", int, str)

#: What is shown, by name.
NAMES = (
    "setup",
    "gallery",
    "example",
    "place",
    "outcome",
    "heat",
    "circuit",
    "curve",
    "status",
)

#: Seconds between two tellings of progress.
_EVERY = 0.1


class Panel:
    """What a view talks to.

    Args:
        session: what is explored.
        show: called with a name and a JSON value, from the panel's thread.
    """

    def __init__(self, session: Explorer, show: Callable[[str, Any], None]) -> None:
        self.session = session
        self._show = show
        self._worker = Worker()
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._told = 0.0
        self._curve: dict[str, Any] = {}  # the finished one of this circuit
        self._chosen: tuple[int, ...] = ()
        self._asked: dict[str, Any] = {"task": None, "right": None, "text": ""}
        self._actions: dict[str, Callable[[dict[str, Any], Job], str | None]] = {
            "filter": self._filter,
            "choose": self._choose,
            "look": self._look,
            "clean": lambda m, j: self._outcome(session.clean()),
            "ablate": self._ablate,
            "patch": self._patch,
            "map": self._map,
            "add": self._add,
            "top": self._top,
            "remove": self._remove,
            "clear": self._clear,
            "name": self._name,
            "save": self._save,
            "load": self._load,
            "grow": self._grow,
        }

    def start(self) -> None:
        """Show the first page, the chosen example and its clean run."""
        self._show("setup", showing.setup_of(self.session))
        self.handle({"do": "filter"})
        self.handle({"do": "choose", "index": self.session.index})

    def handle(self, message: Any) -> None:
        """Do what a message says: ``cancel`` at once, all else in turn."""
        action = message.get("do") if isinstance(message, dict) else None
        if action == "cancel":
            with self._lock:
                for job in self._jobs:
                    job.cancel()
            return
        job = Job(self._progress)
        with self._lock:
            self._jobs.append(job)
        self._worker.submit(lambda: self._do(action, message, job))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all messages are done; whether they are."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Cancel what is being done and end the thread."""
        self.handle({"do": "cancel"})
        self._worker.close()

    # ---- in the panel's thread ----------------------------------------------------------------

    def _do(self, action: Any, message: Any, job: Job) -> None:
        began = time.perf_counter()
        self._told = began  # what is quick tells no progress
        note = error = ""
        try:
            job.check()
            self._show("status", {"busy": True, "label": str(action), "done": 0, "total": 0})
            if action not in self._actions:
                raise InputError(
                    f"no such message: {message!r:.80}; 'do' is one of {', '.join(self._actions)}, cancel"
                )
            note = self._actions[action](message, job) or ""
        except Cancelled:
            note = "Cancelled."
        except (MechVRPError, OSError) as problem:
            error = str(problem)
        except Exception as problem:  # shown, so that the view does not stay busy for ever
            error = f"{type(problem).__name__}: {problem}"
        finally:
            with self._lock:
                self._jobs.remove(job)
        took = 1000 * (time.perf_counter() - began)
        self._show(
            "status",
            {
                "busy": False,
                "did": str(action),
                "note": note,
                "error": error,
                "took_ms": took,
                "id": message.get("id") if isinstance(message, dict) else None,
            },
        )

    def _progress(self, label: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._told >= _EVERY:
            self._told = now
            self._show("status", {"busy": True, "label": label, "done": done, "total": total})

    def _filter(self, message: dict[str, Any], job: Job) -> None:
        page = _read(message, "page", int, 0)
        asked: dict[str, Any] = {
            "task": message.get("task") or None,
            "right": message.get("right"),
            "text": message.get("text") or "",
        }
        examples = self.session.examples
        examples.check_filter(**asked)
        if asked["right"] is not None:
            examples.answer(examples.filter(task=asked["task"], text=asked["text"]), job=job)
        self._chosen = examples.filter(**asked)
        self._asked = asked
        self._gallery(page)

    def _gallery(self, page: int) -> None:
        code = self.session.examples.filter_code(**self._asked)
        self._show(
            "gallery",
            showing.gallery_of(self.session, self._chosen, page, dict(self._asked), code),
        )

    def _choose(self, message: dict[str, Any], job: Job) -> str:
        session, note = self.session, ""
        index = session.examples.index(_read(message, "index", int))
        try:
            session.choose(index)
        except SiteError as error:
            place = session.place
            session.look(
                place.component,
                place.layer,
                "image" if place.component == "projected" else "last",
                units=place.units,
                heads=place.heads,
            )
            session.choose(index)
            note = f"Positions set to {session.place.positions}: {error}"
        self._show("example", showing.example_of(session))
        self._show("place", showing.place_of(session))
        self._show("circuit", showing.circuit_of(session))
        self._show("heat", {})
        self._outcome(session.clean())
        return note

    def _look(self, message: dict[str, Any], job: Job) -> None:
        self.session.look(
            _read(message, "component", str),
            message.get("layer"),
            message.get("positions", "last"),
            units=message.get("units"),
            heads=message.get("heads"),
        )
        self._show("place", showing.place_of(self.session))

    def _outcome(self, outcome: Outcome) -> None:
        self._show("outcome", showing.outcome_of(outcome))

    def _ablate(self, message: dict[str, Any], job: Job) -> None:
        self._outcome(
            self.session.ablated(
                message.get("method", "zero"), circuit=bool(message.get("circuit")), job=job
            )
        )

    def _patch(self, message: dict[str, Any], job: Job) -> None:
        self._outcome(
            self.session.patched(self._donor(message), circuit=bool(message.get("circuit")))
        )

    @staticmethod
    def _donor(message: dict[str, Any]) -> int:
        if message.get("donor") == "":  # an empty field
            raise InputError("give the number of the example whose values are put in")
        return _read(message, "donor", int)

    def _map(self, message: dict[str, Any], job: Job) -> None:
        found = self.session.map(
            message.get("cells", "tokens"),
            message.get("method", "zero"),
            donor=self._donor(message) if "donor" in message else None,
            job=job,
        )
        self._show("heat", showing.heat_of(found))

    def _add(self, message: dict[str, Any], job: Job) -> None:
        self.session.circuit.add(message.get("nodes") or self.session.place.nodes())
        self._circuit()

    def _top(self, message: dict[str, Any], job: Job) -> str:
        before = len(self.session.circuit)
        self.session.add_top(_read(message, "ranking", str), _read(message, "k", int))
        self._circuit()
        added = len(self.session.circuit) - before
        return f"Added {added} node{'s' * (added != 1)}."

    def _remove(self, message: dict[str, Any], job: Job) -> None:
        self.session.circuit.remove(_read(message, "node", str))
        self._circuit()

    def _clear(self, message: dict[str, Any], job: Job) -> None:
        self.session.circuit.clear()
        self._circuit()

    def _name(self, message: dict[str, Any], job: Job) -> None:
        self.session.circuit.name = _read(message, "name", str).strip()
        self._show("circuit", showing.circuit_of(self.session))

    def _save(self, message: dict[str, Any], job: Job) -> str:
        path = self._path(message)
        self.session.circuit.save(path)
        return f"Saved as {path}."

    def _load(self, message: dict[str, Any], job: Job) -> str:
        path = self._path(message)
        self.session.circuit.load(path)
        self._circuit()
        return f"Loaded {path}."

    @staticmethod
    def _path(message: dict[str, Any]) -> str:
        path = _read(message, "path", str, "").strip()
        if not path:
            raise InputError("give a file name, such as circuit.json")
        return path

    def _grow(self, message: dict[str, Any], job: Job) -> None:
        before = self._curve
        self._show("curve", {})
        try:
            found = self.session.curve(
                message.get("n", 64),
                message.get("method", "zero"),
                draws=message.get("draws", 9),
                seed=message.get("seed", 0),
                job=job,
                on_curve=lambda view: self._show("curve", showing.curve_of(view, False)),
            )
        except Exception:
            if before:  # it is of this circuit still, and finished
                self._show("curve", before)
            raise
        self._curve = showing.curve_of(found, True)
        self._show("curve", self._curve)

    def _circuit(self) -> None:
        """The circuit changed: a curve of the one before is no longer its."""
        self._show("circuit", showing.circuit_of(self.session))
        self._curve = {}
        self._show("curve", {})


def _read(message: dict[str, Any], name: str, kind: type[T], *default: T) -> T:
    """What a message holds by a name; ``default`` where it holds nothing.

    Raises:
        InputError: it lacks this, or has something else there.
    """
    found = message.get(name)
    if found is None and default:
        return default[0]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise InputError(
            f"{message['do']}: the message lacks or mistypes {name!r} ({found!r:.40}); expected "
            + {int: "a whole number", str: "text"}[kind]
        )
    return found
