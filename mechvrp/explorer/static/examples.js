// The gallery and the example: what is chosen, and which image tokens.

const examples = {
  ask(changes) {
    this.wish("filter", { do: "filter", ...this.filter(), page: 0, ...changes });
  },

  filter() {
    const { asked, page } = this.get("gallery");
    return this.wished("filter", { task: null, right: null, text: "", ...asked, page: page ?? 0 });
  },

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
  },

  // ---- the example ----------------------------------------------------------------------------

  look(changes) {
    const { component, layer, positions, units, heads } = this.place();
    this.wish("place", { do: "look", component, layer, positions, units, heads, ...changes });
  },

  place() {
    return this.wished("place", this.get("place"));
  },

  patches() {
    const { positions } = this.place();
    return Array.isArray(positions) ? positions : [];
  },

  toggle(pair) {
    const now = this.patches();
    const left = now.filter((one) => !same(one, pair));
    const next = left.length === now.length ? [...now, pair] : left;
    this.look({ positions: next.length ? next : this.place().component === "projected" ? "image" : "last" });
  },

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
  },
};
