// Draws every chart of the page, anew when the page becomes narrow or wide, and highlights what a legend names.
(function () {
  "use strict";
  var page = JSON.parse(document.getElementById("charts").textContent);
  var views = {};

  // A narrow page has no room for names beside the lines, nor for numbers in cells: the legend and tooltips have them.
  function fitted(chart, width) {
    var spec = JSON.parse(JSON.stringify(chart));
    if (width < 560) {
      spec.layer = spec.layer.filter(function (layer) { return !/^labels-/.test(layer.name || ""); });
    }
    spec.padding = { left: 4, top: 8, bottom: 4, right: 12 };
    return spec;
  }

  function draw(element) {
    var name = element.dataset.chart;
    var spec = fitted(page.charts[name], element.clientWidth);
    return window.vegaEmbed(element, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, config: page.config, tooltip: { theme: "light" }
    }).then(function (result) {
      if (views[name]) { views[name].finalize(); }
      views[name] = result;
      element.dataset.drawn = "true";
      highlight(scope(element));
    }).catch(function (error) {
      // What cannot be drawn live is still there as a picture.
      element.hidden = true;
      element.nextElementSibling.style.display = "block";
      console.error("chart " + name + ": " + error);
    });
  }

  // A legend speaks for its own figure, or for all of its section that have none.
  function scope(element) {
    var figure = element.closest("figure");
    return figure && figure.querySelector(".legend") ? figure : element.closest("section");
  }

  function highlight(where) {
    var chosen = where.querySelector(':scope > .legend button[aria-pressed="true"]');
    where.querySelectorAll(".chart").forEach(function (element) {
      var result = views[element.dataset.chart];
      if (result && scope(element) === where) { result.view.signal("focus", chosen ? chosen.dataset.series : "").runAsync(); }
    });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest(".legend button");
    if (!button) { return; }
    var pressed = button.getAttribute("aria-pressed") === "true";
    button.parentElement.querySelectorAll("button").forEach(function (other) {
      other.setAttribute("aria-pressed", String(other === button && !pressed));
    });
    highlight(scope(button));
  });

  var elements = Array.prototype.slice.call(document.querySelectorAll(".chart"));
  Promise.all(elements.map(draw)).then(function () { document.documentElement.dataset.ready = "true"; });
  var width = window.innerWidth, timer;
  window.addEventListener("resize", function () {
    if (window.innerWidth === width) { return; }
    width = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(function () { elements.forEach(draw); }, 150);
  });
})();
