// What each cell by itself does.

const effects = {
  // Which cells are the chosen place, or a part of it.
  mark() {
    const place = this.get("place");
    for (const [cell, heat, layer, column] of this.cells) {
      const there = place.component === heat.component && place.layer === layer;
      const chosen = heat.cells === "tokens" ? same(place.positions, column.positions)
        : heat.cells === "heads" ? place.heads?.includes(column.heads) : place.units?.includes(column.units);
      cell.setAttribute("aria-pressed", String(!!(there && chosen)));
    }
  },

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
  },

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
  },
};
