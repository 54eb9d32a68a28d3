"""Run all benchmarks, print the tables and write them to RESULTS.md and results.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import (
    ablating,
    arithmetic,
    attention,
    attribution,
    exploring,
    monitoring,
    observing,
    planting,
    scaling,
    startup,
    sweeping,
    tracing,
)
from benchmarks.models import SHAPES
from benchmarks.table import Row, markdown

HERE = Path(__file__).parent
#: Sections that are measured by commands of their own.
APART = (scaling.TITLE,)


def machine() -> dict[str, object]:
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = [x for x in cpu.read_text().splitlines() if x.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load at start": round(os.getloadavg()[0], 2),
        "freed memory": "kept" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "given back",
        "python": platform.python_version(),
        **{
            name: version(name) for name in ("torch", "transformers", "nnsight", "transformer-lens")
        },
    }


def main(
    quick: Annotated[
        bool, typer.Option(help="Tiny shapes and no files: does everything run?")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Only sections whose title contains this; the others' figures stay.")
    ] = "",
) -> None:
    """Measure what mechvrp claims, as ratios in one run (about twenty minutes on two cores)."""
    shapes = {k: s.smaller() for k, s in SHAPES.items()} if quick else SHAPES
    sections: dict[str, Callable[[], list[Row]]] = {
        "Start-up": startup.rows,
        "Traces (tiny-llava)": tracing.rows,
        **{
            f"Sweeps, {name}-shaped": lambda shape=shape: sweeping.rows(shape)
            for name, shape in shapes.items()
        },
        **{
            f"Arithmetic, {name}-shaped": lambda shape=shape: arithmetic.rows(shape)
            for name, shape in shapes.items()
            if name in ("llava", "qwen2-vl")
        },
        "Attention rows": lambda: attention.rows(shapes["llava"]),
        "Observation pass": lambda: observing.rows(shapes["llava"]),
        "Monitor": lambda: monitoring.rows(shapes["llava"]),
        "Ablation curves": lambda: ablating.rows(shapes["llava"], many=64 if quick else 1000),
        "Attribution patching on the embedded models": attribution.rows,
        "Planted circuits in the embedded models": planting.rows,
        "Explorer clicks": lambda: exploring.rows(clicks=3 if quick else 30),
    }
    if not only and not quick:
        _write({title: section for title, section in _known().items() if title in APART})
    for title, run in sections.items():
        if only not in title:
            continue
        what = machine()
        rows = run()
        for row in rows:
            print(f"{title}: {row.what}: {row.value:.3g} {row.unit} {row.detail}", flush=True)
        if not quick:
            keep(title, what, rows, order=tuple(sections))


def keep(
    title: str, machine: dict[str, object], rows: list[Row], order: tuple[str, ...] = ()
) -> None:
    """Put a section into results.json and RESULTS.md, in place of the one of its title.

    Args:
        title, machine, rows: of the section.
        order: titles in the order of the page; others follow, those of `APART` last.
    """
    results = _known() | {title: {"machine": machine, "rows": [asdict(row) for row in rows]}}
    order = (*(order or [t for t in results if t not in APART]), *APART)
    _write({title: results[title] for title in order if title in results})


def _known() -> dict[str, Any]:
    kept = HERE / "results.json"
    return json.loads(kept.read_text()) if kept.exists() else {}


def _write(results: dict[str, Any]) -> None:
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "RESULTS.md").write_text(_page(results))


def _page(results: dict[str, Any]) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. A section is one run: ratios of times on the same weights and inputs, whose",
        "results are compared in it; each warms up on another batch than it times. `make bench` has glibc keep",
        "freed memory (two environment variables in the Makefile), for all alike: where a virtual machine's",
        "pages are dear, giving large tensors back and faulting them in anew takes a tenth to a quarter of",
        "the time.",
        "",
    ]
    for title, section in results.items():
        machine = ", ".join(f"{k} {v}" for k, v in section["machine"].items())
        rows = [Row(**row) for row in section["rows"]]
        lines += [f"## {title}", "", *markdown(rows), "", f"On {machine}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
