// The explorer's view: plain DOM and SVG. It shows what Python puts into the traits, and sends messages
// ({do: ...}, see mechvrp/explorer/panel.py); nothing is computed here and nothing is fetched.
// One module for the browser: widget.py joins these files, dom.js first and this one last.

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
    const part = Object.values(this.parts).find((one) => one.contains(event.target));
    if (!part) return;
    // A pointer that was let go of outside the page, or a list that was left.
    if (this.held !== part) this.release(true);
    this.held = part;
    if (!waiting.has(part)) waiting.set(part, null);
    // An open list takes the end of the click for itself, and drawing it anew would close it.
    const list = (this.open = event.target.closest("select"));
    for (const kind of list ? ["change", "blur"] : []) {
      list.addEventListener(kind, () => this.open === list && this.release(true), { once: true });
    }
  }

  release(left = false) {
    if (this.open && !left) return;
    this.open = null;
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
}

Object.assign(View.prototype, examples, answers, effects, circuits);

function render({ model, el: root }) {
  const view = new View(model, root);
  return () => view.close();
}

export default { render };
