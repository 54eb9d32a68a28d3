"use strict";
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const INK = "#1f2328", LIGHT = "#e6e6e6", PAPER = 680;  // pixels: an A4 page between its margins
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
    figure.layout.font = Object.assign({}, figure.layout.font, {
      color: ink(),
    });
    window.Plotly.newPlot(element, figure.data, figure.layout, options);
  }
  const figures = Array.from(document.querySelectorAll("[data-figure]"));
  // A figure inside closed details has no width yet: it is drawn when the details open.
  figures.filter((element) => !element.closest("details:not([open])")).forEach(draw);
  document.querySelectorAll("details").forEach((details) => {
    details.addEventListener("toggle", () => {
      details.querySelectorAll("[data-figure]:not(.js-plotly-plot)").forEach(draw);
    });
  });
  const here = () => figures.filter((element) => element.classList.contains("js-plotly-plot"));
  dark.addEventListener("change", () => here().forEach((element) => restyle(element, ink())));
  // Paper is white and narrow, whatever the screen is.
  window.addEventListener("beforeprint", () => here().forEach((element) => restyle(element, INK, PAPER)));
  window.addEventListener("afterprint", () => here().forEach((element) => restyle(element, ink(), null)));
})();
