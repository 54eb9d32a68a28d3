"""Docstrings as they are written here, made into what the reference's Google style and Markdown read."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^\s*(Args|Attributes|Raises):$")
_GROUP = re.compile(r"^(\s+)(\w+(?:, \w+)+): (.*)$")


def one_by_one(text: str) -> str:
    """``seed, draw: of the noise`` as an entry for each name, in the sections that list names."""
    lines: list[str] = []
    source = text.split("\n")
    indent: int | None = None  # of the entries of the section we are in
    at = 0
    while at < len(source):
        line = source[at]
        depth = len(line) - len(line.lstrip())
        if _SECTION.match(line):
            indent = depth + 4
        elif line.strip() and indent is not None and depth < indent:
            indent = None
        group = _GROUP.match(line)
        if group is None or depth != indent:
            lines.append(line)
            at += 1
            continue
        end = at + 1
        while end < len(source) and source[end].startswith(" " * (depth + 1)):
            end += 1
        for name in group[2].split(", "):
            lines += [f"{group[1]}{name}: {group[3]}", *source[at + 1 : end]]
        at = end
    return "\n".join(lines)


def as_markdown(text: str) -> str:
    """Roles such as ``:func:`load``` are names in code, and ``::`` in front of a block is a colon."""
    text = re.sub(r":(?:func|class|meth|data|mod):`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


#: Values longer than this (tables of the package) are not shown.
_LONGEST = 700


class Docstrings(griffe.Extension):
    """Applies both to every docstring."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.is_attribute and len(str(obj.value)) > _LONGEST:
            obj.value = None
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(one_by_one(obj.docstring.value))
