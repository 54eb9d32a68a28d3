"""Whole studies of more and more examples: seconds, memory and disk against n; two workers against one.

``python -m benchmarks.scaling`` may run for hours, and is no part of ``make bench``, which leaves its section
of RESULTS.md as it is. Each study is a process of its own in ``runs/scaling``, with the memory of its whole
tree looked at all the while. One that was killed is begun anew, since what it measured is gone; with
``--resume`` those that ended are not measured again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.table import Row

__all__ = ["Measured", "figure", "measure", "rows"]

HERE = Path(__file__).parent
TITLE = "Studies of more and more examples (tiny-llava)"
FIGURE = HERE.parent / "docs/images/scaling.png"

#: Of `mechvrp study`: everything else is the preset "quick".
OPTIONS = ("--model", "tiny-llava", "--data", "scenes", "--device", "cpu")
_STUDY = "from mechvrp.cli import main; main()"


@dataclass(frozen=True)
class Measured:
    """One study.

    Attributes:
        n, workers: examples; workers of the engine ray, 0 for the engine local.
        threads: of each process that computes, at most.
        seconds: of the whole command, and by what was done, as the study itself counts.
        processor: seconds of processor time of all its processes (Ray's own daemons are not among them).
        memory: most bytes that its processes held together; pages they share are counted for each.
        disk: bytes of the run folder.
    """

    n: int
    workers: int
    threads: int
    seconds: float
    processor: float
    parts: dict[str, float]
    memory: int
    disk: int


def measure(
    n: int,
    workers: int,
    threads: int,
    folder: Path,
    more: tuple[str, ...] = (),
    *,
    resume: bool = False,
) -> Measured:
    """Run a study of so many examples, and look at it.

    Args:
        n, workers, threads: as in `Measured`.
        folder: of all runs; what was measured is kept there, in a JSON file beside the run.
        more: further options of ``mechvrp study``.
        resume: take what the folder has of this very study.

    Raises:
        RuntimeError: it failed; its words are in the message.
    """
    out = folder / f"{n}-{workers}"
    kept = folder / f"{n}-{workers}-{threads}.json"
    if resume and kept.is_file():
        return Measured(**json.loads(kept.read_text()))
    kept.unlink(missing_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    engine = ("--engine", "ray", "--workers", str(workers)) if workers else ()
    command = [sys.executable, "-c", _STUDY, "study", *OPTIONS, "--n", str(n), *engine, *more]
    log = folder / f"{n}-{workers}.log"
    before, start = _processor(), time.perf_counter()
    with log.open("w") as words:
        process = subprocess.Popen(
            [*command, "--out", str(out), "--quiet"],
            stdout=words,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _held(process.pid))
            time.sleep(0.25)
    seconds, processor = time.perf_counter() - start, _processor() - before
    if process.returncode:
        raise RuntimeError(f"the study of {n} examples failed: {log.read_text()[-2000:]}")
    (section,) = json.loads((out / "summary.json").read_text())["sections"]
    disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    found = Measured(n, workers, threads, seconds, processor, section["timings_s"], memory, disk)
    kept.write_text(json.dumps(asdict(found)))
    return found


def _processor() -> float:
    """Seconds of processor time of all processes that this one has waited for, and of those they had."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _held(pid: int) -> int:
    """Resident bytes of a process and all that it has started."""
    found = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                found += one.memory_info().rss
    return found


def rows(sizes: list[Measured], alone: Measured, pair: Measured) -> list[Row]:
    """The figures.

    Args:
        sizes: studies of ascending n, in one process.
        alone, pair: one worker and two, of as many examples and with as many threads each.
    """
    found = []
    for one in sizes:
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in one.parts.items())
        found.append(
            Row(
                f"processor time of a study of {one.n:,} examples",
                one.processor,
                "s",
                detail=f"one process, threads: {one.threads}; by the clock {one.seconds:.0f} s: {parts}; the "
                "rest is start, data and report",
            )
        )
        found.append(
            Row(
                f"its memory at most, of {one.n:,} examples",
                one.memory / 2**20,
                "MiB",
                detail=f"resident; {one.disk / 2**20:.0f} MiB in the run folder",
            )
        )
    for less, greater in itertools.pairwise(sizes):
        found.append(
            Row(
                f"processor time of a further example, {less.n:,} to {greater.n:,}",
                1000 * (greater.processor - less.processor) / (greater.n - less.n),
                "ms",
                detail="as much at every size is what linear means",
            )
        )
    found.append(
        Row(
            f"observations of {pair.n:,} examples, two workers against one",
            alone.parts["observations"] / pair.parts["observations"],
            "x",
            detail=f"{alone.threads} thread each; {alone.parts['observations']:.1f} s against "
            f"{pair.parts['observations']:.1f} s; the whole command {alone.seconds:.0f} s against "
            f"{pair.seconds:.0f} s, with Ray's start and a model's load in each worker; at most "
            f"{alone.memory / 2**20:.0f} MiB against {pair.memory / 2**20:.0f} MiB, Ray's own processes among "
            "them",
        )
    )
    return found


def figure(sizes: list[Measured]) -> Any:
    """Time and memory against n, with lines that are proportional to it."""
    from plotly.subplots import make_subplots

    n = [one.n for one in sizes]
    made = make_subplots(
        1, 2, subplot_titles=("Processor time, seconds", "MiB"), horizontal_spacing=0.1
    )
    grey = {"dash": "dot", "color": "grey"}
    drawn = [
        (1, "processor time of the whole study", [one.processor for one in sizes]),
        (2, "memory at most", [one.memory / 2**20 for one in sizes]),
        (2, "run folder", [one.disk / 2**20 for one in sizes]),
    ]
    for col, name, values in drawn:
        made.add_scatter(x=n, y=values, name=name, mode="lines+markers", row=1, col=col)
    for col, last in ((1, drawn[0][2][-1]), (2, drawn[2][2][-1])):
        made.add_scatter(
            x=n, y=[last * x / n[-1] for x in n], name="proportional to n", mode="lines", line=grey,
            showlegend=col == 1, row=1, col=col,
        )  # fmt: skip
    made.update_xaxes(type="log", dtick=1, title="examples")
    made.update_yaxes(type="log", dtick=1)
    made.update_layout(
        template="plotly_white",
        width=1000,
        height=420,
        margin={"t": 40},
        legend={"orientation": "h", "y": -0.2},
    )
    return made


def main(
    n: Annotated[
        list[int] | None, typer.Option(help="Sizes, ascending. \\[default: 1000, 10000, 100000]")
    ] = None,
    pair: Annotated[int, typer.Option(help="Examples of two workers against one.")] = 2000,
    threads: Annotated[int, typer.Option(help="Of one process.")] = os.cpu_count() or 1,
    folder: Annotated[Path, typer.Option(help="Where the runs are.")] = Path("runs/scaling"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Do not measure again what the folder has measurements of."),
    ] = False,
    quick: Annotated[bool, typer.Option(help="Small sizes and no files: does it run?")] = False,
) -> None:
    """Measure, print, and write a section of RESULTS.md and the figure."""
    from benchmarks.__main__ import keep, machine
    from mechvrp.plots import save_figure

    what = machine()
    more = ("--k", "0", "--k", "2", "--resamples", "100") if quick else ()
    sizes = []
    for size in (48, 96) if quick else (n or (1_000, 10_000, 100_000)):
        sizes.append(measure(size, 0, threads, folder, more, resume=resume))
        print(asdict(sizes[-1]), flush=True)
    # A thread each: two workers then have twice the processors of one, as with a GPU each.
    both = [
        measure(96 if quick else pair, workers, 1, folder, more, resume=resume)
        for workers in (1, 2)
    ]
    found = rows(sizes, *both)
    for row in found:
        print(f"{row.what}: {row.value:.3g} {row.unit} {row.detail}", flush=True)
    made = figure(sizes)
    if not quick:
        keep(TITLE, what, found)
        save_figure(made, FIGURE)
    else:
        made.write_html(folder / "scaling.html")


if __name__ == "__main__":
    typer.run(main)
