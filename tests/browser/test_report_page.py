"""The report in a real browser, from its file: by keyboard and mouse, with hostile text, light and dark.

Every page is watched (tests/support/browser.py): an error on the console or a request fails the test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechvrp.reliability import SIGNALS
from mechvrp.study.report import write_report
from tests.support.reports import browsable_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    return write_report(browsable_run(path, "one", "two", parts=False))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of one model with every figure there is, which is shown the middle of wide images."""
    path = tmp_path_factory.mktemp("figures") / "run"
    return write_report(browsable_run(path, "one", n=24, size=(32, 24), crops=True))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "run"
    return write_report(browsable_run(path, "one", "two", n=24, text=HOSTILE, parts=False))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a long word, signs that turn a line, a long name, and every signal there is."""
    path = tmp_path_factory.mktemp("odd") / "run"
    run = browsable_run(path, "one" + "m" * 40, "two", n=6, per_image=1, parts=False)
    table = run.read_examples()
    for name in set(SIGNALS) - set(table):
        table[name] = -0.0001234
    table["question"] = table["question"].mask(table["example"] == 1, "W" * 150 + "?")
    table["image_id"] = table["image_id"].mask(table["example"] == 2, "pic\u202egpj.exe")
    table["prediction"] = table["prediction"].mask(table["example"] == 2, "no\u202eabc")
    run.write_examples(table)
    return write_report(run)


def test_filter_and_open_by_mouse(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    rows, status = page.locator("#ex-rows tr"), page.locator("#ex-status")
    assert rows.count() == 20
    assert status.inner_text().startswith("60 of 60 examples")
    page.select_option("#ex-right", "0")
    wrong = int(status.inner_text().split()[0])
    assert status.inner_text() == f"{wrong} of 60 examples: 0 right, {wrong} wrong."
    assert page.locator("#ex-rows .mark.right").count() == 0
    page.click("#ex-form button[type=reset]")
    page.fill("#ex-words", "question 41?")
    assert rows.count() == 1
    page.click("#ex-rows button")
    dialog = page.locator("#ex-dialog")
    assert dialog.locator("h3").inner_text() == "question 41?"
    assert dialog.locator(".picture img").evaluate("i => i.naturalWidth") == 24
    canvas = dialog.locator("canvas")
    assert (canvas.get_attribute("width"), canvas.get_attribute("height")) == ("3", "4")
    # Example 41's sharpest patch is its number: 41 modulo 12 is 5, in the second row the third.
    assert "at row 2, column 3" in dialog.locator("#ex-map").inner_text()
    assert "2 × yes, 1 × no" in dialog.locator("#ex-facts").inner_text()
    assert dialog.locator("svg polyline").count() == 2
    assert "cluster count" in dialog.locator("#ex-signals").inner_text()
    page.click("#ex-overlay")
    assert not canvas.is_visible()
    dialog.locator(".other").click()  # what the other model says to the same
    assert "two" in dialog.locator("#ex-facts dd").first.inner_text()
    page.click("#ex-close")
    assert not dialog.is_visible()


def test_filter_and_open_by_keyboard(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    page.locator("#ex-task").focus()
    page.keyboard.press("ArrowDown")  # the first task
    status = page.locator("#ex-status").inner_text()
    assert status.startswith("30 of 60 examples")
    page.locator("#ex-words").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    first = page.locator("#ex-rows button").first
    assert first.evaluate("b => b === document.activeElement")
    page.keyboard.press("Enter")
    dialog = page.locator("#ex-dialog")
    assert dialog.is_visible()
    assert dialog.evaluate("d => d.contains(document.activeElement)")
    assert page.locator("#ex-where").inner_text() == "1 of 30"
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h3").inner_text() == "question 2?"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h3").inner_text() == "question 2?"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.locator("#ex-rows button").nth(1).evaluate("b => b === document.activeElement")


def test_reliability_and_order(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    page.select_option("#ex-order", "down")
    shown = page.locator("#ex-rows td.n").all_inner_texts()
    values = [float(text.split("\u00a0")[0]) for text in shown]
    assert values == sorted(values, reverse=True)
    page.fill("#ex-low", str(values[3] + 0.05))
    assert 1 <= page.locator("#ex-rows tr").count() <= 4
    page.click("#ex-form button[type=reset]")
    page.select_option("#ex-measure", "probe")
    page.fill("#ex-low", "0")  # whoever has a probe's number: the held-out half
    assert page.locator("#ex-status").inner_text().startswith("30 of 60 examples")
    page.fill("#ex-low", "100.1")
    assert "Clear the filter" in page.locator("#ex-status").inner_text()


def test_pages(page: Any, report: Path) -> None:
    page.goto(report.as_uri())
    assert page.locator("#ex-page").inner_text() == "page 1 of 3"
    assert page.locator("#ex-back").is_disabled()
    page.click("#ex-on")
    page.click("#ex-on")
    assert page.locator("#ex-on").is_disabled()
    assert page.locator("#ex-rows button").first.inner_text() == "question 40?"


def test_hostile_text_is_text(open_page: Callable[..., Any], hostile: Path) -> None:
    page = open_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script of the data ran: {dialog.message}"))
    page.goto(hostile.as_uri())
    page.locator("#ex-rows button").first.click()
    dialog = page.locator("#ex-dialog")
    assert HOSTILE in dialog.locator("h3").inner_text()
    for text in ("one" + HOSTILE, "scene-0.png" + HOSTILE):
        assert text in dialog.locator("#ex-facts").inner_text()
    dialog.locator(".other").click()
    assert page.locator("img[src=x]").count() == 0
    sources = page.locator("img").evaluate_all("all => all.map((i) => i.src)")
    assert all(source.startswith("data:image/") for source in sources)


def test_the_map_lies_on_what_the_model_is_shown(page: Any, figures: Path) -> None:
    page.goto(figures.as_uri())
    page.locator("#ex-rows button").first.click()
    page.wait_for_function(
        "document.getElementById('ex-map').textContent.includes('central square')"
    )
    image, canvas = page.locator("#ex-picture img"), page.locator("#ex-picture canvas")
    whole, cut = image.bounding_box(), canvas.bounding_box()
    assert cut["width"] == pytest.approx(0.75 * whole["width"], abs=2)
    assert cut["height"] == pytest.approx(whole["height"], abs=2)
    assert cut["x"] - whole["x"] == pytest.approx(0.125 * whole["width"], abs=2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_screen(
    open_page: Callable[..., Any], figures: Path, scheme: str, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(figures.as_uri())
    page.wait_for_selector(".js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("document.querySelector('.js-plotly-plot').layout.font.color")
    assert ink == ("#e6e6e6" if scheme == "dark" else "#1f2328")
    page.locator("#ex-rows button").first.click()
    box = page.locator("#ex-dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_text_of_another_direction_turns_only_itself(page: Any, odd: Path) -> None:
    page.goto(odd.as_uri())
    row = page.locator("#ex-rows tr").nth(2)
    said, mark = row.locator("bdi").bounding_box(), row.locator(".mark").bounding_box()
    assert mark["x"] >= said["x"] + said["width"]
    row.locator("button").click()
    # Behind the name of the image, in reading order and on the screen: its side.
    place = page.locator("#ex-facts dd:has(bdi)", has_text="gpj").evaluate(
        """(element) => {
          const range = document.createRange();
          range.selectNode(element.lastChild);
          const [side, name] = [range, element.firstChild].map((o) => o.getBoundingClientRect());
          return [element.lastChild.textContent, side.left - name.right];
        }"""
    )
    assert place[0] == " (training)"
    assert place[1] >= -0.5
    assert page.locator("#ex-others bdi").count() == 2


@pytest.mark.parametrize("width", [390, 1440])
def test_a_long_word_breaks_in_its_own_cell(
    open_page: Callable[..., Any], odd: Path, width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 844})
    page.goto(odd.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator("#ex-table")
    assert table.evaluate("t => t.parentElement.scrollWidth <= t.parentElement.clientWidth")
    cells = page.locator("#ex-rows td:visible:not(.pic)").evaluate_all(
        "all => all.map((cell) => cell.getBoundingClientRect().width)"
    )
    assert min(cells) > 60
    page.locator("#ex-rows button").first.click()
    dialog = page.locator("#ex-dialog")
    for _ in range(6):
        assert dialog.evaluate("d => d.scrollWidth - d.clientWidth") == 0
        page.keyboard.press("ArrowRight")


def test_figures_are_whole_on_a_narrow_screen(open_page: Callable[..., Any], figures: Path) -> None:
    page = open_page(viewport={"width": 390, "height": 844})
    page.goto(figures.as_uri())
    waiting = "[data-figure]:not(.js-plotly-plot):not(details:not([open]) *)"
    page.locator(waiting).first.wait_for(state="detached")
    plots = page.locator(".js-plotly-plot")
    assert plots.count() > 5
    # Points and words within the box that could be scrolled, as it first stands.
    outside = plots.evaluate_all(
        """all => all.flatMap((plot) => {
          const box = plot.parentElement.getBoundingClientRect();
          return [...plot.querySelectorAll(".points path, .xtitle, .ytitle, .legendtext, .ytick text")]
            .filter((part) => {
              const place = part.getBoundingClientRect();
              return place.left < box.left - 1 || place.right > box.right + 1;
            })
            .map((part) => plot.id + ": " + (part.textContent || "a point"));
        })"""
    )
    assert outside == []


def test_paper_is_white_whatever_the_screen_is(
    open_page: Callable[..., Any], figures: Path
) -> None:
    page = open_page(color_scheme="dark")
    page.goto(figures.as_uri())
    page.wait_for_selector(".js-plotly-plot")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    layout = "document.querySelector('.js-plotly-plot').layout"
    assert page.evaluate(f"{layout}.font.color") == "#1f2328"
    assert page.evaluate(f"{layout}.width") < 720
    drawn = page.locator("[data-figure]:not(details:not([open]) *)")
    assert drawn.count() == page.locator(".js-plotly-plot").count() > 3
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 40)"
    assert not page.locator("nav").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(f"{layout}.font.color") == "#e6e6e6"
