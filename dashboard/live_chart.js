// Draws a Plotly figure in the page's theme, and redraws it in place: zoom, hidden lines and hover survive new data.
// Text in the figure was escaped in charts.py.

function plotly() {
  window.calibrlPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly/plotly.min.js", document.baseURI);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error(`${script.src} did not load`));
    document.head.append(script);
  });
  return window.calibrlPlotly;
}

const finger = () => matchMedia("(pointer: coarse)").matches;

function themed(layout, host) {
  const css = getComputedStyle(host);
  const get = (name) => css.getPropertyValue(`--st-${name}`).trim();
  const [text, grid, panel] = [get("text-color"), get("border-color"), get("secondary-background-color")];
  const axis = (own) => ({ gridcolor: grid, linecolor: grid, zerolinecolor: text, zerolinewidth: 1, zeroline: false, ...own });
  const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  return {
    ...layout,
    ...Object.fromEntries(axes.map((key) => [key, axis(layout[key])])),
    autosize: true,
    dragmode: finger() ? false : "zoom", // a finger scrolls the page
    font: { color: text, family: get("font"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: panel, bordercolor: grid, font: { color: text }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: grid, activecolor: text },
  };
}

const config = (name) => ({
  displaylogo: false,
  displayModeBar: finger() ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  toImageButtonOptions: { format: "png", scale: 2, filename: name },
});

export default function ({ data, parentElement }) {
  const host = parentElement.querySelector(".live-chart");
  host.setAttribute("role", "figure");
  host.setAttribute("aria-label", data.alt);
  host.style.minHeight = `${data.figure.layout.height}px`;
  if (!host.newest) host.textContent = "Drawing…";
  host.newest = data; // what counts, should the library arrive after more data has
  plotly().then(
    (library) => {
      const { figure, name } = host.newest;
      if (!host.data) host.textContent = "";
      library.react(host, figure.data, themed(figure.layout, host), config(name));
      host.observer ??= new ResizeObserver(() => host.offsetWidth && library.Plots.resize(host));
      host.observer.observe(host);
    },
    (error) => (host.textContent = `This chart can't be drawn: ${error.message}. Reload the page to try again.`),
  );
}
