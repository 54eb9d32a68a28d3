"""The command line: every command calls one public function.

Only typer and rich are imported at the top: help answers before torch would have loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mechvrp._version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="mechvrp",
    help="Mechanistic interpretability of vision-language models: where can their reliability be read?",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mechvrp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def study(
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write; its report is OUT/report.html.")
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

    Results are kept piece by piece: the same command goes on with a run that was killed.

    Examples:

    - `mechvrp study --out runs/first`

    - `mechvrp study --preset vrp --model tiny-llava --model tiny-qwen2-vl --plan`

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
    named: dict[str, Any] = {"preset": preset, "config": config, **options}
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

        run_study(model or None, data, out=out, stages=stage or None, progress=not quiet, **named)


@app.command()
def models(
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Measure an embedded checkpoint (or a folder written by the zoo's recipe) and "
            "write its model card.",
        ),
    ] = None,
    n_images: Annotated[
        int, typer.Option(min=20, help="Scenes of each split to measure on.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes and the resampling.")] = 1_000,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the same family from another training seed, evaluated before; the card "
            "shows it in a table. May be given several times."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the card; by default the checkpoint's own."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """What can be loaded: the embedded checkpoints, and the families of hub models.

    With --evaluate: the model card of a checkpoint, README.md, and its figures, evaluation.json.

    Examples:

    - `mechvrp models`

    - `mechvrp models --evaluate tiny-llava --out cards/tiny-llava`
    """
    if evaluate is None:
        if beside or out is not None:
            raise typer.BadParameter("--beside and --out belong to --evaluate NAME")
        _list_models()
        return
    from mechvrp.cards import evaluate_checkpoint, prepare, write_card

    prepare(evaluate, beside or (), out)
    found = evaluate_checkpoint(evaluate, n_images=n_images, seed=seed, progress=not quiet)
    card = write_card(evaluate, found, beside=beside or (), out=out)
    if not quiet:
        typer.echo(f"card: {card}")


def _list_models() -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from mechvrp.models import embedded_models, known_families

    console = Console()
    table = Table("name", "architecture", "size", "blocks", "width", title="Embedded checkpoints")
    for entry in embedded_models():
        config = json.loads((entry.path / "config.json").read_text())
        text = config.get("text_config", config)
        weights = sum(f.stat().st_size for f in entry.path.glob("*.safetensors"))
        table.add_row(
            entry.name,
            config["architectures"][0],
            f"{weights / 2**20:.1f} MiB",
            str(text.get("num_hidden_layers", "?")),
            str(text.get("hidden_size", "?")),
        )
    console.print(table)
    console.print(
        "Small real models, trained on handwritten digits, to learn and test with: they show how the "
        "tools work, not how large models do.\n"
    )
    known = Table("config.model_type", "family", "prompt attention", title="Families")
    for model_type, family in sorted(known_families().items()):
        known.add_row(model_type, family.name, family.attention)
    console.print(known)
    console.print(
        'Load any of them with [bold]mechvrp.load[/bold]("name, folder or hub id"), e.g. '
        "llava-hf/llava-1.5-7b-hf, google/paligemma-3b-mix-224, Qwen/Qwen2-VL-7B-Instruct."
    )


@app.command()
def data() -> None:
    """The datasets: their splits, tasks, and the files they need."""
    from rich.console import Console

    from mechvrp.data import available

    console = Console(highlight=False)
    for info in available():
        console.print(f"[bold]{info.name}[/bold]: {info.description}")
        for label, value in (
            ("splits", ", ".join(info.splits) or "as in the files"),
            ("tasks", ", ".join(info.tasks) or "as in the files"),
            ("root must hold", info.root or "nothing: it is generated"),
        ):
            console.print(f"  {label}: {value}", soft_wrap=False)
        console.print()
    console.print(
        'Load one with [bold]mechvrp.data.load[/bold]("scenes", split="adversarial", limit=100), or '
        "name it to [bold]mechvrp study --data[/bold]."
    )


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders written by mechvrp study.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.html and tables/.")],
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
        typer.echo(out / "compare.html")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder written by mechvrp study.")],
) -> None:
    """Write a run's report.html again from its figures."""
    from mechvrp.store import RunFolder
    from mechvrp.study.report import write_report

    typer.echo(write_report(RunFolder.open(run)))


def main() -> Any:
    """Entry point: mechvrp's own errors, and the file system's, are a message and exit status 1."""
    from mechvrp.errors import MechVRPError

    try:
        return app()
    except (MechVRPError, OSError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(1) from None
