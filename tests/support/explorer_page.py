"""The explorer's view in a bare page, bridged to a real ``Panel``; and a person's clicks in it."""

from __future__ import annotations

import base64
import queue
import re
from importlib.resources import files
from typing import Any

from mechvrp.explorer import Explorer
from mechvrp.explorer.panel import Panel
from mechvrp.explorer.widget import view_module

__all__ = ["CLICKS", "Clicks", "mount", "walk"]

#: What an anywidget front end gives a view: traits by name, their changes, and messages to Python.
_PAGE = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">
<title>explorer</title><style>%(css)s</style>
<style>body { margin: 8px; background: Canvas; color: CanvasText; color-scheme: %(scheme)s; }</style>
<div id="root"></div>"""
_ADDRESS = "http://localhost/explorer"
_SCRIPT = """async (source) => {
  const held = {}, heard = {};
  const model = {
    get: (name) => held[name],
    on: (name, call) => (heard[name] ??= []).push(call),
    off: (name, call) => (heard[name] = heard[name].filter((one) => one !== call)),
    send: (message) => window.toPython(message),
  };
  const bytes = Uint8Array.from(atob(source), (c) => c.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const view = (await import(url)).default;
  view.render({ model, el: document.getElementById("root") });
  const pull = async () => {
    for (const [name, value] of await window.fromPython()) {
      held[name] = value;
      for (const call of heard["change:" + name] ?? []) call();
    }
    setTimeout(pull, 20);
  };
  pull();
}"""


def mount(page: Any, session: Explorer, scheme: str = "light") -> Panel:
    """Show an explorer in a page; the panel must be closed when the page is done."""
    shown: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    panel = Panel(session, lambda name, value: shown.put((name, value)))

    def pulled() -> list[tuple[str, Any]]:
        found = []
        while not shown.empty():
            found.append(shown.get())
        return found

    page.expose_function("toPython", panel.handle)
    page.expose_function("fromPython", pulled)
    static = files("mechvrp.explorer") / "static"
    css = (static / "explorer.css").read_text(encoding="utf-8")
    body = _PAGE % {"css": css, "scheme": scheme}
    # From this machine by name: such a page may use the clipboard.
    page.route(_ADDRESS, lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto(_ADDRESS)
    source = base64.b64encode(view_module().encode()).decode()
    page.evaluate(_SCRIPT, source)
    panel.start()
    return panel


class Clicks:
    """A person at the explorer.

    Args:
        page: that shows it.
        long: milliseconds that long work may take.
    """

    def __init__(self, page: Any, long: float = 60_000) -> None:
        from playwright.sync_api import expect

        self.page, self.root, self.expect, self.long = page, page.locator(".mvx"), expect, long

    def part(self, name: str) -> Any:
        return self.root.get_by_role("region", name=name, exact=True)

    def press(self, name: str | re.Pattern[str], part: str | None = None) -> None:
        where = self.root if part is None else self.part(part)
        where.get_by_role("button", name=name, exact=isinstance(name, str)).click()

    def says(self, part: str, text: str | re.Pattern[str]) -> None:
        self.expect(self.part(part)).to_contain_text(text, timeout=self.long)

    def idle(self) -> None:
        self.expect(self.root).to_have_attribute("aria-busy", "false", timeout=self.long)

    def probabilities(self) -> list[str]:
        self.idle()
        return self.part("Answer").locator("tbody tr").all_inner_texts()

    # ---- what a person does ---------------------------------------------------------------------

    def choose_an_example(self) -> None:
        self.says("Example", "Example 0 (")
        before = self.probabilities()
        self.press(re.compile("^Example 3,"))
        self.says("Example", "Example 3 (")
        assert self.probabilities() != before

    def click_a_patch(self) -> None:
        patch = self.root.get_by_role("button", name="Patch row 2, column 5", exact=True)
        patch.click()
        self.expect(patch).to_have_attribute("aria-pressed", "true")
        self.says("Where", "at [(2, 5)]")
        self.expect(
            self.part("Where").get_by_role("button", name="Add to circuit")
        ).to_be_disabled()

    def ablate(self) -> None:
        before = self.probabilities()
        self.press("Ablate", "Where")
        self.says("Answer", "at [(2, 5)]: zero")
        assert self.probabilities() != before
        self.press("Ablate to mean", "Where")
        self.says("Answer", "at [(2, 5)]: mean")
        self.says("Answer", "Whole answer: ")

    def choose_a_head(self) -> None:
        self.part("Where").get_by_label("Positions").select_option("last")
        self.says("Where", 'at "last"')
        self.part("Where").get_by_label("Site").select_option("z")
        self.says("Where", "attn.hook_z")
        self.part("Where").get_by_label("Layer").select_option("1")
        self.says("Where", "blocks.1.attn.hook_z")
        heads = self.part("Where").get_by_role("textbox", name="Heads")
        heads.fill("1")
        heads.press("Enter")
        self.says("Where", "heads 1")

    def patch_from_a_donor(self) -> None:
        donor = self.part("Where").get_by_label("from example")
        donor.fill("5")
        donor.press("Tab")
        self.press("Patch", "Where")
        self.says("Answer", "heads 1: from example 5")

    def add_to_the_circuit(self) -> None:
        self.press("Add to circuit")
        self.says("Circuit", "Circuit (1 node)")
        self.says("Circuit", "blocks.1.attn.hook_z[head 1]@last")
        name = self.part("Circuit").get_by_label("Name")
        name.fill("two heads")
        name.press("Tab")
        self.idle()
        self.press("layers × heads")
        self.says("Effects", "full colour is")
        self.press(re.compile("^layer 2, head 0:"))
        self.says("Where", "blocks.2.attn.hook_z")
        self.press("Add to circuit")
        self.says("Circuit", "Circuit (2 nodes)")
        self.expect(self.part("Circuit").get_by_label("Name")).to_have_value("two heads")

    def grow_its_curve(self) -> None:
        self.press("Grow curve")
        self.says("Ablation curve", "2 nodes zeroed")
        self.idle()
        self.expect(self.part("Ablation curve")).not_to_contain_text("so far")
        self.expect(self.part("Ablation curve").get_by_role("img")).to_be_visible()

    def cancel(self) -> None:
        # Long enough for a person to change their mind, on any machine.
        for _ in range(3):
            self.press("image patches")
        self.press("Grow curve")
        self.press("Cancel")
        self.expect(self.root.get_by_role("status")).to_have_text("Cancelled.", timeout=self.long)
        self.idle()
        self.says("Circuit", "Circuit (2 nodes)")

    def copy_the_code(self) -> None:
        self.press("Copy the Python code of this run")
        self.expect(self.root.get_by_role("status")).to_have_text(
            "The code of this run was copied."
        )
        code = self.page.evaluate("navigator.clipboard.readText()")
        assert code.startswith("import mechvrp")
        assert "mechvrp.resample(" in code


CLICKS = (
    "choose_an_example",
    "click_a_patch",
    "ablate",
    "choose_a_head",
    "patch_from_a_donor",
    "add_to_the_circuit",
    "grow_its_curve",
    "cancel",
    "copy_the_code",
)


def walk(page: Any, long: float = 60_000) -> Clicks:
    """All of a person's clicks, in order; each says what must be seen then."""
    clicks = Clicks(page, long)
    for name in CLICKS:
        getattr(clicks, name)()
    return clicks
