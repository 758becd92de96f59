// Draws a Plotly figure in the page's theme, and redraws it in place: zoom, hidden lines and hover survive new data.
// figures.py has escaped all text in the figure.

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

// Returns a copy: Plotly writes the ranges of a zoom into the axes that it gets.
function themed(given, host) {
  const layout = structuredClone(given);
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

// Names the permitted buttons: a new version of Plotly adds none, such as one that uploads the chart to its maker.
const config = {
  displaylogo: false,
  displayModeBar: finger() ? false : "hover",
  modeBarButtons: [["zoom2d", "pan2d", "autoScale2d", "resetScale2d"]],
  plotlyServerURL: "",
};

const unescaped = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;

// Text that a spreadsheet would read as a formula gets an apostrophe, as in the tables of the service.
function cell(value) {
  if (typeof value !== "string") return value ?? "";
  const text = unescaped(value).replace(/^(?=[=+\-@\t\r\n])/, "'");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Further columns of a trace's points beside x and y.
const extras = {
  low: ({ x, error_x }) => error_x && x.map((value, index) => value - error_x.arrayminus[index]),
  high: ({ x, error_x }) => error_x && x.map((value, index) => value + error_x.array[index]),
  "mean reward": ({ marker }) => Array.isArray(marker?.color) && marker.color,
  point: ({ text }) => text,
};

// The figure as a table: one row per point; for a heat map one row per cell, at its lower left corner. If ticks have
// names, a point has the name of its row. A mark at the edge of the chart has no value, but a text.
export function table({ data, layout }) {
  const title = (axis, other) => layout[axis]?.title?.text || other;
  const named = layout.yaxis?.ticktext;
  const more = Object.entries(extras).filter(([, of]) => data.some((trace) => of(trace)));
  const columns = ["series", title("xaxis", "x"), named ? "metric" : title("yaxis", "y")];
  const rows = [[...columns, ...(data[0].z ? ["share"] : []), ...more.map(([column]) => column)]];
  for (const trace of data) {
    if (trace.z) trace.z.forEach((row, y) => row.forEach((z, x) => rows.push(["", trace.x[x], trace.y[y], z])));
    else {
      const beside = more.map(([, of]) => of(trace) || []);
      trace.x.forEach((x, index) => {
        const y = trace.yaxis === "y2" ? "" : named ? named[Math.round(trace.y[index])] : trace.y[index];
        rows.push([trace.name ?? "", x, y, ...beside.map((values) => values[index])]);
      });
    }
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n");
}

function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = `${name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The chart as a picture: what the screen shows, with its zoom and without hidden lines, below the title of the card and
// on the background of the theme.
async function picture(host) {
  const { name, title } = host.newest;
  const library = await plotly();
  const layout = structuredClone(host.layout);
  const background = getComputedStyle(host).getPropertyValue("--st-background-color").trim();
  layout.paper_bgcolor = layout.plot_bgcolor = background;
  layout.title = { text: title.replaceAll("&", "&amp;").replaceAll("<", "&lt;"), x: 0.02, font: { size: 15 } };
  layout.margin = { ...layout.margin, t: layout.margin.t + 70 };
  const size = { width: host.offsetWidth, height: host.offsetHeight + 70 };
  await library.downloadImage({ data: structuredClone(host.data), layout, config }, { format: "png", scale: 2, filename: name, ...size });
}

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

// Below the chart, because keyboards and touch screens cannot reach Plotly's bar.
function saving(host) {
  const bar = document.createElement("div");
  bar.className = "live-chart-save";
  const { name, title } = host.newest;
  bar.append(
    button("CSV", `Save the data of ${title} as CSV`, () => save(name, table(host.newest.figure))),
    button("PNG", `Save ${title} as PNG`, () => picture(host)),
  );
  host.after(bar);
  return bar;
}

export default function ({ data: input, parentElement, setTriggerValue }) {
  const data = { ...input, figure: JSON.parse(input.figure) };
  const host = parentElement.querySelector(".live-chart");
  host.setAttribute("role", "figure");
  host.setAttribute("aria-label", data.alt);
  host.style.minHeight = `${data.figure.layout.height}px`;
  if (!host.newest) host.textContent = "Drawing…";
  host.newest = data; // to draw if the library arrives after newer data
  host.bar ??= saving(host);
  plotly().then(
    (library) => {
      const { figure } = host.newest;
      if (!host.isConnected) return;
      if (!host.data) host.textContent = "";
      library.react(host, figure.data, themed(figure.layout, host), config);
      // Zoom needs a mouse: a keyboard stops only at the buttons below the chart.
      for (const stop of host.querySelectorAll("[tabindex], .modebar-btn")) stop.tabIndex = -1;
      host.observer ??= new ResizeObserver(() => host.offsetWidth && library.Plots.resize(host));
      host.observer.observe(host);
      if (host.picks) return;
      host.picks = true;
      host.on("plotly_click", ({ points: [point] }) => {
        if (point.customdata !== undefined) setTriggerValue("picked", point.customdata);
      });
    },
    (error) => (host.textContent = `Chart not available: ${error.message}. Reload the page to try again.`),
  );
  return () => {
    if (host.isConnected) return; // also called for a draw that a newer one replaced
    host.observer?.disconnect();
    window.Plotly?.purge(host);
  };
}
