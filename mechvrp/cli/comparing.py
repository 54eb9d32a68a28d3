"""``mechvrp compare`` and ``mechvrp report``: pages of finished studies."""

from __future__ import annotations

from typing import Annotated

import typer

from mechvrp.cli.root import app

__all__ = ["compare", "report"]


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders written by mechvrp study, or their addresses.")
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Folder for compare.html and tables/, or an address (s3://bucket/compared)."
        ),
    ],
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPE=MODEL,...",
            help="Checkpoints that differ by training seed alone; may be given several times. Without "
            "it every statement is about single checkpoints.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling of images.")] = 0,
    resamples: Annotated[
        int, typer.Option(min=100, help="Bootstrap resamples behind each interval.")
    ] = 2000,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Compare finished studies: the VRP results side by side, and pooled over models.

    Writes OUT/compare.html, and its tables as OUT/tables/*.csv and *.tex.

    Examples:

    - `mechvrp compare runs/llava runs/qwen --out runs/both`

    - `mechvrp compare runs/seed* --seeds "tiny-llava=tiny-llava,tiny-llava-seed1,tiny-llava-seed2"
    --out runs/seeds`
    """
    from mechvrp.study import compare_runs

    recipes: dict[str, list[str]] = {}
    for given in seeds or []:
        name, sign, members = given.partition("=")
        if not name or not sign or not members:
            raise typer.BadParameter(f"--seeds is RECIPE=MODEL,MODEL,...; got {given!r}")
        if name in recipes:
            raise typer.BadParameter(f"--seeds names {name!r} twice")
        recipes[name] = [m.strip() for m in members.split(",")]
    found = compare_runs(runs, out=out, training_seeds=recipes, seed=seed, n_resamples=resamples)
    if not quiet:
        for remark in found.remarks:
            typer.echo(f"note: {remark}")
        typer.echo(f"{out.rstrip('/')}/compare.html")


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="A run folder written by mechvrp study, or its address.")
    ],
) -> None:
    """Write a run's report.html again from its figures."""
    from mechvrp.store import RunFolder
    from mechvrp.study.report import write_report

    typer.echo(write_report(RunFolder.open(run)))
