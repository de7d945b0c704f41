// Draws figures with plotly. A figure's data are what raylr.analysis.figures.interactive.describe returned. In a report
// they are packed into the page; without this script, or where anything in it fails, the page shows the figures' static
// form. A page that is served hands them over, and again when they have changed: `raylrFigures.set(figure, data)`.
const raylrFigures = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Map();
  const hasWebGL = (() => {
    try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
  })();

  const own = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const coloured = (value, colours) => {
    if (typeof value === "string" && value[0] === "$") {
      return /^\$\d+$/.test(value) ? colours[value.slice(1)][dark.matches ? 1 : 0] : own(value.slice(1));
    }
    if (Array.isArray(value)) return value.map((one) => coloured(one, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, colours)]));
    }
    return value;
  };

  const axis = (given) => ({
    gridcolor: own("grid"), linecolor: own("line"), zeroline: false, automargin: true, ...given,
  });
  const layoutOf = (panel, colours, hidden) => {
    const found = coloured(panel.layout, colours);
    const base = {
      height: panel.height, showlegend: false, hovermode: "closest", dragmode: touch ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 56, r: 14, t: 30, b: 44},
      font: {color: own("text"), size: 12, family: getComputedStyle(document.body).fontFamily},
      hoverlabel: {bgcolor: own("page"), bordercolor: own("dim"), align: "left", font: {color: own("text")}},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: own("dim"), activecolor: own("text")},
      annotations: found.annotations,
    };
    if (panel.space) {
      const scene = {...found.scene};
      for (const name of ["xaxis", "yaxis", "zaxis"]) scene[name] = axis(scene[name]);
      return {...base, dragmode: "orbit", margin: {l: 4, r: 4, t: 30, b: 4}, scene};
    }
    const shapes = found.shapes.filter((shape) => !hidden.has(shape.meta)).map(({meta, ...shape}) => shape);
    return {...base, shapes, xaxis: axis(found.xaxis), yaxis: axis(found.yaxis)};
  };
  const tracesOf = (panel, colours, hidden) =>
    panel.traces.map((trace) => ({...coloured(trace, colours), visible: !hidden.has(trace.meta)}));

  const BUTTONS = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const BUTTONS_3D = [["toImage", "orbitRotation", "zoom3d", "pan3d", "resetCameraDefault3d"]];
  const show = (figure) => {
    const state = drawn.get(figure);
    for (const [div, panel] of state.panels) {
      Plotly.react(div, tracesOf(panel, state.data.colours, state.hidden),
        {...layoutOf(panel, state.data.colours, state.hidden), width: div.clientWidth, uirevision: 1},
        {displaylogo: false, modeBarButtons: panel.space ? BUTTONS_3D : BUTTONS,
          toImageButtonOptions: {filename: figure.id, scale: 2}});
    }
    for (const [button, entry] of state.buttons) {
      button.setAttribute("aria-pressed", String(!state.hidden.has(entry.label)));
      button.style.setProperty("--own", coloured(entry.colour, state.data.colours));
    }
  };

  const SWATCHES = {
    solid: '<path d="M1 6H21" stroke-width="2.4"/>',
    dashed: '<path d="M1 6H21" stroke-width="2" stroke-dasharray="5 3"/>',
    dotted: '<path d="M1 6H21" stroke-width="2" stroke-dasharray="2 2"/>',
    area: '<path d="M3 1H19V11H3Z" fill="var(--own)" fill-opacity=".4" stroke="none"/>',
    cross: '<path d="M7 2L15 10M15 2L7 10" stroke-width="1.8"/>',
    hollow: '<circle cx="11" cy="6" r="4" stroke-width="1.8"/>',
    triangle: '<path d="M11 1L16 11H6Z" fill="var(--own)"/>',
    above: '<path d="M11 1L16 11H6Z" stroke-width="1.6"/>',
    star: '<path d="M11 0l1.8 4h4.2l-3.4 2.7 1.3 4.3L11 8.500 7.100 11l1.300-4.300L5 4h4.200z" fill="var(--own)" stroke="none"/>',
    square: '<path d="M7 2H15V10H7Z" fill="var(--own)"/>',
    diamond: '<path d="M11 1L16 6L11 11L6 6Z" fill="var(--own)"/>',
    circle: '<circle cx="11" cy="6" r="4" fill="var(--own)"/>',
  };
  const buttonOf = (entry, figure) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "click: hide or show; double click: show only this";
    button.innerHTML = `<svg viewBox="0 0 22 12" fill="none" stroke="var(--own)">${SWATCHES[entry.symbol] || SWATCHES.circle}</svg>`;
    button.append(document.createTextNode(entry.label));
    const all = () => drawn.get(figure).data.legend.map((one) => one.label);
    button.addEventListener("click", () => {
      const {hidden} = drawn.get(figure);
      if (!hidden.delete(entry.label)) hidden.add(entry.label);
      show(figure);
    });
    button.addEventListener("dblclick", () => {
      const state = drawn.get(figure);
      const others = all().filter((label) => label !== entry.label);
      state.hidden = new Set(others.every((label) => state.hidden.has(label)) ? [] : others);
      show(figure);
    });
    return button;
  };

  const label = (figure) => {
    const state = drawn.get(figure);
    state.buttons = state.data.legend.map((entry) => [buttonOf(entry, figure), entry]);
    state.legend.replaceChildren(...state.buttons.map(([button]) => button));
  };

  const fit = new ResizeObserver((entries) => {
    for (const {target} of entries) {
      const now = target._fullLayout && target._fullLayout.width;
      if (now && Math.abs(now - target.clientWidth) > 1) Plotly.relayout(target, {width: target.clientWidth});
    }
  });
  const build = (figure, data, hidden) => {
    const live = figure.querySelector(".live");
    if (data.panels.some((panel) => panel.space) && !hasWebGL) {
      live.textContent = "This figure is in three dimensions and needs WebGL, which this browser does not have.";
      return;
    }
    const grid = document.createElement("div");
    grid.className = `panels ${["", "narrow", "two"][data.panels.length] || ""}`;
    const panels = data.panels.map((panel) => {
      const box = document.createElement("div");
      box.className = "panel";
      const title = document.createElement("p");
      title.className = "panel-title";
      title.textContent = panel.title;
      const div = document.createElement("div");
      box.append(title, div);
      grid.append(box);
      return [div, panel];
    });
    const legend = document.createElement("div");
    legend.className = "legend";
    live.replaceChildren(grid, legend);
    drawn.set(figure, {data, panels, legend, buttons: [], hidden});
    label(figure);
    figure.classList.add("drawn");  // before plotly measures the width
    try {
      show(figure);
      panels.forEach(([div]) => fit.observe(div));
    } catch (error) {
      figure.classList.remove("drawn");
      drawn.delete(figure);
      console.error(`figure ${figure.id}:`, error);
    }
  };

  const sources = new WeakMap();  // figure -> function that returns its data, or a promise of them
  const watch = new IntersectionObserver(async (entries) => {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      build(target, await sources.get(target)(), new Set());
    }
  }, {rootMargin: "800px"});
  const draw = (figure, source) => {
    sources.set(figure, source);
    watch.observe(figure);
  };

  // The view and the hidden runs of a figure stay when its data change.
  const set = (figure, data) => {
    const state = drawn.get(figure);
    if (!state) return draw(figure, () => data);
    const shape = (one) => JSON.stringify(one.panels.map((panel) => Boolean(panel.space)));
    if (shape(state.data) !== shape(data)) {
      remove(figure);
      return build(figure, data, state.hidden);
    }
    state.data = data;
    state.panels.forEach((entry, i) => {
      entry[1] = data.panels[i];
      entry[0].previousSibling.textContent = data.panels[i].title;
    });
    label(figure);
    show(figure);
  };
  const remove = (figure) => {
    watch.unobserve(figure);
    for (const [div] of drawn.get(figure)?.panels || []) {
      fit.unobserve(div);
      Plotly.purge(div);
    }
    drawn.delete(figure);
  };
  dark.addEventListener("change", () => [...drawn.keys()].forEach(show));
  return {draw, set, remove};
})();

(async () => {
  const figures = [...document.querySelectorAll("figure[id]")];
  const holder = document.getElementById("library");
  if (!figures.length || !holder || !("DecompressionStream" in window)) return;
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const script = document.createElement("script");
  script.textContent = await unpack(holder.textContent);
  document.head.append(script);
  if (!window.Plotly) return;
  for (const figure of figures) {
    raylrFigures.draw(figure, async () => JSON.parse(await unpack(figure.querySelector("script.data").textContent)));
  }
})();
