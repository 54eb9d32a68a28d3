"""The circuits of existence answers in the three embedded models: found, proven, compared, and told.

python docs/circuits/study.py --quick      # about two minutes on two cores
python docs/circuits/study.py              # at the sizes of docs/circuits/README.md

Per model: the circuit of right existence answers, and that of hallucinated ones ("yes" to a digit that is
not there), each discovered on some scenes and proven on others; rankings of units and what ablating them does;
where image information reaches the text; which heads move it. Then what distinguishes the three checkpoints.
One training seed of each: nothing here is about the families they are built like.
"""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from across import differences
from one_model import QUICK, Found, Sizes, study_model
from telling import Page, apart, words_of

from mechvrp.plots import ablations_by_model, image_flows_by_model

MODELS = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")


def main(
    out: Annotated[
        Path, typer.Option(help="Folder for page.html, tables, and circuits as JSON.")
    ] = Path("runs/circuits"),
    model: Annotated[
        list[str] | None,
        typer.Option(help="An embedded model; once for each. By default all three."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few pairs and draws: to see it work, not to believe it."),
    ] = False,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="Pairs that a circuit is found on.")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=2, help="Pairs, of other scenes, that it is proven on.")
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            min=2, help="Scenes searched for hallucinations, and as many for their proof."
        ),
    ] = None,
    polls: Annotated[
        int | None, typer.Option(min=20, help="Held-out polls; ablations run on the first of them.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            min=1, help="Random circuits, units and heads: no p is below 1 / (draws + 1)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes, random sets and resampling.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Models studied side by side.")] = 2,
) -> None:
    """The circuits of existence answers in the embedded models: found, proven, compared, and told."""
    sizes = QUICK if quick else Sizes()
    given = {"find": pairs, "prove": held_out, "scenes": scenes, "asked": polls, "draws": draws}
    sizes = replace(sizes, **{name: n for name, n in given.items() if n is not None})
    run(model or list(MODELS), sizes, out=out, seed=seed, jobs=jobs)


def run(names: list[str], sizes: Sizes, *, out: Path, seed: int = 0, jobs: int = 1) -> list[Found]:
    """Study the models, compare them, and write the folder."""
    if len(set(names)) < len(names):
        raise SystemExit(f"each model is studied once; got {', '.join(names)}")
    out.mkdir(parents=True, exist_ok=True)
    jobs = min(jobs, len(names))
    if jobs == 1:
        found = [study_model(name, sizes, seed, _say) for name in names]
    else:
        # Processes of their own: nnsight's traces are not made for threads.
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with ProcessPoolExecutor(
            jobs, get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            waiting = [pool.submit(study_model, name, sizes, seed, _say) for name in names]
            found = [one.result() for one in waiting]
    write(found, sizes, out, seed)
    print(f"written to {out / 'page.html'}")
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def write(found: list[Found], sizes: Sizes, out: Path, seed: int) -> None:
    """Tables as CSV, circuits and curves as JSON, and the page."""
    table, notes = (
        differences(found, seed=seed, resamples=sizes.resamples)
        if len(found) > 1
        else (pd.DataFrame(), [])
    )
    for one in found:
        _write_one(one, out)
    if len(table):
        table.to_csv(out / "differences.csv", index=False)
    held: dict[str, Any] = {
        "seed": seed,
        "sizes": asdict(sizes),
        "models": {
            one.name: {
                "told": words_of(one),
                "gaps": one.gaps,
                "overlap": one.overlap,
                "hallucinated": one.hallucinated,
                "seconds": one.seconds,
            }
            for one in found
        },
        "notes": notes,
    }
    (out / "results.json").write_text(
        json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    page = Page("Circuits of existence answers in three small checkpoints")
    page.text(
        "Statements about these checkpoints on pictures of handwritten digits: one training seed each, so "
        "nothing here is about families of models. Figures in brackets are 95 % intervals from resampling "
        f"images. Seed {seed}; sizes: "
        + ", ".join(f"{name} {value}" for name, value in asdict(sizes).items())
        + "."
    )
    if len(table):
        _across(page, found, table, notes)
    for one in found:
        page.heading(one.name)
        for text in words_of(one):
            page.text(text)
        for step, why in one.gaps.items():
            page.text(f"A gap: {step}: {why}", "gap")
        for title, figure in one.figures.items():
            page.figure(figure, f"{one.name}: {title}")
    page.write(out / "page.html")
    for one in found:
        print(f"\n{one.name}")
        for text in [*words_of(one), *(f"a gap: {step}: {why}" for step, why in one.gaps.items())]:
            print(f"  {text}")


def _across(page: Page, found: list[Found], table: pd.DataFrame, notes: list[str]) -> None:
    yes, no = apart(table)
    page.heading("What distinguishes these checkpoints")
    page.text(
        "Intervals that leave out 0, and where there is a p, q of at most 0.05 (Benjamini and Hochberg over "
        f"the {int(table['p'].notna().sum())} comparisons that have one)."
    )
    page.items(yes or ["Nothing."])
    page.heading("What doesn't, as far as can be told")
    page.text("The interval says how large a difference could still be.")
    page.items(no or ["Nothing."])
    if notes:
        page.text("Missing: " + "; ".join(notes), "gap")
    for kind in ("MLP neurons", "residual dimensions"):
        curves = {one.name: one.curves[kind] for one in found if kind in one.curves}
        if curves:
            page.figure(ablations_by_model(curves), f"{kind} zeroed, by probe weight")
    flows = {one.name: one.flow for one in found if one.flow is not None}
    if len(flows) > 1:
        from mechvrp.circuits import compare_image_flows

        page.figure(
            image_flows_by_model(compare_image_flows(flows)),
            "how much of the change that another image makes the text positions carry",
        )


def _write_one(one: Found, out: Path) -> None:
    folder = out / one.name
    folder.mkdir(exist_ok=True)

    def file(name: str) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in name).split()).lower()

    for name, circuit in one.circuits.items():
        circuit.save(folder / f"circuit-{file(name)}.json")
    for name, curve in one.curves.items():
        curve.save(folder / f"curve-{file(name)}.json")
        curve.to_frame().to_csv(folder / f"curve-{file(name)}.csv", index=False)
    tables = dict(one.tables) | {"answers": one.answers, "probe": one.probe}
    tables |= {f"proof: {name}": proof.to_frame() for name, proof in one.proofs.items()}
    if one.flow is not None:
        tables["image flow"] = one.flow.to_frame()
    for name, frame in tables.items():
        if len(frame):
            frame.to_csv(folder / f"{file(name)}.csv", index=False)
    for first, second in itertools.combinations(one.circuits, 2):
        shared = one.circuits[first].compare(one.circuits[second])
        rows = [("both", str(n)) for n in shared.shared_nodes]
        rows += [(f"only {first}", str(n)) for n in shared.only_first]
        rows += [(f"only {second}", str(n)) for n in shared.only_second]
        pd.DataFrame(rows, columns=["in", "node"]).to_csv(
            folder / f"nodes-{file(first)}-and-{file(second)}.csv", index=False
        )


if __name__ == "__main__":
    typer.run(main)
