"""Run all benchmarks, print the tables and write them to RESULTS.md and results.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import attention, attribution, startup, sweeping, tracing
from benchmarks.models import SHAPES
from benchmarks.table import Row, markdown

HERE = Path(__file__).parent


def _machine() -> dict[str, object]:
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
        "python": platform.python_version(),
        **{
            name: version(name) for name in ("torch", "transformers", "nnsight", "transformer-lens")
        },
    }


def main(
    quick: Annotated[
        bool, typer.Option(help="Tiny shapes and no files: does everything run?")
    ] = False,
    only: Annotated[str, typer.Option(help="Only sections whose title contains this.")] = "",
) -> None:
    """Measure what mechvrp claims, as ratios in one run (about a quarter of an hour on two cores)."""
    shapes = {k: s.smaller() for k, s in SHAPES.items()} if quick else SHAPES
    sections: dict[str, Callable[[], list[Row]]] = {
        "Start-up": startup.rows,
        "Traces (tiny-llava)": tracing.rows,
        **{
            f"Sweeps, {name}-shaped": lambda shape=shape: sweeping.rows(shape)
            for name, shape in shapes.items()
        },
        "Attention rows": lambda: attention.rows(shapes["llava"]),
        "Attribution patching on the embedded models": attribution.rows,
    }
    machine = _machine()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios of times taken in one run on the same weights and inputs, whose",
        "results are compared before anything is timed; each warms up on another batch than it times.",
        "",
        ", ".join(f"{k} {v}" for k, v in machine.items()),
        "",
    ]
    records = {}
    for title, run in sections.items():
        if only not in title:
            continue
        rows = run()
        for row in rows:
            print(f"{title}: {row.what}: {row.value:.3g} {row.unit} {row.detail}", flush=True)
        lines += [f"## {title}", "", *markdown(rows), ""]
        records[title] = [row.record() for row in rows]
    if quick or only:
        print("\n".join(lines))
        return
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    (HERE / "results.json").write_text(
        json.dumps({"machine": machine, "results": records}, indent=1) + "\n"
    )


if __name__ == "__main__":
    typer.run(main)
