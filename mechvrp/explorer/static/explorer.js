// The explorer's view: plain DOM and SVG. It shows what Python puts into the traits, and sends messages
// ({do: ...}, see mechvrp/explorer/panel.py); nothing is computed here and nothing is fetched.

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

class View {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.measure = "probability";
    this.cellMethod = "zero"; // of the effect map
    this.circuitMethod = "zero"; // of the circuit and its curve
    this.cells = []; // of the effect map
    this.key = Math.random().toString(36).slice(2); // there may be several views of one explorer
    this.sent = 0; // messages
    this.wishes = {}; // of place and filter: what was asked for last, until it is answered
    this.parts = {};
    for (const [name, title] of [
      ["gallery", "Examples"], ["example", "Example"], ["place", "Where"], ["outcome", "Answer"],
      ["heat", "Effects"], ["circuit", "Circuit"], ["curve", "Ablation curve"],
    ]) {
      this.parts[name] = el("section", { class: "mvx-" + name, "aria-label": title });
    }
    this.told = el("span", { role: "status", "aria-live": "polite" });
    this.bar = el("progress", { hidden: true, "aria-label": "Progress" });
    this.stop = el(
      "button",
      { type: "button", class: "mvx-cancel", disabled: true, onclick: () => this.send({ do: "cancel" }) },
      "Cancel",
    );
    this.head = el("header", {}, el("strong", {}, "mechvrp explorer"), this.titled = el("span"));
    root.classList.add("mvx");
    root.append(
      this.head,
      el("div", { class: "mvx-body" },
        this.parts.gallery,
        el("div", { class: "mvx-column" }, this.parts.example, this.parts.place, this.parts.outcome),
        el("div", { class: "mvx-column" }, this.parts.heat, this.parts.circuit, this.parts.curve)),
      el("footer", {}, this.told, this.bar, this.stop),
    );
    this.listeners = [
      [root, "pointerdown", (event) => this.hold(event)],
      [window, "pointermove", (event) => event.buttons || this.release()],
      [window, "pointerup", () => this.release()],
      [window, "pointercancel", () => this.release()],
      [window, "keydown", (event) => this.enter(event)], // before JupyterLab's own, on the document
    ];
    for (const [target, kind, call] of this.listeners) target.addEventListener(kind, call, true);
    this.handlers = [];
    for (const name of ["setup", ...Object.keys(this.parts), "status"]) {
      const draw = () => this["draw_" + name]?.(this.get(name));
      model.on("change:" + name, draw);
      this.handlers.push(["change:" + name, draw]);
      draw();
    }
  }

  get(name) {
    return this.model.get(name) ?? {};
  }

  send(message) {
    if (message.do !== "cancel") {
      this.stop.disabled = false; // until Python says that it is done
      this.root.setAttribute("aria-busy", "true");
    }
    this.sent += 1;
    this.model.send({ ...message, id: [this.key, this.sent] });
  }

  // The place or filter that was asked for last, which quick clicks build on.
  wished(name, answered) {
    return this.wishes[name]?.value ?? answered;
  }

  wish(name, message) {
    this.send(message);
    const { do: _, ...value } = message;
    this.wishes[name] = { value, at: this.sent };
  }

  answered([key, at]) {
    if (key !== this.key) return; // another view of the same explorer asked
    for (const [name, wish] of Object.entries(this.wishes)) if (wish.at <= at) delete this.wishes[name];
  }

  say(text, error = false) {
    this.told.textContent = text;
    this.told.className = error ? "mvx-error" : "";
  }

  close() {
    for (const [name, draw] of this.handlers) this.model.off(name, draw);
    for (const [target, kind, call] of this.listeners) target.removeEventListener(kind, call, true);
  }

  // Enter in a field takes what was typed, as leaving the field does.
  enter(event) {
    const [field] = event.composedPath();
    if (event.key !== "Enter" || event.isComposing || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    if (field.tagName !== "INPUT" || !this.root.contains(field)) return;
    event.preventDefault();
    event.stopPropagation();
    field.blur();
    field.focus({ preventScroll: true });
  }

  hold(event) {
    if (event.target.closest("select")) return; // its list may take the end of the click for itself
    const part = Object.values(this.parts).find((one) => one.contains(event.target));
    if (!part) return;
    if (this.held !== part) this.release(); // a pointer that was let go of outside the page
    this.held = part;
    if (!waiting.has(part)) waiting.set(part, null);
  }

  release() {
    const part = this.held;
    if (!part) return;
    this.held = null;
    setTimeout(() => { // behind the click, which follows a finger's pointerup after a while
      if (this.held === part) return;
      const children = waiting.get(part);
      waiting.delete(part);
      if (children) redraw(part, ...children);
    }, 50);
  }

  button(text, message, options = {}) {
    return el(
      "button",
      { type: "button", "data-key": text, ...options, 
        onclick: () => {
          const wanted = typeof message === "function" ? message() : message;
          if (wanted) this.send(wanted);
        } },
      text,
    );
  }

  choice(key, now, options, change) {
    return el("select", { "data-key": key, onchange: (event) => change(event.target.value) },
      ...options.map(([value, text]) => el("option", { value, selected: value === now }, text)));
  }

  draw_setup(setup) {
    if (setup.model) {
      this.titled.textContent = ` ${setup.model} (${setup.layers} layers, ${setup.heads} heads) · ${setup.total} examples`;
    }
    this.draw_gallery(this.get("gallery"));
    this.draw_place(this.get("place"));
    this.draw_circuit(this.get("circuit"));
  }

  draw_status(status) {
    if (status.busy === undefined) return;
    this.stop.disabled = !status.busy;
    this.root.setAttribute("aria-busy", String(status.busy));
    this.bar.hidden = !status.busy;
    if (!status.busy && status.id) this.answered(status.id);
    if (status.busy) {
      if (status.total) {
        this.bar.max = status.total;
        this.bar.value = status.done;
        this.say(`${status.label}: ${status.done} of ${status.total}`);
      } else {
        this.bar.removeAttribute("value");
        this.say(`${status.label} …`);
      }
    } else if (status.error) this.say(status.error, true);
    else this.say(status.note || `${status.did}: ${Math.round(status.took_ms)} ms`);
  }

  // ---- examples -------------------------------------------------------------------------------

  ask(changes) {
    this.wish("filter", { do: "filter", ...this.filter(), page: 0, ...changes });
  }

  filter() {
    const { asked, page } = this.get("gallery");
    return this.wished("filter", { task: null, right: null, text: "", ...asked, page: page ?? 0 });
  }

  draw_gallery(gallery) {
    if (!gallery.items) return;
    const setup = this.get("setup");
    const chosen = this.get("example").index;
    const asked = gallery.asked;
    const select = (label, value, options, change) => el("label", {}, label, this.choice(label, value, options, change));
    const filters = el("div", { class: "mvx-row" },
      select("Task ", asked.task ?? "", [["", "all"], ...(setup.tasks ?? []).map((t) => [t, t])],
        (task) => this.ask({ task: task || null })),
      select("Answer ", asked.right === null ? "" : String(asked.right),
        [["", "any"], ["true", "right"], ["false", "wrong"]],
        (right) => this.ask({ right: right === "" ? null : right === "true" })),
      el("label", {}, "Text ", el("input", { type: "search", "data-key": "text", value: asked.text, size: 9,
        onchange: (event) => this.ask({ text: event.target.value }) })));
    const items = gallery.items.map((item) => {
      const verdict = item.right === null ? "" : item.right ? "✓" : "✗";
      const words = item.right === null ? "" : item.right ? ", answered rightly" : ", answered wrongly";
      return el("button", {
        type: "button", class: "mvx-thumb", "data-key": "example " + item.index,
        "aria-pressed": String(item.index === chosen), title: item.question,
        "aria-label": `Example ${item.index}, ${item.task}: ${item.question}${words}`,
        onclick: () => this.send({ do: "choose", index: item.index }),
      },
      item.thumb ? el("img", { src: item.thumb, alt: "" }) : el("span", { class: "mvx-error" }, item.problem),
      el("b", {}, `${item.index} ${verdict}`), el("span", {}, item.question));
    });
    const grid = el("div", { class: "mvx-thumbs" }, ...items);
    roving(grid, 4);
    redraw(this.parts.gallery,
      el("h3", {}, `Examples (${gallery.found} of ${setup.total ?? "?"})`),
      filters, grid,
      el("div", { class: "mvx-row" },
        this.button("Previous", () => this.ask({ page: this.filter().page - 1 }), { disabled: gallery.page === 0 }),
        el("span", {}, `page ${gallery.page + 1} of ${gallery.pages}`),
        this.button("Next", () => this.ask({ page: this.filter().page + 1 }), { disabled: gallery.page + 1 >= gallery.pages })),
      codeButton(gallery.code, "the filter", this));
  }

  // ---- the example ----------------------------------------------------------------------------

  look(changes) {
    const { component, layer, positions, units, heads } = this.place();
    this.wish("place", { do: "look", component, layer, positions, units, heads, ...changes });
  }

  place() {
    return this.wished("place", this.get("place"));
  }

  patches() {
    const { positions } = this.place();
    return Array.isArray(positions) ? positions : [];
  }

  toggle(pair) {
    const now = this.patches();
    const left = now.filter((one) => !same(one, pair));
    const next = left.length === now.length ? [...now, pair] : left;
    this.look({ positions: next.length ? next : this.place().component === "projected" ? "image" : "last" });
  }

  draw_example(example) {
    if (example.index === undefined) return;
    const heat = this.get("heat");
    const effects = heat.cells === "patches" && heat.example === example.index ? heat[this.measure][0] : null;
    const most = effects ? largest([effects]) : 0;
    const image = el("img", { src: example.image, alt: `The image of example ${example.index}: ${example.question}` });
    const frame = el("div", { class: "mvx-image" }, image);
    frame.style.aspectRatio = `${example.size[0]} / ${example.size[1]}`;
    let about = "The image's tokens stand on no single grid: choose positions by name.";
    if (example.grid) {
      const [rows, cols] = example.grid;
      const [left, top, right, bottom] = example.box;
      const overlay = el("div", { class: "mvx-patches", role: "group", "aria-label": `Image patches, ${rows} rows by ${cols} columns` });
      Object.assign(overlay.style, {
        left: 100 * left + "%", top: 100 * top + "%", width: 100 * (right - left) + "%", height: 100 * (bottom - top) + "%",
        gridTemplateColumns: `repeat(${cols}, 1fr)`, gridTemplateRows: `repeat(${rows}, 1fr)`,
      });
      const chosen = this.patches();
      for (let row = 0; row < rows; row++) {
        for (let col = 0; col < cols; col++) {
          const effect = effects ? effects[row * cols + col] : null;
          const words = `Patch row ${row}, column ${col}` + (effects ? `, effect ${signed(effect, 3)}` : "");
          const cell = el("button", {
            type: "button", "data-key": `patch ${row} ${col}`, title: words, "aria-label": words,
            "aria-pressed": String(chosen.some((pair) => same(pair, [row, col]))),
            onclick: () => this.toggle([row, col]),
          });
          if (effects) shade(cell, effect, most);
          overlay.append(cell);
        }
      }
      roving(overlay, cols);
      frame.append(overlay);
      about = `${rows} × ${cols} patches: click to choose.`;
    }
    const verdict = example.right ? "right ✓" : "wrong ✗";
    const place = this.get("place");
    const token = (at, text, label) => el("button", {
      type: "button", class: "mvx-token", "data-key": "token " + at, title: label, "aria-label": label,
      "aria-pressed": String(place.positions === at), onclick: () => this.look({ positions: at }),
    }, text);
    const tokens = el("div", { class: "mvx-tokens", role: "group", "aria-label": "Tokens of the prompt" },
      ...example.tokens.map((one) => token(one.at, one.text.trim() || "␣", `Token ${JSON.stringify(one.text)} at ${one.at}`)));
    roving(tokens, 8);
    redraw(this.parts.example,
      el("h3", {}, `Example ${example.index} (${example.task})`),
      el("p", { class: "mvx-question" }, example.question),
      el("p", {}, "Answer: ", el("b", {}, example.answer || "(empty)"), ` (${share(example.answer_probability)}), `,
        el("span", { class: example.right ? "mvx-good" : "mvx-bad" }, verdict),
        example.right ? "" : `; right is “${example.right_answer}”`,
        example.reliability === null ? "" : `; reliability ${share(example.reliability)}${example.abstain ? ", the monitor abstains" : ""}`),
      frame, el("p", { class: "mvx-note" }, about), tokens);
    this.draw_gallery(this.get("gallery"));
  }

  // ---- where ----------------------------------------------------------------------------------

  draw_place(place) {
    const setup = this.get("setup");
    if (!place.component || !setup.components) return;
    const option = (value, text, now) => el("option", { value, selected: String(value) === String(now) }, text);
    const site = el("select", { "data-key": "site", onchange: (event) => {
      const component = event.target.value;
      const projected = component === "projected";
      const { layer, positions } = this.place();
      this.look({ component, units: null, heads: null,
        layer: projected ? null : layer ?? 0,
        positions: projected && !Array.isArray(positions) ? "image" : positions });
    } }, ...setup.components.map((c) => option(c.name, `${c.words} (${c.name})`, place.component)));
    const layer = el("select", { "data-key": "layer", disabled: place.layer === null,
      onchange: (event) => this.look({ layer: Number(event.target.value), units: null, heads: null }) },
    ...Array.from({ length: setup.layers }, (_, i) => option(i, i, place.layer)));
    const named = typeof place.positions === "string" && KEYWORDS.includes(place.positions);
    const own = named ? [] : [option("", Array.isArray(place.positions) ? count(place.positions.length, "patch", "patches") : `token ${place.positions}`, "")];
    const positions = el("select", { "data-key": "positions",
      onchange: (event) => event.target.value && this.look({ positions: event.target.value }) },
    ...own, ...KEYWORDS.map((word) => option(word, word, place.positions)));
    const listed = (name) => {
      const input = el("input", { type: "text", "data-key": name, size: 12, placeholder: "all",
        value: (place[name] ?? []).join(", "),
        onchange: (event) => {
          const numbers = event.target.value.split(/[\s,]+/).filter(Boolean).map(number);
          this.look({ [name]: numbers.length ? numbers : null });
        } });
      return el("label", {}, name === "heads" ? "Heads " : "Units ", input);
    };
    const donor = el("input", { type: "number", "data-key": "donor", min: 0, max: setup.total - 1, value: this.donor ?? (this.get("example").index === 0 ? 1 : 0),
      onchange: (event) => (this.donor = event.target.value) });
    redraw(this.parts.place,
      el("h3", {}, "Where"),
      el("div", { class: "mvx-row" },
        el("label", {}, "Site ", site), el("label", {}, "Layer ", layer), el("label", {}, "Positions ", positions),
        place.component === "z" ? listed("heads") : listed("units")),
      el("p", { class: "mvx-note" }, place.words),
      el("div", { class: "mvx-row" },
        this.button("Clean", { do: "clean" }),
        this.button("Ablate", { do: "ablate", method: "zero" }, { title: "Set it to zero" }),
        this.button("Ablate to mean", { do: "ablate", method: "mean" }, { title: `Its mean over the first ${setup.reference} examples` }),
        this.button("Patch", () => ({ do: "patch", donor: number(donor.value) }), { title: "Give it the other example's value" }),
        el("label", {}, "from example ", donor)),
      el("div", { class: "mvx-row" },
        this.button("Add to circuit", { do: "add" }, { disabled: !place.nodes, title: place.why_no_nodes || count(place.nodes, "node", "nodes") }),
        place.why_no_nodes ? el("span", { class: "mvx-note" }, place.why_no_nodes) : null));
    this.mark();
    this.draw_example(this.get("example"));
  }

  // ---- the answer -----------------------------------------------------------------------------

  draw_outcome(outcome) {
    if (!outcome.words) return;
    const rows = outcome.words.map((word) => {
      const bar = (value, kind) => {
        const node = el("span", { class: "mvx-bar mvx-" + kind, "aria-hidden": "true" });
        node.style.width = 100 * (value ?? 0) + "%";
        return node;
      };
      return el("tr", {},
        el("th", { scope: "row" }, word.text, word.right ? el("span", { title: "the benchmark's answer begins so" }, " ✓") : ""),
        el("td", { class: "mvx-bars" }, bar(word.before, "before"), word.after === null ? null : bar(word.after, "after")),
        el("td", {}, share(word.before)),
        outcome.kind === "clean" ? null : el("td", {}, share(word.after)));
    });
    const said = (text) => (text === "" ? "(empty)" : text);
    const change = outcome.kind === "clean" ? "clean run"
      : outcome.changed ? `begins with “${outcome.first_after.trim()}” instead of “${outcome.first.trim()}”`
        : `still begins with “${outcome.first.trim()}”`;
    const whole = outcome.answer_before === null ? outcome.no_answers && `No whole answers: ${outcome.no_answers}`
      : outcome.answer_after === null ? `Whole answer: ${said(outcome.answer_before)}`
        : `Whole answer: ${said(outcome.answer_before)} → ${said(outcome.answer_after)}`;
    const reads = outcome.reliability_before === null ? null
      : el("p", {}, `Probe's reliability ${share(outcome.reliability_before)}` +
        (outcome.reliability_after === null ? "" : ` → ${share(outcome.reliability_after)}`));
    redraw(this.parts.outcome,
      el("h3", {}, "First token of the answer"),
      el("p", {}, outcome.what ? outcome.what + ": " : "", el("b", {}, change)),
      el("table", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "token"), el("td", {}), el("th", { scope: "col" }, "before"),
          outcome.kind === "clean" ? null : el("th", { scope: "col" }, "after"))),
        el("tbody", {}, ...rows)),
      el("p", { class: "mvx-note" }, `Margin over the best other token: ${signed(outcome.margin_before)}` +
        (outcome.margin_after === null ? "" : ` → ${signed(outcome.margin_after)}`) + " (logits)"),
      whole ? el("p", { class: "mvx-whole" }, whole) : null, reads, codeButton(outcome.code, "this run", this));
  }

  // ---- effects --------------------------------------------------------------------------------

  // Which cells are the chosen place, or a part of it.
  mark() {
    const place = this.get("place");
    for (const [cell, heat, layer, column] of this.cells) {
      const there = place.component === heat.component && place.layer === layer;
      const chosen = heat.cells === "tokens" ? same(place.positions, column.positions)
        : heat.cells === "heads" ? place.heads?.includes(column.heads) : place.units?.includes(column.units);
      cell.setAttribute("aria-pressed", String(!!(there && chosen)));
    }
  }

  draw_heat(heat) {
    this.cells = [];
    const kinds = [["tokens", "layers × tokens"], ["patches", "image patches"], ["heads", "layers × heads"], ["units", "units of this site"]];
    const how = () => {
      const input = this.parts.place.querySelector("[data-key=donor]");
      return this.cellMethod === "patch" && input ? { donor: number(input.value) } : { method: this.cellMethod };
    };
    const method = this.choice("cell method", this.cellMethod,
      [["zero", "zero"], ["mean", "mean"], ["patch", "the other example's value"]], (value) => (this.cellMethod = value));
    const measure = this.choice("measure", this.measure, [["probability", "probability"], ["margin", "margin (logits)"]], (value) => {
      this.measure = value;
      this.draw_heat(this.get("heat"));
    });
    const parts = [
      el("h3", {}, "What each cell by itself does"),
      el("div", { class: "mvx-row" }, ...kinds.map(([cells, text]) => this.button(text, () => ({ do: "map", cells, ...how() })))),
      el("div", { class: "mvx-row" }, el("label", {}, "Put in ", method), el("label", {}, "Show ", measure)),
    ];
    if (heat.cells) {
      const values = heat[this.measure];
      const most = largest(values);
      const digits = Math.min(6, Math.max(this.measure === "probability" ? 3 : 2, most > 0 ? Math.ceil(-Math.log10(most)) + 1 : 0));
      const what = `${DONE[heat.method]}: change of the ${this.measure === "probability" ? "probability" : "margin"} of the clean answer's first token (${
        this.measure === "probability" ? share(heat.base_probability) : signed(heat.base_margin)} clean)`;
      const caption = `${heat.component} ${what}. Blue lowers it, orange raises it; full colour is ${most.toFixed(digits)}.`;
      if (heat.cells === "patches") {
        const flat = values[0].map((v, i) => [v, i]).filter(([v]) => v !== null).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
        parts.push(el("p", {}, caption + " It is drawn over the image."),
          el("p", { class: "mvx-note" }, "Largest: " + flat.slice(0, 5).map(([v, i]) => `${heat.columns[i].label} ${signed(v, digits)}`).join(", ")));
      } else {
        const columns = heat.columns.length;
        const table = el("div", { class: "mvx-grid", role: "group", "aria-label": caption });
        const units = heat.cells === "units";
        if (units) table.classList.add("mvx-units");
        else table.style.gridTemplateColumns = `auto repeat(${columns}, minmax(1.5em, 1fr))`;
        values.forEach((row, i) => {
          if (!units) table.append(el("span", { class: "mvx-label" }, String(heat.layers[i])));
          row.forEach((value, j) => {
            const column = heat.columns[j];
            const name = units ? `unit ${column.label}` : heat.cells === "heads" ? `layer ${heat.layers[i]}, head ${column.label}`
              : `layer ${heat.layers[i]}, ${column.label === "image" ? "the image" : "token " + JSON.stringify(column.label)}`;
            const words = `${name}: ` + (value === null ? heat.gaps[i][j] || "no value" : signed(value, digits));
            const cell = el("button", { type: "button", "data-key": `cell ${i} ${j}`, title: words, "aria-label": words,
              onclick: () => this.pick(heat, heat.layers[i], column) }, units ? column.label : value === null ? "·" : "");
            shade(cell, value, most);
            this.cells.push([cell, heat, heat.layers[i], column]);
            table.append(cell);
          });
        });
        if (!units) {
          table.append(el("span"));
          heat.columns.forEach((column) => table.append(el("span", { class: "mvx-foot" }, column.label.trim() || "␣")));
        }
        roving(table, columns);
        parts.push(el("p", {}, caption), el("div", { class: "mvx-scroll" }, table));
        if (units) parts.push(el("p", { class: "mvx-note" }, `${columns} of ${heat.of} units, those of largest effect on the margin first.`));
      }
      parts.push(codeButton(heat.code, "this map", this));
    }
    redraw(this.parts.heat, ...parts);
    this.mark();
    this.draw_example(this.get("example"));
  }

  pick(heat, layer, column) {
    const place = this.place();
    if (heat.cells === "tokens") {
      this.look({ component: heat.component, layer, positions: column.positions });
    } else if (heat.cells === "heads") {
      const here = place.component === "z" && place.layer === layer && place.heads ? place.heads : [];
      const heads = here.includes(column.heads) ? here.filter((h) => h !== column.heads) : [...here, column.heads];
      this.look({ component: "z", layer, positions: column.positions, units: null, heads: heads.length ? heads : null });
    } else {
      const here = place.component === heat.component && place.layer === layer && place.units ? place.units : [];
      const units = here.includes(column.units) ? here.filter((u) => u !== column.units) : [...here, column.units];
      this.look({ component: heat.component, layer, positions: column.positions, heads: null, units: units.length ? units : null });
    }
  }

  // ---- circuit and curve ----------------------------------------------------------------------

  draw_circuit(circuit) {
    if (!circuit.nodes) return;
    const none = circuit.nodes.length === 0;
    const file = el("input", { type: "text", "data-key": "file", size: 14, value: this.file ?? "circuit.json", "aria-label": "File of the circuit",
      onchange: (event) => (this.file = event.target.value) });
    const list = el("ol", {}, ...circuit.nodes.map((node) => el("li", {}, el("code", {}, node), " ",
      el("button", { type: "button", class: "mvx-quiet", "data-key": "remove " + node, "aria-label": `Remove ${node}`,
        onclick: () => this.send({ do: "remove", node }) }, "Remove"))));
    const rankings = this.get("setup").rankings ?? [];
    const ranked = rankings.length ? this.choice("ranking", this.ranking ?? rankings[0].name,
      rankings.map(({ name }) => [name, name]), (value) => (this.ranking = value)) : null;
    const top = el("input", { type: "number", "data-key": "k", min: 1, value: this.top ?? 5,
      onchange: (event) => (this.top = event.target.value) });
    const method = this.choice("circuit method", this.circuitMethod, [["zero", "zero"], ["mean", "mean"]],
      (value) => (this.circuitMethod = value));
    redraw(this.parts.circuit,
      el("h3", {}, `Circuit (${count(circuit.nodes.length, "node", "nodes")})`),
      none ? el("p", { class: "mvx-note" }, "Choose heads, units or an MLP, and add them.") : list,
      el("div", { class: "mvx-row" },
        el("label", {}, "Name ", el("input", { type: "text", "data-key": "name", size: 14, value: circuit.name,
          onchange: (event) => this.send({ do: "name", name: event.target.value }) })),
        this.button("Clear", { do: "clear" }, { disabled: none })),
      ranked ? el("div", { class: "mvx-row" }, el("label", {}, "Top ", top), el("label", {}, "of ", ranked),
        this.button("Add top", () => ({ do: "top", ranking: ranked.value, k: number(top.value) }))) : null,
      el("div", { class: "mvx-row" },
        el("label", {}, "Put in ", method),
        this.button("Ablate circuit", () => ({ do: "ablate", circuit: true, method: method.value }), { disabled: none }),
        this.button("Grow curve", () => ({ do: "grow", method: method.value }), { disabled: none }),
        this.button("Patch circuit", () => ({ do: "patch", circuit: true,
          donor: number(this.parts.place.querySelector("[data-key=donor]").value) }), { disabled: none })),
      el("div", { class: "mvx-row" }, file,
        this.button("Save", () => ({ do: "save", path: file.value }), { disabled: none }),
        this.button("Load", () => ({ do: "load", path: file.value }))),
      codeButton(circuit.code, "the circuit", this));
  }

  draw_curve(curve) {
    if (!curve.points) {
      redraw(this.parts.curve);
      return;
    }
    const [width, height, left, bottom, top] = [360, 200, 44, 36, 10];
    const points = curve.points;
    const most = points[points.length - 1].k || 1;
    const x = (k) => left + ((width - left - 10) * k) / most;
    const y = (v) => top + (height - top - bottom) * (1 - v);
    const line = (key) => points.map((p, i) => `${i ? "L" : "M"}${x(p.k).toFixed(1)},${y(p[key]).toFixed(1)}`).join("");
    const band = (low, high) => points.map((p, i) => `${i ? "L" : "M"}${x(p.k)},${y(p[high])}`).join("") +
      [...points].reverse().map((p) => `L${x(p.k)},${y(p[low])}`).join("") + "Z";
    const last = points[points.length - 1];
    const done = DONE[curve.method];
    const words = `Accuracy with all ${last.k} nodes ${done} ${share(last.accuracy)}, with as many random nodes ${share(last.random)}; clean ${share(points[0].accuracy)}.`;
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
    for (const v of [0, 0.25, 0.5, 0.75, 1]) {
      drawn.append(svg("line", { x1: left, x2: width - 10, y1: y(v), y2: y(v), class: "mvx-axis" }),
        svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, `${100 * v} %`));
    }
    drawn.append(
      svg("path", { d: band("random_low", "random_high"), class: "mvx-random-band" }),
      svg("path", { d: line("random"), class: "mvx-random-line" }),
      svg("path", { d: band("low", "high"), class: "mvx-top-band" }),
      svg("path", { d: line("accuracy"), class: "mvx-top-line" }));
    const every = Math.ceil(points.length / 8);
    points.forEach((p, i) => {
      const mark = svg("circle", { cx: x(p.k), cy: y(p.accuracy), r: 3, class: "mvx-top-dot" });
      mark.append(svg("title", {}, `${count(p.k, "node", "nodes")}: ${share(p.accuracy)} [${share(p.low)}, ${share(p.high)}]`));
      drawn.append(mark);
      if (i % every === 0 || i === points.length - 1) {
        drawn.append(svg("text", { x: x(p.k), y: height - bottom + 16, "text-anchor": "middle" }, String(p.k)));
      }
    });
    drawn.append(svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "nodes " + done));
    redraw(this.parts.curve,
      el("h3", {}, "Accuracy without the circuit"), drawn,
      el("p", {}, el("span", { class: "mvx-key-top" }, "the circuit's nodes"), ", ",
        el("span", { class: "mvx-key-random" }, `as many random nodes (mean of ${curve.draws} draws)`)),
      el("p", {}, words + ` Beyond random: ${signed(last.excess, 1)} [${signed(last.excess_low, 1)}, ${signed(last.excess_high, 1)}] points.`),
      el("p", { class: "mvx-note" }, `n = ${curve.n} examples of ${curve.images} images that were not looked at, of ${curve.of}${
        curve.done ? "" : " so far"}; bands are ${Math.round(100 * curve.level)} % intervals over images, the random nodes' of their change from clean.`),
      codeButton(curve.code, "the curve", this));
  }
}

function render({ model, el: root }) {
  const view = new View(model, root);
  return () => view.close();
}

export default { render };
