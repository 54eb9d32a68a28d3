// What the parts of the view share: nodes, numbers as text, and drawing anew.

const SVG = "http://www.w3.org/2000/svg";
const DONE = { zero: "zeroed", mean: "set to the mean", patch: "patched" };
const KEYWORDS = ["last", "question", "image", "text", "all"];

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const share = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1) + " %");
const signed = (value, digits = 2) =>
  value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
// What was typed, as a number if it is one; Python says what is wrong with anything else.
const number = (text) => (text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// Arrow keys move the focus within a grid of buttons, of which one is reached by Tab.
function roving(container, columns) {
  const cells = [...container.querySelectorAll("button")];
  cells.forEach((cell, i) => (cell.tabIndex = i === 0 ? 0 : -1));
  container.addEventListener("keydown", (event) => {
    const at = cells.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (at < 0 || step === undefined) return;
    event.preventDefault();
    const next = cells[at + step];
    if (!next) return;
    cells[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// What is to be drawn in a part when the pointer that is down in it is up: else its click would be lost.
const waiting = new WeakMap();

// Keep the focus where it was when a part is drawn anew: by its data-key.
function redraw(part, ...children) {
  if (waiting.has(part)) {
    waiting.set(part, children);
    return;
  }
  const active = part.getRootNode().activeElement;
  const key = active && part.contains(active) ? active.dataset.key : null;
  const scroll = [...part.querySelectorAll(".mvx-scroll")].map((node) => node.scrollLeft);
  part.replaceChildren(...children.filter((child) => child !== null));
  part.querySelectorAll(".mvx-scroll").forEach((node, i) => (node.scrollLeft = scroll[i] ?? 0));
  if (key) part.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

function codeButton(code, what, view) {
  if (!code) return null;
  const shown = el("pre", { class: "mvx-code", hidden: true, tabindex: 0, "aria-label": `Python of ${what}` });
  shown.textContent = code;
  const copy = el(
    "button",
    {
      type: "button",
      class: "mvx-quiet",
      "data-key": "copy " + what,
      "aria-label": `Copy the Python code of ${what}`,
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(code);
          view.say(`The code of ${what} was copied.`);
        } catch {
          shown.hidden = false; // no clipboard here: select it instead
          const range = document.createRange();
          range.selectNodeContents(shown);
          getSelection().removeAllRanges();
          getSelection().addRange(range);
          view.say("No access to the clipboard: the code is selected below, copy it with Ctrl+C.");
        }
      },
    },
    "Copy code",
  );
  const show = el(
    "button",
    {
      type: "button",
      class: "mvx-quiet",
      "data-key": "show " + what,
      "aria-expanded": "false",
      onclick: () => {
        shown.hidden = !shown.hidden;
        show.setAttribute("aria-expanded", String(!shown.hidden));
        show.textContent = shown.hidden ? "Show code" : "Hide code";
      },
    },
    "Show code",
  );
  return el("div", { class: "mvx-codes" }, copy, show, shown);
}

function shade(cell, value, most) {
  const size = most > 0 && value !== null ? Math.min(1, Math.abs(value) / most) : 0;
  cell.style.setProperty("--size", (0.92 * size).toFixed(3));
  cell.classList.add(value !== null && value < 0 ? "mvx-down" : "mvx-up");
}

const largest = (rows) => Math.max(0, ...rows.flat().filter((v) => v !== null).map(Math.abs));
