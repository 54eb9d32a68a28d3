"""What every page of a study shares: one look, its scripts, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mechvrp.study import report_words

__all__ = ["figure_json", "render", "safe_json"]

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, own_scripts: Sequence[str] = ("report.js",), **values: Any) -> str:
    """A self-contained page of one of the templates.

    Values from data are escaped by Jinja's autoescape. Beside ``values`` a template has ``style``,
    ``scripts`` (plotly's and ``own_scripts``, files beside the templates) and ``policy``, which names each
    script by its hash and lets no request out.
    """
    # Hashes of a policy are over the exact text between the tags.
    own = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in own_scripts]
    scripts = [get_plotlyjs(), *own]
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts),
            **values,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates, each compiled once a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats: dict[str, Callable[..., str]] = {
        "percent": report_words.percent,
        "three": report_words.three,
        "signed": report_words.signed,
        "change": report_words.signed_three,
        "seconds": _seconds,
    }
    environment.filters.update(formats)
    return environment


def figure_json(figure: go.Figure) -> Markup:
    """A figure for a script element of type JSON."""
    return safe_json(str(figure.to_json()))


def safe_json(text: str) -> Markup:
    """JSON for a script element: it says the same, and no sign in it could end or change the element."""
    # Inside a script element only "</" and "<!--" could; no "<" is left at all.
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
