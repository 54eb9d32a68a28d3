"""The circuits of existence answers in the three embedded models: found, proven, compared, and told.

python docs/circuits/study.py --quick      # a few minutes on two cores: to see it work
python docs/circuits/study.py              # at the sizes of docs/circuits/README.md

Per checkpoint: the circuit of right existence answers, and that of hallucinated ones ("yes" to a digit that is
not there), each discovered on some scenes and proven on others; rankings of units and what ablating them does;
where image information reaches the text; which heads move it. Then what distinguishes the checkpoints, and,
with three training seeds of two families or more (``--also``), what holds for families.

A checkpoint's folder is written when it is done; the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import keeping
import pandas as pd
import torch
import typer
from across import differences, families, families_by_chance
from chance import first_heads
from keeping import Found
from margins import margins, summary
from margins import markdown as margins_markdown
from one_model import QUICK, Sizes, study_model
from telling import Page, apart, dots, pages, words_of

import mechvrp
from mechvrp.circuits import GROUPS, compare_image_flows
from mechvrp.models import fingerprint
from mechvrp.plots import ablations_by_model, image_flows_by_model

MODELS = ("tiny-llava", "tiny-paligemma", "tiny-qwen2-vl")
Checkpoint = tuple[str, str, str]  # name, what mechvrp.load takes, family


def main(
    out: Annotated[
        Path, typer.Option(help="Folder for page.html, results, and a folder per checkpoint.")
    ] = Path("runs/circuits"),
    model: Annotated[
        list[str] | None,
        typer.Option(help="An embedded model; once for each. By default all three."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="FAMILY=FOLDER: another training seed of an embedded model, e.g. "
            "tiny-llava=runs/tiny-llava-seed1; named as its folder. Once for each."
        ),
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
            min=1,
            help="Random circuits, and at most as many sets of heads: no p of a proof is below "
            "1 / (draws + 1).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes, random sets and resampling.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Checkpoints studied side by side.")] = 2,
) -> None:
    """The circuits of existence answers in the embedded models and, with --also, further seeds of them."""
    sizes = QUICK if quick else Sizes()
    given = {"find": pairs, "prove": held_out, "scenes": scenes, "asked": polls, "draws": draws}
    sizes = replace(sizes, **{name: n for name, n in given.items() if n is not None})
    checkpoints = checkpoints_of(model or list(MODELS), also or [])
    run(checkpoints, sizes, out=out, seed=seed, jobs=jobs)


def checkpoints_of(models: list[str], also: list[str] = ()) -> list[Checkpoint]:  # type: ignore[assignment]
    """Of embedded names, and of ``FAMILY=FOLDER``."""
    found = [(name, name, name) for name in models]
    for text in also:
        family, given, folder = text.partition("=")
        if not given or family not in MODELS or not Path(folder).is_dir():
            raise SystemExit(
                f"--also takes FAMILY=FOLDER, one of {', '.join(MODELS)} and a checkpoint's folder that is "
                f"there; got {text!r}"
            )
        found.append((Path(folder).resolve().name, folder, family))
    names = [name for name, _, _ in found]
    if len(set(names)) < len(names):
        raise SystemExit(f"checkpoints go by their names, each once; got {', '.join(names)}")
    return found


def run(
    checkpoints: list[Checkpoint], sizes: Sizes, *, out: Path, seed: int = 0, jobs: int = 1
) -> list[Found]:
    """Study the checkpoints that were not, compare them, and write the folder."""
    out.mkdir(parents=True, exist_ok=True)
    jobs = min(jobs, len(checkpoints))
    if jobs == 1:
        for one in checkpoints:
            study_one(one, sizes, seed, out)
    else:
        # Processes of their own: nnsight's traces are not made for threads.
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with ProcessPoolExecutor(
            jobs, get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            for done in as_completed(
                [pool.submit(study_one, one, sizes, seed, out) for one in checkpoints]
            ):
                done.result()
    found = [keeping.read(out / name) for name, _, _ in checkpoints]
    write(found, sizes, out, seed)
    print(f"written to {out / 'page.html'}")
    return found


def study_one(checkpoint: Checkpoint, sizes: Sizes, seed: int, out: Path) -> None:
    """Study a checkpoint and write its folder, unless that is there and complete."""
    name, source, family = checkpoint
    model = mechvrp.load(source)
    if source != family and model.family.name != mechvrp.load(family).family.name:
        raise SystemExit(f"{source} is a {model.family.name} model, and was given as {family}")
    made = {"sizes": asdict(sizes), "seed": seed}
    if keeping.is_kept(out / name, fingerprint(model), made):
        why = keeping.damage(out / name)
        if not why:
            _say(f"{name}: kept from before in {out / name}")
            return
        _say(f"{name}: what was kept in {out / name} is damaged ({why}); studied again")
    keeping.keep(study_model(name, source, family, sizes, seed, _say), out / name)


def _say(text: str) -> None:
    print(text, flush=True)


def write(found: list[Found], sizes: Sizes, out: Path, seed: int) -> dict[str, Any]:
    """What is of all checkpoints: differences, families, results in words, and the page."""
    own = [one for one in found if one.name == one.family]
    table, notes = (
        differences(own, seed=seed, resamples=sizes.resamples)
        if len(own) > 1
        else (pd.DataFrame(), [])
    )
    over_seeds, texts = families(found)
    changes = margins(found)
    for name, frame in (("differences", table), ("families", over_seeds), ("margins", changes)):
        (out / f"{name}.csv").unlink(missing_ok=True)
        if len(frame):
            frame.to_csv(out / f"{name}.csv", index=False)
    checkpoints: dict[str, Any] = {}
    for one in found:
        fields = ("family", "fingerprint", "figures", "hallucinated", "gaps", "seconds")
        held = {field: getattr(one, field) for field in fields}
        # Of the pairs it was found on a circuit keeps what was asked for; of others less.
        held["found_on"] = {
            name: {key: circuit.settings[key] for key in ("faithfulness", "pairs")}
            | {"nodes": {g: sum(n.positions == g for n in circuit.nodes) for g in GROUPS}}
            for name, circuit in one.circuits.items()
        }
        checkpoints[one.name] = held | {"told": words_of(held)}
    results = {
        "seed": seed, "sizes": asdict(sizes), "checkpoints": checkpoints, "notes": notes,
        "families": texts,
        "by_chance": {"families": families_by_chance(found), "first_heads": first_heads(found)},
    }  # fmt: skip
    (out / "results.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    tables = [f"## {name}\n\n{table}\n" for name, table in pages(results).items()]
    if len(changes):
        own_names = [one.name for one in own] or [one.name for one in found]
        tables.append(
            f"## change of the margin, logits\n\n{margins_markdown(changes, own_names)}\n"
        )
    (out / "figures.md").write_text("\n".join(tables), encoding="utf-8")
    page = Page("Circuits of existence answers in small checkpoints")
    page.text(
        "Statements about these checkpoints on pictures of handwritten digits. Figures in brackets are 95 % "
        f"intervals from resampling images, one at a time. Seed {seed}; sizes: "
        + ", ".join(f"{name} {value}" for name, value in asdict(sizes).items())
        + "."
    )
    _page_across(page, found, checkpoints, table, notes)
    if len(changes):
        page.heading("What the probe's units do to the margin")
        page.text(
            "The logit of the model's own answer minus the best other token's: change in logits when units are "
            "zeroed, which can be where no answer turns. p: two-sided, among random sets. "
            + " ".join(summary(changes))
        )
        page.table(changes.drop(columns=["site", "n", "n_groups", "draws"]))
    page.heading("What holds for the families")
    page.items(texts)
    for one in found:
        page.heading(one.name)
        page.items(checkpoints[one.name]["told"])
        for step, why in one.gaps.items():
            page.text(f"A gap: {step}: {why}", "gap")
        for title, figure in one.plots.items():
            page.figure(figure, f"{one.name}: {title}")
    page.write(out / "page.html")
    for one in found:
        print(f"\n{one.name}")
        gaps = [f"a gap: {step}: {why}" for step, why in one.gaps.items()]
        for text in [*checkpoints[one.name]["told"], *gaps]:
            print(f"  {text}")
    print("\n" + "\n".join(texts))
    return results


def _page_across(
    page: Page, found: list[Found], checkpoints: dict[str, Any], table: pd.DataFrame, notes: list[str]
) -> None:  # fmt: skip
    if len(table):
        yes, no = apart(table)
        page.heading("What distinguishes the embedded checkpoints")
        page.text(
            "Intervals that leave out 0, and q of at most 0.05 (Benjamini and Hochberg over these "
            f"{len(table)} comparisons)."
        )
        page.items(yes)
        page.heading("What doesn't, as far as can be told")
        page.text("The interval says how large a difference could still be.")
        page.items(no)
    if notes:
        page.text("Missing: " + "; ".join(notes), "gap")
    for title, figure in across_figures(found, checkpoints).items():
        page.figure(figure, title)


def across_figures(found: list[Found], checkpoints: dict[str, Any]) -> dict[str, Any]:
    """Figures with all checkpoints, siblings beside each other; of curves, no more than a family's in one."""
    ordered = {
        one.name: checkpoints[one.name] for family in MODELS for one in found if one.family == family
    }  # fmt: skip
    figures = {}
    for name in ("existence", "hallucinated"):
        words = {
            f"faithfulness: {name}": "circuit alone",
            f"faithfulness, random circuits: {name}": "random circuit alone",
            f"without it: {name}": "all but the circuit",
            f"without it, random circuits: {name}": "all but a random circuit",
        }
        figures[f"circuits of {name} answers"] = dots(
            ordered, words, "share of the answer's lead that is kept"
        )
    sets = {"the embedded checkpoints": [one for one in found if one.name in MODELS]}
    sets |= {f"{name}'s seeds": [one for one in found if one.family == name] for name in MODELS}
    for kind in ("MLP neurons", "residual dimensions"):
        for words, ones in sets.items():
            curves = {one.name: one.curves[kind] for one in ones if kind in one.curves}
            if len(curves) > 1:
                figures[f"{kind} zeroed, by probe weight: {words}"] = ablations_by_model(curves)
    for words, ones in sets.items():
        flows = {one.name: one.flow for one in ones if one.flow is not None and one.flow.shares}
        if len(flows) > 1:
            figures[
                f"how much of the change that another image makes the text positions carry: {words}"
            ] = image_flows_by_model(compare_image_flows(flows))
    return figures


if __name__ == "__main__":
    typer.run(main)
