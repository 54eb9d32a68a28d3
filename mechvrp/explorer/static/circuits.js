// The circuit in the making, and its ablation curve.

const circuits = {
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
  },

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
  },
};
