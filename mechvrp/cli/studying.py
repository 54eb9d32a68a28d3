"""``mechvrp study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mechvrp.cli.root import app

__all__ = ["study"]


@app.command()
def study(
    out: Annotated[
        str | None,
        typer.Option(
            help="Run folder to write, or an address (s3://bucket/run); its report is OUT/report.html."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="quick (the default: signals, probes, one ablation curve), vrp (everything the VRP "
            "papers report), full (also gradient maps and rollout; enough random draws for small p)."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of settings. What it sets wins over the preset, and single options given here "
            "win over both. See --print-config."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedded name, local folder or hub id; may be given several times to compare "
            "models. `mechvrp models` lists what comes with the package. \\[default: tiny-llava]"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Dataset; `mechvrp data` lists them. \\[default: scenes]")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the dataset's files are, if it needs any.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the dataset, e.g. adversarial; else its default.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Keep one task of the dataset.")] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=20, help="How many examples. \\[default: 400; vrp 1000; full 5000]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of data, split, folds, resampling and random draws. \\[default: 0]"),
    ] = None,
    test_size: Annotated[
        float | None,
        typer.Option(min=0.1, max=0.9, help="Share of the images held out. \\[default: 0.5]"),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            min=20,
            help="Random sets of units beside each top-k, and shuffles. \\[default: 20; vrp 49; full 199]",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            "--k", help="Numbers of units to ablate, from 0; by default 0 1 2 5 ... half the width."
        ),
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(min=100, help="Bootstrap resamples behind each interval. \\[default: 2000]"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0, help="Sampled answers an example, for self-consistency. \\[default: 10]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Examples a forward. \\[default: 32]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps. \\[default: auto]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32, bfloat16, float16. \\[default: auto]")
    ] = None,
    reading: Annotated[
        str | None,
        typer.Option(
            help="How yes/no answers are read: official (POPE's code: whatever is not a no is a "
            "yes) or strict. By default official for pope, else strict."
        ),
    ] = None,
    readouts: Annotated[
        bool | None,
        typer.Option(
            "--readouts/--no-readouts", help="Sparse and MLP probes, centroids, attention features."
        ),
    ] = None,
    causal: Annotated[
        bool | None,
        typer.Option(
            "--causal/--no-causal", help="Patch masking, neuron ablation, corruption by layer."
        ),
    ] = None,
    comparators: Annotated[
        bool | None,
        typer.Option(
            "--comparators/--no-comparators", help="Grad-CAM, gradient times input, rollout."
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only observe, correlate, intervene or report; may be given several times."
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, as in a settings file, e.g. --set noise=0.5 --set mask_fraction=0.2; "
            "may be given several times.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Where models compute: local (this process) or ray (workers, each with a replica on a "
            "device of its own; pip install 'mechvrp\\[distributed]'). Either goes on with the other's run."
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers of the engine ray. \\[default: one for each GPU; without GPUs it must be given]",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: auto (the one that this machine is part of) or HOST:PORT; the run folder must "
            "be on storage that its machines share. \\[default: RAY_ADDRESS, else workers on this machine]"
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Estimate time, memory and disk from short runs, and stop there."
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as YAML, and stop there.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Run a reliability study and write its report.

    In four stages, each resumable: observe (answers with every signal one prefill shows), correlate
    (signals and probes against correctness, on held-out images, beside baselines), intervene (what
    the answers depend on, beside random controls), report.

    Results are kept piece by piece: the same command goes on with a run that was killed, with the same
    engine or another one, and with as many workers as there are then.

    Examples:

    - `mechvrp study --out runs/first`

    - `mechvrp study --preset vrp --model tiny-llava --model tiny-qwen2-vl --plan`

    - `mechvrp study --engine ray --workers 2 --device cpu --out runs/first`

    - `mechvrp study --preset vrp --model llava-hf/llava-1.5-7b-hf --data pope --root ~/pope --split
    adversarial --dtype bfloat16 --out runs/llava-pope`
    """
    options: dict[str, Any] = {
        "root": None if root is None else str(root),
        "split": split,
        "task": task,
        "n": n,
        "seed": seed,
        "test_size": test_size,
        "draws": draws,
        "ks": tuple(k) if k else None,
        "n_resamples": resamples,
        "samples": samples,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
        "reading": reading,
        "readouts": readouts,
        "causal": causal,
        "comparators": comparators,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if more:
        from mechvrp.study.settings import parse_settings

        options = {**parse_settings(more), **options}
        model, data = model or options.pop("models", None), data or options.pop("data", None)
    where = {"engine": engine, "workers": workers, "address": address}
    named: dict[str, Any] = {"preset": preset, "config": config, **where, **options}
    if print_config:
        from mechvrp.study.settings import config_text, resolve_settings

        what = {name: v for name, v in (("models", model), ("data", data)) if v}
        typer.echo(config_text(resolve_settings(preset, config, {**options, **what})), nl=False)
    elif plan:
        from mechvrp.study import plan_study

        typer.echo(plan_study(model or None, data, progress=not quiet, **named))
    elif out is None:
        raise typer.BadParameter("a study needs a run folder: --out FOLDER")
    else:
        from mechvrp.study import run_study

        found = run_study(
            model or None, data, out=out, stages=stage or None, progress=not quiet, **named
        )
        if found.in_vain:
            from mechvrp.errors import UnavailableError

            why = "; ".join(f"{name}: {reason}" for name, reason in found.unobserved.items())
            told = f". The report is {found.report}" if found.report else ""
            raise UnavailableError(f"no model could be observed: {why}{told}")
