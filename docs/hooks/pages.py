"""What the documentation's site is made of beside the pages in this folder.

Tutorials are the notebooks of ``notebooks/``; the reference is one page per folder of the package,
from its ``__all__``; results are the pages and cards that are kept elsewhere in the repository. The
navigation is made here too, so that a page that is added appears in it.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

#: Folders and modules of the package that have public names, from what is nearest to users on.
FOLDERS = {
    "models": "Models, families, batches and their token maps",
    "data": "Samples, benchmarks, scoring, splits",
    "tracing": "Sites, traces, caches",
    "patching": "Interventions, the sweep engine, and the methods on it",
    "circuits": "Probes, rankings, ablation curves, circuits, image flow",
    "reliability": "Signals of reliability, calibration, the monitor",
    "study": "Studies and their comparison",
    "explorer": "The notebook explorer, and its session in plain Python",
    "plots": "Figures",
    "statistics": "Intervals and tests that resample images",
    "store": "Run folders",
    "cards": "Model cards",
    "errors": "Errors",
}

#: Folders whose files are listed on a page of their own, since other pages link to the folder.
LISTED = (
    "docs/circuits/tiny-llava",
    "docs/circuits/tiny-paligemma",
    "docs/circuits/tiny-qwen2-vl",
    "docs/vrp/compared/tables",
)


#: A relative link or picture; or code, in which what looks like one is none.
_LINK = re.compile(
    r"(?P<code>^(?P<indent> *)```.*?^(?P=indent)```$|^(?: {4}|\t)[^\n]*$|`[^`\n]+`)"
    r"|(?P<words>!?\[[^\]\n]*\])\((?!\w+:|#|/)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)


def title_of(text: str) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"a page without a heading of the first level: {text[:60]!r}")
    return found[1].strip()


def public_names(folder: str) -> list[str]:
    """What ``mechvrp.FOLDER`` offers."""
    return list(import_module(f"mechvrp.{folder}").__all__)


def reference_page(folder: str) -> str:
    """The page of one folder: every public name, from its docstring."""
    names = public_names(folder)
    lines = [f"# mechvrp.{folder}", "", f"::: mechvrp.{folder}", "    options:"]
    lines += [
        "      show_root_heading: false",
        "      show_root_toc_entry: false",
        "      members:",
    ]
    return "\n".join([*lines, *(f"        - {name}" for name in names), ""])


def reference_index() -> str:
    rows = [f"| [`mechvrp.{one}`]({one}.md) | {words} |" for one, words in FOLDERS.items()]
    return "\n".join(
        [
            "# Reference",
            "",
            "Every public name, from its docstring. The commonest are also in `mechvrp` itself"
            " (`mechvrp.load`, `mechvrp.trace`, `mechvrp.sweep`, ...).",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "| [The command line](cli.md) | `mechvrp study`, `compare`, `models`, `families`, `data` |",
            "",
        ]
    )


def cli_page() -> str:
    """The commands with their options, as ``mechvrp COMMAND --help`` has them."""
    import typer.main

    from mechvrp.cli import app

    root: Any = typer.main.get_command(app)
    lines = ["# The command line", ""]
    for name, command in sorted(root.commands.items()):
        lines += [f"## mechvrp {name}", "", (command.help or "").strip(), ""]
        rows = []
        for one in command.params:
            said = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
            said = f"`{one.name.upper()}`" if one.param_type_name == "argument" else said
            rows.append(f"| {said} | {' '.join((getattr(one, 'help', None) or '').split())} |")
        lines += ["| | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def listing(folder: Path) -> str:
    """A page of links to a folder's files."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    return "\n".join([f"# {folder.name}", "", *(f"- [{name}]({name})" for name in files), ""])


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def tutorial(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as it was saved: cells and what they showed, as Markdown, and its pictures by name."""
    notebook = nbformat.read(path, as_version=4)
    text, resources = MarkdownExporter(exclude_input_prompt=True).from_notebook_node(
        notebook, resources={"output_files_dir": f"{path.stem}_files"}
    )
    return text, resources.get("outputs", {})


def cards() -> list[Path]:
    return sorted((ROOT / "mechvrp/models/zoo").glob("*/README.md"))


def sources() -> dict[str, Path]:
    """Pages whose text is elsewhere in the repository than in ``docs``, by their place in the site."""
    return {
        "changelog.md": ROOT / "CHANGELOG.md",
        "contributing.md": ROOT / "CONTRIBUTING.md",
        "results/benchmarks.md": ROOT / "benchmarks/RESULTS.md",
        **{f"results/{card.parent.name}.md": card for card in cards()},
        **{f"tutorials/{notebook.stem}.md": notebook for notebook in notebooks()},
    }


def made() -> dict[str, str]:
    """The text of every page that is no file of ``docs``, by its place in the site."""
    pages = {
        place: tutorial(path)[0] if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        for place, path in sources().items()
    }
    for folder in FOLDERS:
        pages[f"reference/{folder}.md"] = reference_page(folder)
    pages["reference/index.md"] = reference_index()
    pages["reference/cli.md"] = cli_page()
    for folder in LISTED:
        pages[f"{Path(folder).relative_to('docs')}/index.md"] = listing(ROOT / folder)
    return pages


def relinked(text: str, place: str) -> str:
    """Links that are relative to a file of the repository, made relative to the page's place in the site.

    A link to a file that has no page (source code) becomes its text alone.

    Args:
        text: of the page.
        place: where it is in the site.

    Raises:
        ValueError: a link to nothing.
    """
    places = {path: one for one, path in sources().items()}
    places |= {ROOT / folder: f"{Path(folder).relative_to('docs')}/index.md" for folder in LISTED}
    places |= {ROOT / "README.md": "index.md", ROOT / "notebooks": "tutorials/index.md"}
    pages = {f"reference/{one}.md" for one in (*FOLDERS, "index", "cli")} | set(sources())
    source = sources().get(place, DOCS / place)
    pictures = f"{source.stem}_files/"  # of a notebook

    def new(match: re.Match[str]) -> str:
        words, target, anchor = match["words"], match["target"], match["anchor"] or ""
        if os.path.normpath(Path(place).parent / target) in pages or target.startswith(pictures):
            return match[0]
        path = (source.parent / target).resolve()
        if path in places:
            goal = places[path]
        elif path.is_relative_to(DOCS) and path.is_file():
            goal = path.relative_to(DOCS).as_posix()
        elif path.is_relative_to(ROOT) and path.exists():
            return words.strip("![]") if match[0].startswith("!") else words[1:-1]
        else:
            raise ValueError(f"{place}: the link to {target} leads nowhere")
        return f"{words}({os.path.relpath(goal, Path(place).parent)}{anchor})"

    return _LINK.sub(lambda match: match[0] if match["code"] else new(match), text)


#: Pages of a folder in the order in which they are read; others follow.
ORDER = {
    "how-to": (
        "cache", "patch", "sweep", "ablate", "circuit", "explorer", "attention", "reliability", "study",
        "distributed", "monitor", "figures", "own-model-and-data", "add-a-family", "large-models",
        "million-examples",
    ),
    "concepts": (
        "sites", "interventions", "exactness", "statistics", "ablation", "signals", "tiny-models",
    ),
}  # fmt: skip


def _rank(path: Path) -> tuple[int, str]:
    order = ORDER[path.parent.name]
    return (order.index(path.stem) if path.stem in order else len(order), path.stem)


def sites_table() -> str:
    """Every component of a site, in the order of computation."""
    from mechvrp.tracing import COMPONENTS, IMAGE_KEYS

    rows = [
        f"| `{one.name}` | `{one.hook.format(layer='L')}` | [{', '.join(one.dims)}] |"
        for one in (*COMPONENTS.values(), *IMAGE_KEYS.values())
    ]
    return "\n".join(["| component | hook name | axes |", "|---|---|---|", *rows])


def signals_table() -> str:
    """Every signal of reliability that is known, by what it is read from."""
    from mechvrp.reliability import SIGNALS

    expected = {True: "higher", False: "lower", None: ""}
    lines = []
    for kind in dict.fromkeys(one.kind for one in SIGNALS.values()):
        lines += ["", f"**{kind.capitalize()}**", "", "| signal | | expected | cost | source |"]
        lines.append("|---|---|---|---|---|")
        lines += [
            f"| `{one.name}` | {one.description}{' *Uses the label.*' if one.uses_label else ''} "
            f"| {expected[one.higher_means_right]} | {one.cost_forwards:g} | {one.source} |"
            for one in SIGNALS.values()
            if one.kind == kind
        ]
    return "\n".join(lines)


def benchmark_rows(words: str) -> str:
    """Rows of the benchmarks, as they were measured, that hold all the words.

    Words are separated by ``;``, alternatives by ``|``.
    """
    wanted = [one.strip() for one in words.split(";")]
    lines = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8").splitlines()
    rows = [
        line
        for line in lines
        if line.startswith("| ") and all(any(w in line for w in one.split("|")) for one in wanted)
    ]
    if not rows:
        raise ValueError(f"no row of benchmarks/RESULTS.md holds {words!r}")
    return "\n".join(["| what | measured | should be | detail |", "|---|---|---|---|", *rows])


def page_list(folder: str) -> str:
    """Links to the pages of a folder."""
    if folder == "tutorials":
        pages = [(title_of(tutorial(one)[0]), f"{one.stem}.md") for one in notebooks()]
    else:
        pages = [(name, Path(path).name) for one in _pages(folder) for name, path in one.items()]
    return "\n".join(f"- [{name}]({path})" for name, path in pages)


#: What stands in the place of ``<!-- made: NAME WORDS -->``.
MADE = {
    "sites": lambda words: sites_table(),
    "signals": lambda words: signals_table(),
    "benchmarks": benchmark_rows,
    "pages": page_list,
}


def filled(text: str) -> str:
    """The text with what is made at build time in its place."""
    return re.sub(r"<!-- made: (\w+) ?(.*?) ?-->", lambda found: MADE[found[1]](found[2]), text)


def _pages(folder: str) -> list[dict[str, str]]:
    """The pages of a folder for the navigation, its ``index.md`` left out."""
    paths = [
        path for path in sorted((DOCS / folder).glob("*.md"), key=_rank) if path.stem != "index"
    ]
    return [{title_of(path.read_text(encoding="utf-8")): f"{folder}/{path.name}"} for path in paths]


def navigation() -> list[Any]:
    return [
        {"Home": "index.md"},
        {"Tutorials": ["tutorials/index.md", *(f"tutorials/{one.stem}.md" for one in notebooks())]},
        {"How to": ["how-to/index.md", *_pages("how-to")]},
        {"Concepts": ["concepts/index.md", *_pages("concepts")]},
        {"Coming from": ["coming-from.md", "peers.md"]},
        {
            "Results": [
                "results/index.md",
                *({card.parent.name: f"results/{card.parent.name}.md"} for card in cards()),
                {"Benchmarks": "results/benchmarks.md"},
                {"The VRP study": "vrp/README.md"},
                {"Circuits": "circuits/README.md"},
                {"Gallery of figures": "gallery/README.md"},
            ]
        },
        {
            "Reference": [
                "reference/index.md",
                *({f"mechvrp.{one}": f"reference/{one}.md"} for one in FOLDERS),
                {"Command line": "reference/cli.md"},
            ]
        },
        {"Project": ["contributing.md", "changelog.md"]},
    ]


def on_config(config: Any) -> Any:
    config.nav = navigation()
    return config


def on_files(files: Files, config: Any) -> Files:
    for place, text in made().items():
        files.append(File.generated(config, place, content=text))
    for notebook in notebooks():
        for name, picture in tutorial(notebook)[1].items():
            files.append(File.generated(config, f"tutorials/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    return relinked(filled(markdown), page.file.src_uri)
