"""The explorer's view in a bare page with a real model behind it: a person's clicks change what is shown.

``test_explorer_lab.py`` does the same in JupyterLab and Notebook 7.
"""

from __future__ import annotations

from typing import Any

import pytest

import mechvrp
from mechvrp.explorer import Explorer
from tests.support.explorer_page import Clicks, mount, walk

WIDE, NARROW = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def model() -> mechvrp.VLM:
    return mechvrp.load("tiny-llava")


@pytest.fixture
def session(model: mechvrp.VLM) -> Explorer:
    scores = [0.0] * model.d_mlp
    scores[7], scores[3] = 2.0, -3.0
    ranking = mechvrp.Ranking(("blocks.2.mlp.hook_post",), scores, model=model.name)
    scenes = mechvrp.data.load("scenes", limit=48)
    return Explorer(model, scenes, reference=12, rankings={"by hand": ranking})


def test_a_person_s_clicks_change_what_is_shown(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
    panel = mount(page, session)
    clicks = walk(page)
    assert [str(node) for node in session.circuit.nodes] == [
        "blocks.1.attn.hook_z[head 1]@last",
        "blocks.2.attn.hook_z[head 0]@last",
    ]
    assert session.circuit.name == "two heads"
    clicks.press("Add top")
    clicks.says("Circuit", "Circuit (7 nodes)")
    assert "blocks.2.mlp.hook_post[unit 3]@last" in map(str, session.circuit.nodes)
    panel.close()


def test_everything_can_be_reached_with_the_keyboard(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Example", "Example 0 (")
    clicks.idle()
    first = clicks.root.get_by_role("button", name="Patch row 0, column 0", exact=True)
    first.focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    clicks.says("Where", "at [(1, 1)]")
    focused = clicks.root.get_by_role("button", name="Patch row 1, column 1", exact=True)
    clicks.expect(focused).to_be_focused()  # it was drawn anew, and is still where the person was
    outline = focused.evaluate("(one) => getComputedStyle(one).outlineStyle")
    assert outline == "solid"
    panel.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_needs_no_scrolling_aside(
    open_page: Any, session: Explorer, scheme: str
) -> None:
    page = open_page(viewport=NARROW, color_scheme=scheme)
    panel = mount(page, session, scheme)
    clicks = Clicks(page)
    clicks.says("Example", "Example 0 (")
    clicks.press("layers × tokens")
    clicks.says("Effects", "full colour is")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= NARROW["width"]
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(".mvx button, .mvx input, .mvx select, .mvx img")]
          .filter((one) => !one.hasAttribute("alt") && !(one.getAttribute("aria-label")
            || one.textContent.trim()
            || [...(one.labels ?? [])].some((label) => label.textContent.trim())))
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    panel.close()
