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


def test_a_click_behind_typing_is_not_lost(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    session.look("z", 1, "last")
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Where", "blocks.1.attn.hook_z")
    clicks.idle()
    clicks.part("Where").get_by_role("textbox", name="Heads").click()
    page.keyboard.type("1")
    box = clicks.part("Where").get_by_role("button", name="Ablate", exact=True).bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.mouse.down()  # the field is left: "look" goes out, and its answer comes before the next line
    page.wait_for_timeout(300)
    assert session.place.heads == (1,)
    page.mouse.up()
    clicks.says("Answer", "heads 1: zero")
    clicks.says("Where", "heads 1")  # what was waiting for the pointer is drawn
    panel.close()


def test_an_open_list_is_not_drawn_anew(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    session.look("z", 1, "last")
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Where", "blocks.1.attn.hook_z")
    clicks.idle()
    layer = clicks.part("Where").get_by_label("Layer")
    layer.dispatch_event("pointerdown")  # as a click that opens it: its end goes to the list
    page.evaluate("window.opened = document.querySelector('.mvx [data-key=layer]')")
    other = {
        "do": "look",
        "component": "z",
        "layer": 2,
        "positions": "last",
        "id": ["another view", 1],
    }
    panel.handle(other)
    page.wait_for_timeout(300)
    assert session.place.layer == 2
    assert page.evaluate("document.contains(window.opened)")
    clicks.part("Examples").dispatch_event("pointerdown")  # elsewhere: the list was left
    page.dispatch_event("body", "pointerup")
    clicks.says("Where", "blocks.2.attn.hook_z")
    panel.close()


def test_enter_takes_what_was_typed(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    session.look("z", 1, "last")
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Where", "blocks.1.attn.hook_z")
    clicks.idle()
    # As JupyterLab does, which takes Enter for a shortcut of its own.
    page.evaluate(
        """() => document.addEventListener("keydown", (event) => {
          window.taken = true; event.preventDefault(); event.stopPropagation(); }, true)"""
    )
    heads = clicks.part("Where").get_by_role("textbox", name="Heads")
    heads.click()
    heads.fill("0, 2")
    heads.press("Enter")
    clicks.says("Where", "heads 0, 2")
    clicks.expect(heads).to_be_focused()
    assert not page.evaluate("window.taken")
    panel.close()


def test_quick_clicks_build_on_each_other(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Example", "Example 0 (")
    clicks.idle()
    click = """(names) => names.forEach((name) =>
      document.querySelector(`.mvx [data-key="${name}"]`).click())"""
    page.evaluate(click, ["patch 0 3", "patch 2 5", "patch 4 1"])
    clicks.says("Where", "at [(0, 3), (2, 5), (4, 1)]")
    page.evaluate(click, ["patch 0 3", "patch 2 5"])
    clicks.says("Where", "at [(4, 1)]")
    clicks.expect(clicks.part("Where").get_by_label("Positions")).to_contain_text("1 patch")
    choose = """(chosen) => chosen.forEach(([name, value]) => {
      const field = document.querySelector(`.mvx [data-key="${name}"]`);
      field.value = value;
      field.dispatchEvent(new Event("change")); })"""
    page.evaluate(choose, [["positions", "last"], ["layer", "1"], ["site", "z"]])
    clicks.says("Where", 'blocks.1.attn.hook_z, at "last"')
    clicks.press("layers × heads")
    clicks.says("Effects", "full colour is")
    clicks.idle()
    page.evaluate(click, ["cell 1 0", "cell 1 2", "cell 1 3"])
    clicks.says("Where", "heads 0, 2, 3")
    task = session.examples.tasks[0]
    page.evaluate(choose, [["Task ", task], ["text", "a"]])
    found = session.examples.filter(task=task, text="a")
    assert 0 < len(found) < 48
    clicks.says("Examples", f"Examples ({len(found)} of 48)")
    clicks.expect(clicks.part("Examples").get_by_label("Task")).to_have_value(task)
    panel.close()


def test_an_empty_donor_is_no_example(open_page: Any, session: Explorer) -> None:
    page = open_page(viewport=WIDE)
    session.choose(3)
    panel = mount(page, session)
    clicks = Clicks(page)
    clicks.says("Example", "Example 3 (")
    donor = clicks.part("Where").get_by_label("from example")
    donor.fill("")
    donor.press("Tab")
    clicks.press("Patch", "Where")
    clicks.expect(clicks.root.get_by_role("status")).to_contain_text("give the number of the")
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
