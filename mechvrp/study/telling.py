"""What a study says while it runs, how long its stages took, and what it left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

__all__ = ["Teller"]


@dataclass
class Teller:
    """One model's stage: its words, seconds and gaps.

    Attributes:
        say: where to report to.
        progress: show bars.
        timings: seconds by what was done.
        notes: what was left out, and why.
    """

    say: Console
    progress: bool
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - start, 3)

    def done(self, name: str, words: str) -> None:
        self.say.print(f"  {name}: {escape(words)} ({self.timings[name]:.1f} s)", soft_wrap=True)

    def gap(self, what: str, error: Exception | str) -> None:
        """Note what could not be done; a report shows it where the result would be."""
        self.notes.append(f"{what}: {error}")
        self.say.print(f"  [yellow]{what}[/yellow]: {escape(str(error))}", soft_wrap=True)

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        with Progress(disable=not self.progress, transient=True, console=self.say) as bar:
            task = bar.add_task(name, total=total)
            yield lambda n: bar.advance(task, n)
