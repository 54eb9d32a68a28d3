"use strict";
// The example browser. Everything from data is written as text or as a number; nothing is made into markup.
(function () {
  const source = document.getElementById("examples-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const PAGE = 20;
  const at = (name) => document.getElementById("ex-" + name);
  const form = at("form"), rows = at("rows"), dialog = at("dialog");
  const state = { model: 0, found: [], page: 0, open: null };

  function make(tag, text, attributes) {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    return element;
  }
  // Text of data within a line: its own direction (of Arabic, or set by a sign) must not turn the rest.
  const said = (text) => make("bdi", text);
  const model = () => data.models[state.model];
  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1) + "\u00a0%");
  const short = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−"));
  const side = (i) => (data.heldout[i] ? "held out" : "training");
  const verdict = (of, i) => (of.correct[i] ? "right" : "wrong");
  const kind = (of, i) => of[at("measure").value][i];

  // -- the list
  function wanted(i) {
    const of = model();
    const given = { task: at("task").value, split: at("split").value, right: at("right").value };
    if (given.task !== "" && data.task[i] !== Number(given.task)) return false;
    if (given.split !== "" && data.heldout[i] !== Number(given.split)) return false;
    if (given.right !== "" && of.correct[i] !== Number(given.right)) return false;
    const low = at("low").value, high = at("high").value, value = kind(of, i);
    if (low !== "" && !(value !== null && 100 * value >= Number(low))) return false;
    if (high !== "" && !(value !== null && 100 * value <= Number(high))) return false;
    const words = at("words").value.trim().toLowerCase();
    const text = [data.question[i], data.answer[i], of.prediction[i], data.image_id[i], "#" + data.example[i]];
    return text.join("\n").toLowerCase().includes(words);
  }

  function filter() {
    const all = data.example.map((_, i) => i);
    state.found = all.filter(wanted);
    const order = at("order").value, of = model();
    if (order) {
      const sign = order === "up" ? 1 : -1;
      const known = state.found.filter((i) => kind(of, i) !== null);
      known.sort((a, b) => sign * (kind(of, a) - kind(of, b)) || a - b);
      state.found = known.concat(state.found.filter((i) => kind(of, i) === null));
    }
    state.page = 0;
    const right = state.found.filter((i) => of.correct[i]).length;
    const count = state.found.length + " of " + all.length + " examples";
    at("status").textContent = state.found.length
      ? count + ": " + right + " right, " + (state.found.length - right) + " wrong."
      : count + ". Clear the filter to see them all.";
    list();
  }

  function picture(i, alt) {
    const url = data.picture[i] < 0 ? null : data.pictures[data.picture[i]];
    if (url === null) return make("span", "no picture", { class: "none" });
    const image = make("img", null, { src: url, alt: alt });
    // A PNG has the image's own pixels; they are enlarged as they are.
    if (url.startsWith("data:image/png")) image.className = "pixels";
    return image;
  }

  function list() {
    const of = model(), pages = Math.max(1, Math.ceil(state.found.length / PAGE));
    rows.replaceChildren(
      ...state.found.slice(state.page * PAGE, (state.page + 1) * PAGE).map((i) => {
        const row = make("tr");
        const cell = make("th", null, { scope: "row" });
        const open = make("button", data.question[i], { type: "button", "data-example": i });
        open.addEventListener("click", () => show(i));
        cell.append(open);
        const pic = make("td", null, { class: "pic" });
        pic.append(picture(i, ""));
        const answer = make("td");
        answer.append(said(of.prediction[i]), " ", make("span", verdict(of, i), { class: "mark " + verdict(of, i) }));
        row.append(
          pic, cell, answer,
          make("td", data.answer[i], { class: "more" }),
          make("td", percent(kind(of, i)), { class: "n" }),
          make("td", data.tasks[data.task[i]], { class: "more" }),
          make("td", side(i), { class: "more" }),
        );
        return row;
      }),
    );
    at("page").textContent = "page " + (state.page + 1) + " of " + pages;
    at("back").disabled = state.page === 0;
    at("on").disabled = state.page >= pages - 1;
  }

  function turn(step) {
    state.page += step;
    list();
    at("table").scrollIntoView({ block: "nearest" });
  }

  // -- one example
  function show(i) {
    state.open = i;
    const of = model(), place = state.found.indexOf(i);
    at("question").textContent = data.question[i];
    at("where").textContent = place < 0 ? "" : place + 1 + " of " + state.found.length;
    at("previous").disabled = place <= 0;
    at("next").disabled = place < 0 || place >= state.found.length - 1;
    facts(of, i);
    overlay(of, i);
    margins(of, i);
    signals(of, i);
    others(i);
    if (!dialog.open) {
      dialog.showModal();
      at("close").focus();
    }
    dialog.scrollTop = 0;
  }

  function step(by) {
    const next = state.found[state.found.indexOf(state.open) + by];
    if (next !== undefined) show(next);
    // A button that has just been disabled has lost the focus, and with it the keys.
    if (!dialog.contains(document.activeElement)) at("close").focus();
  }

  function facts(of, i) {
    const told = [
      ["model", of.name],
      ["its answer", said(of.prediction[i]), " (" + verdict(of, i) + ")"],
      ["right answer", data.answer[i]],
      ["answer's probability", percent(of.probability[i])],
      ["probe", of.probe[i] === null ? "none: " + (data.heldout[i] ? "there is no probe" : "training image")
        : percent(of.probe[i]) + " that the answer is right"],
    ];
    if (of.votes && of.votes[i].length) {
      const each = of.votes[i].flatMap(([text, n], k) => [(k ? ", " : "") + n + " × ", said(text)]);
      told.push(["sampled answers", ...each]);
    }
    told.push(
      ["task", data.tasks[data.task[i]]],
      ["image", said(data.image_id[i]), " (" + side(i) + ")"],
      ["example", "#" + data.example[i]],
    );
    at("facts").replaceChildren(...told.flatMap(([name, ...parts]) => {
      const value = make("dd");
      value.append(...parts);
      return [make("dt", name), value];
    }));
  }

  function others(i) {
    const more = data.models.map((of, m) => [of, m]).filter(([, m]) => m !== state.model);
    at("others").replaceChildren(...(more.length ? [make("span", "Asked the same: ")] : []));
    for (const [of, m] of more) {
      const button = make("button", null, { type: "button", class: "other" });
      button.append(said(of.name), " says ", said(of.prediction[i]), " (" + verdict(of, i) + ")");
      button.addEventListener("click", () => {
        at("model").value = m;
        state.model = m;
        filter();
        show(i);
        at("close").focus();
      });
      at("others").append(button, " ");
    }
  }

  function overlay(of, i) {
    const holder = at("picture"), shown = picture(i, "Image asked about: " + data.question[i]);
    holder.replaceChildren(shown);
    at("overlay").parentElement.hidden = !of.maps;
    if (!of.maps) {
      at("map").textContent = "This run keeps no attention map.";
      return;
    }
    const [height, peak, code] = of.maps[i];
    const levels = Uint8Array.from(atob(code), (sign) => sign.charCodeAt(0));
    const width = levels.length / height, best = levels.indexOf(255);
    const words = "Attention map, " + height + " rows and " + width + " columns: most, " + percent(peak) + ", at row " +
      (Math.floor(best / width) + 1) + ", column " + ((best % width) + 1) + ".";
    const canvas = make("canvas", null, { width: width, height: height, role: "img", "aria-label": words });
    const pixels = new ImageData(width, height);
    levels.forEach((level, k) => pixels.data.set([213, 94, 0, 0.85 * level], 4 * k));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    canvas.hidden = !at("overlay").checked;
    holder.append(canvas);
    const place = () => {
      const w = shown.naturalWidth, h = shown.naturalHeight, square = Math.min(w, h);
      if (!w || w === h) return;
      if (of.crops === null) {
        at("map").append(" The run does not say whether the model is shown all of the image; the map is drawn over all of it.");
      }
      if (!of.crops) return;
      at("map").append(" The model is shown the central square only.");
      canvas.style.width = (100 * square) / w + "%";
      canvas.style.height = (100 * square) / h + "%";
      canvas.style.left = (50 * (w - square)) / w + "%";
      canvas.style.top = (50 * (h - square)) / h + "%";
    };
    at("map").textContent = words + " Mean over layers and heads of the last prompt token's attention to the image, as " +
      "shares of it; opacity is a patch's share over the largest.";
    if (shown.complete) place();
    else shown.addEventListener("load", place);
  }

  function signals(of, i) {
    const table = make("table"), body = make("tbody"), head = make("tr");
    for (const [name, n] of [["signal", ""], ["value", "n"], ["higher than", "n"]]) {
      head.append(make("th", name, n ? { scope: "col", class: n } : { scope: "col" }));
    }
    data.signals.forEach((signal, k) => {
      const value = of.signals[k][i], row = make("tr");
      const known = of.signals[k].filter((other) => other !== null);
      const below = known.filter((other) => other < value).length / known.length;
      const name = signal.name.replaceAll("_", " ");
      row.append(
        make("th", signal.label ? "(" + name + ")" : name, { scope: "row", title: signal.what }),
        make("td", short(value), { class: "n" }),
        make("td", value === null ? "–" : Math.round(100 * below) + "\u00a0%", { class: "n" }),
      );
      body.append(row);
    });
    const top = make("thead");
    top.append(head);
    table.append(
      make("caption", "“Higher than”: share of the examples here with a smaller value. In brackets: it uses the right answer."),
      top, body,
    );
    at("signals").replaceChildren(data.signals.length ? table : make("p", "This run keeps no signals.", { class: "note" }));
  }

  const drawn = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  function margins(of, i) {
    const lines = [
      ["own", "its own answer's first token minus the runner-up (blue, solid)", of.own && of.own[i]],
      ["truth", "the right answer's first token minus a foil (orange, dashed; uses the right answer)", of.truth && of.truth[i]],
    ].filter(([, , values]) => values);
    if (!lines.length) {
      at("margins").replaceChildren(make("p", "This run keeps no margins of this example.", { class: "note" }));
      return;
    }
    const W = 460, H = 200, L = 46, R = 12, T = 10, B = 34;
    const all = lines.flatMap(([, , values]) => values), depth = lines[0][2].length;
    const low = Math.min(0, ...all), high = Math.max(0, ...all), span = high - low || 1;
    const x = (k) => L + ((W - L - R) * k) / (depth - 1), y = (v) => T + ((H - T - B) * (high - v)) / span;
    const label = lines.map(([, words, values]) => words + ": " + short(values[0]) + " before the first block, " +
      short(values[depth - 1]) + " behind the last").join("; ");
    const svg = drawn("svg", { viewBox: "0 0 " + W + " " + H, role: "img", "aria-label": "Logit-lens margins. " + label });
    for (const value of new Set([low, 0, high])) {
      svg.append(drawn("line", { x1: L, x2: W - R, y1: y(value), y2: y(value), class: value === 0 ? "zero" : "grid" }));
      const close = value !== 0 && Math.abs(y(value) - y(0)) < 14;
      if (!close) svg.append(drawn("text", { x: L - 6, y: y(value) + 4, "text-anchor": "end" }, short(Number(value.toPrecision(2)))));
    }
    const every = Math.ceil((depth - 1) / 12);
    for (let k = 0; k < depth; k += k ? every : 1) {
      svg.append(drawn("text", { x: x(k), y: H - B + 16, "text-anchor": "middle" }, k ? String(k - 1) : "in"));
    }
    svg.append(drawn("text", { x: (L + W - R) / 2, y: H - 3, "text-anchor": "middle" }, "behind block"));
    for (const [name, , values] of lines) {
      svg.append(drawn("polyline", { points: values.map((v, k) => x(k) + "," + y(v)).join(" "), class: name }));
      values.forEach((v, k) => svg.append(drawn("circle", { cx: x(k), cy: y(v), r: 3, class: name })));
    }
    const note = make("p", "Logit lens, in logits, before the first block (“in”) and behind each: " +
      lines.map(([, words]) => words).join("; ") + ".", { class: "note" });
    const numbers = make("details"), table = make("table"), head = make("tr"), body = make("tbody"), top = make("thead");
    head.append(make("th", "behind block", { scope: "col" }),
      ...lines.map(([name]) => make("th", name === "own" ? "own" : "(right answer)", { scope: "col", class: "n" })));
    for (let k = 0; k < depth; k += 1) {
      const row = make("tr");
      row.append(make("th", k ? k - 1 : "in", { scope: "row" }),
        ...lines.map(([, , values]) => make("td", short(values[k]), { class: "n" })));
      body.append(row);
    }
    top.append(head);
    table.append(top, body);
    numbers.append(make("summary", "The numbers"), table);
    at("margins").replaceChildren(svg, note, numbers);
  }

  // -- what is pressed
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    if (at("model")) state.model = Number(at("model").value);
    filter();
  });
  form.addEventListener("reset", () => {
    const kept = at("model") && at("model").value;
    setTimeout(() => {
      if (kept) at("model").value = kept;
      filter();
    });
  });
  at("back").addEventListener("click", () => turn(-1));
  at("on").addEventListener("click", () => turn(1));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => dialog.close());
  at("overlay").addEventListener("change", () => {
    const canvas = at("picture").querySelector("canvas");
    if (canvas) canvas.hidden = !at("overlay").checked;
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();  // beside it
  });
  dialog.addEventListener("close", () => {
    const place = state.found.indexOf(state.open);
    if (place < 0) return;
    state.page = Math.floor(place / PAGE);
    list();
    const button = rows.querySelector('[data-example="' + state.open + '"]');
    if (button) button.focus();
  });
  filter();
})();
