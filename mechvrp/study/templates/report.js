"use strict";
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  function restyle(element) {
    const colour = dark.matches ? "#e6e6e6" : "#1f2328";
    return window.Plotly.relayout(element, { "font.color": colour, "hoverlabel.font.color": null });
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
      color: dark.matches ? "#e6e6e6" : "#1f2328",
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
  dark.addEventListener("change", () => {
    figures.filter((element) => element.classList.contains("js-plotly-plot")).forEach(restyle);
  });
})();
