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

const config = {
  displaylogo: false,
  displayModeBar: finger() ? false : "hover",
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
};

const unescaped = (text) => new DOMParser().parseFromString(text, "text/html").documentElement.textContent;

// Text that a spreadsheet would take for a formula gets an apostrophe, as in the service's own tables.
function cell(value) {
  if (typeof value !== "string") return value ?? "";
  const text = unescaped(value).replace(/^(?=[=+\-@\t\r\n])/, "'");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// What a trace tells of its points beside x and y, by column.
const extras = {
  low: ({ x, error_x }) => error_x && x.map((value, index) => value - error_x.arrayminus[index]),
  high: ({ x, error_x }) => error_x && x.map((value, index) => value + error_x.array[index]),
  "mean reward": ({ marker }) => Array.isArray(marker?.color) && marker.color,
  point: ({ text }) => text,
};

// What is drawn, as a table: a row a point; of a heat map a row a cell, at its lower left corner. Where ticks have
// names, a point has the name of its row.
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
        const y = named ? named[Math.round(trace.y[index])] : trace.y[index];
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

// The chart as a picture of its own: under its title, on the theme's background.
async function picture(host) {
  const { name, title, figure } = host.newest;
  const library = await plotly();
  const layout = themed(figure.layout, host);
  const background = getComputedStyle(host).getPropertyValue("--st-background-color").trim();
  layout.paper_bgcolor = layout.plot_bgcolor = background;
  layout.title = { text: title.replaceAll("&", "&amp;").replaceAll("<", "&lt;"), x: 0.02, font: { size: 15 } };
  layout.margin = { ...layout.margin, t: layout.margin.t + 70 };
  const size = { width: host.offsetWidth, height: host.offsetHeight + 70 };
  await library.downloadImage({ data: figure.data, layout }, { format: "png", scale: 2, filename: name, ...size });
}

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

// Below the chart rather than in Plotly's bar, which no key and no finger reaches.
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

export default function ({ data: told, parentElement, setTriggerValue }) {
  const data = { ...told, figure: JSON.parse(told.figure) };
  const host = parentElement.querySelector(".live-chart");
  host.setAttribute("role", "figure");
  host.setAttribute("aria-label", data.alt);
  host.style.minHeight = `${data.figure.layout.height}px`;
  if (!host.newest) host.textContent = "Drawing…";
  host.newest = data; // what counts, should the library arrive after more data has
  host.bar ??= saving(host);
  plotly().then(
    (library) => {
      const { figure } = host.newest;
      if (!host.isConnected) return;
      if (!host.data) host.textContent = "";
      library.react(host, figure.data, themed(figure.layout, host), config);
      host.observer ??= new ResizeObserver(() => host.offsetWidth && library.Plots.resize(host));
      host.observer.observe(host);
      if (host.picks) return;
      host.picks = true;
      host.on("plotly_click", ({ points: [point] }) => {
        if (point.customdata !== undefined) setTriggerValue("picked", point.customdata);
      });
    },
    (error) => (host.textContent = `This chart can't be drawn: ${error.message}. Reload the page to try again.`),
  );
  return () => {
    if (host.isConnected) return; // called for a draw that another one overtook, too
    host.observer?.disconnect();
    window.Plotly?.purge(host);
  };
}
