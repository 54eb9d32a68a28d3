// Where an edit is, and what the answer is then.

const answers = {
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
  },

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
  },
};
