"use strict";
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const INK = "#1f2328", LIGHT = "#e6e6e6";
  const PAPER = 680, NARROW = 480;  // pixels: an A4 page between its margins; a telephone
  const ink = () => (dark.matches ? LIGHT : INK);
  function restyle(element, colour, width) {
    const given = { "font.color": colour, "hoverlabel.font.color": null };
    if (width !== undefined) Object.assign(given, { width: width, autosize: width === null });
    return window.Plotly.relayout(element, given);
  }
  const options = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  function draw(element) {
    const source = document.getElementById(element.dataset.figure);
    const figure = JSON.parse(source.textContent);
    figure.layout.font = Object.assign({}, figure.layout.font, { color: ink() });
    if (element.clientWidth < NARROW) {
      // The words below an axis stand in its middle, and would go past the edge.
      for (const axis of ["xaxis", "yaxis"]) figure.layout.template.layout[axis].title.font.size = 11;
    }
    window.Plotly.newPlot(element, figure.data, figure.layout, options);
  }
  const waiting = () => Array.from(document.querySelectorAll("[data-figure]:not(.js-plotly-plot)"))
    // A figure inside closed details has no width yet: it is drawn when the details open.
    .filter((element) => !element.closest("details:not([open])"));
  // One figure after the other, so that a page of many can be read and used at once.
  function next() {
    const [first] = waiting();
    if (!first) return;
    draw(first);
    setTimeout(next);
  }
  const figures = Array.from(document.querySelectorAll("[data-figure]"));
  figures.forEach((element) => {  // what follows must not move when it is drawn
    const layout = JSON.parse(document.getElementById(element.dataset.figure).textContent).layout;
    if (layout.height) element.style.minHeight = layout.height + "px";
  });
  setTimeout(next);
  document.querySelectorAll("details").forEach((details) => {
    details.addEventListener("toggle", () => {
      if (details.open) setTimeout(next);
    });
  });
  const here = () => figures.filter((element) => element.classList.contains("js-plotly-plot"));
  dark.addEventListener("change", () => here().forEach((element) => restyle(element, ink())));
  // Paper is white and narrow, whatever the screen is.
  window.addEventListener("beforeprint", () => {
    waiting().forEach(draw);
    here().forEach((element) => restyle(element, INK, PAPER));
  });
  window.addEventListener("afterprint", () => here().forEach((element) => restyle(element, ink(), null)));
})();
