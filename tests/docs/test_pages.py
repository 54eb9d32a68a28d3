"""Every code block of the documentation runs, page by page from top to bottom, as it stands."""

from __future__ import annotations

import re
import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer.main

from tests.support.shuffles import few_shuffles

ROOT = Path(__file__).parents[2]
#: Pages of the site that hold code: those of docs, and the embedded models' cards. The gallery's is the
#: code of its functions (``test_gallery``).
PAGES = sorted(
    path
    for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("mechvrp/models/zoo/*/README.md"))
    if path.parent.name != "gallery"
)

#: What a block may be: run, parsed as commands, or shown as it is.
LANGUAGES = {"python", "sh", "text", "yaml"}
_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: Stands above a block that is not run, with the reason.
_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    not_run: str | None


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        marker = _NOT_RUN.search(before)
        body = textwrap.dedent(match[3])
        found.append(Block(match[2], body, before.count("\n") + 2, marker and marker[1].strip()))
    return found


def pages(language: str) -> list[Path]:
    return [
        path
        for path in PAGES
        if any(block.language == language and block.not_run is None for block in blocks(path))
    ]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("docs/")


def test_there_are_pages():
    assert len(pages("python")) > 15
    assert "how-to/sweep.md" in map(named, pages("python"))


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_block_says_its_language_and_why_it_is_not_run(path):
    text = path.read_text(encoding="utf-8")
    found = blocks(path)
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), "an open block"
    for block in found:
        assert block.language in LANGUAGES, f"line {block.line}: ```{block.language}"
        if block.not_run is not None:
            assert len(block.not_run) > 10, f"line {block.line}: why is it not run?"
    # A marker belongs to a block, and is not forgotten elsewhere.
    assert text.count("<!-- not run:") == sum(block.not_run is not None for block in found)


@pytest.mark.parametrize("path", pages("python"), ids=named)
def test_a_page_s_python_runs(path, tmp_path, monkeypatch):
    from mechvrp.models import families

    monkeypatch.chdir(tmp_path)
    few_shuffles(monkeypatch)
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    # nnsight reads a trace's source from its file: one script, each block at its line of the page.
    lines = [""] * (1 + path.read_text(encoding="utf-8").count("\n"))
    for block in blocks(path):
        if block.language == "python" and block.not_run is None:
            body = block.text.rstrip("\n").split("\n")
            lines[block.line - 1 : block.line - 1 + len(body)] = body
    script = tmp_path / "page.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scope = {"__name__": "page", "__file__": str(script)}
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), scope)


def commands(text: str) -> list[list[str]]:
    joined = text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("path", pages("sh"), ids=named)
def test_a_page_s_commands_exist_with_their_options(path):
    from mechvrp.cli import app

    root = typer.main.get_command(app)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for block in blocks(path):
        if block.language != "sh" or block.not_run is not None:
            continue
        for words in commands(block.text):
            said = shlex.join(words)
            if words[0] == "mechvrp":
                context = click.Context(root, info_name="mechvrp")
                _, command, rest = root.resolve_command(context, words[1:])
                # Parses and checks the values of all options; runs nothing.
                command.make_context(words[1], rest, parent=context)
            elif words[0] == "make":
                for target in words[1:]:
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), said
            elif words[:2] == ["pip", "install"]:
                for one in re.findall(r"mechvrp\[([\w,]+)\]", said):
                    assert set(one.split(",")) <= set(extras), said
            elif words[0] == "python":
                name = words[2] if words[1] == "-m" else words[1]
                place = ROOT / (name.replace(".", "/") + ".py" if words[1] == "-m" else name)
                assert place.exists() or (ROOT / name.replace(".", "/") / "__main__.py").exists(), (
                    said
                )
            else:
                raise AssertionError(f"line {block.line}: what is {said}?")
