"""Run all benchmarks, print the table and write it to RESULTS.md and results.json."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

from benchmarks import startup, tracing

HERE = Path(__file__).parent


def main() -> None:
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load at start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    lines = ["# Benchmarks", "", "Written by `make bench`; medians of interleaved runs.", ""]
    lines += [", ".join(f"{k} {v}" for k, v in machine.items()), ""]
    results: dict[str, list[dict[str, object]]] = {}
    for title, module in (("Start-up", startup), ("Traces (tiny-llava, CPU)", tracing)):
        lines += [f"## {title}", "", "| what | measured |", "|---|---|"]
        results[title] = []
        for what, value, unit in module.rows():
            print(f"{title}: {what}: {value:.3g} {unit}", flush=True)
            lines.append(f"| {what} | {value:.3g} {unit} |")
            results[title].append({"what": what, "value": value, "unit": unit})
        lines.append("")
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    (HERE / "results.json").write_text(
        json.dumps({"machine": machine, "results": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
