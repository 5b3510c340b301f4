(() => {
  const MARKS = ["within", "excused", "beyond"];
  const count = (n) => n.toLocaleString("en");

  function table(parent, caption, head, rows) {
    const box = add(parent, "div", { class: "scroll" });
    const made = add(box, "table");
    add(made, "caption", {}, caption);
    const top = add(add(made, "thead"), "tr");
    head.forEach((text, i) => add(top, "th", i ? { scope: "col", class: "number" } : { scope: "col" }, text));
    const body = add(made, "tbody");
    for (const row of rows) {
      const line = add(body, "tr");
      row.forEach((text, i) => add(line, i ? "td" : "th", i ? { class: "number" } : { scope: "row" }, text));
    }
  }

  // ---- errors over inputs ----

  const ulp = (steps) => {
    if (!steps) return "0";
    const n = Math.abs(steps) - 1;
    return (steps < 0 ? "\u2212" : "+") + (n < 17 ? count(2 ** n) : `2^${n}`);
  };
  const between = (steps) => {
    if (steps === data.apart) return "not comparable";
    if (!steps) return "no error";
    const n = Math.abs(steps) - 1, sign = steps < 0 ? "\u2212" : "+";
    return n < 2 ? `${sign}${2 ** n} ULP` : `${sign}${count(2 ** (n - 1) + 1)} to ${sign}${count(2 ** n)} ULP`;
  };
  const short = (x) => Number(x.toPrecision(4)).toString().replace("-", "\u2212");

  function ticks(plot) {
    const found = [];
    if (plot.linear) {
      const rough = (plot.high - plot.low) / 8, base = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((k) => k * base).find((s) => s >= rough);
      for (let k = Math.ceil(plot.low / step); k * step <= plot.high; k++) found.push([k * step, short(k * step)]);
      return found;
    }
    const candidates = [0];
    for (let e = -1; e < 39; e++) candidates.push(10 ** e, -(10 ** e));
    for (const x of candidates) {
      const place = Math.asinh(x * 16), e = Math.log10(Math.abs(x));
      const label = Math.abs(x) > 999 ? `${x < 0 ? "\u2212" : ""}1e${Math.round(e)}` : short(x);
      if (place >= plot.low && place <= plot.high) found.push([place, label]);
    }
    return found;
  }

  function drawPlot(parent, picture, plot) {
    const left = 92, top = 12, width = 560, height = 300, special = 42;
    const cells = [];
    for (let i = 0; i < plot.cells.length; i += 5) cells.push(plot.cells.slice(i, i + 5));
    const rows = cells.map((c) => c[1]).filter((r) => r !== data.apart);
    const least = Math.min(-2, ...rows), most = Math.max(2, ...rows), steps = most - least + 1;
    const apart = cells.some((c) => c[1] === data.apart);
    const numbers = apart ? height - 34 : height, first = top + height - numbers;
    const y = (row) => (row === data.apart ? top + 12 : first + ((most - row + 0.5) * numbers) / steps);
    const strange = ["\u2212inf", "inf", "NaN"].filter((_, i) => cells.some((c) => c[0] === plot.columns + i));
    const wide = width - strange.length * special;
    const x = (column) => {
      if (column < plot.columns) return left + ((column + 0.5) * wide) / plot.columns;
      const name = ["\u2212inf", "inf", "NaN"][column - plot.columns];
      return left + wide + (strange.indexOf(name) + 0.5) * special;
    };
    const box = add(parent, "div", { class: "scroll" });
    const svg = add(box, "svg", { viewBox: "0 0 670 370", width: 670, height: 370, role: "img",
      "aria-label": `Signed error over ${plot.source}: ${count(cells.length)} points. The table of counts has the numbers.` });
    const axis = add(svg, "g", { class: "axis" });
    add(axis, "rect", { class: "frame", x: left, y: top, width: wide, height });
    strange.forEach((name, i) => {
      const at = left + wide + i * special;
      add(axis, "rect", { class: "frame", x: at, y: top, width: special, height });
      add(axis, "text", { x: at + special / 2, y: top + height + 16, "text-anchor": "middle" }, name);
    });
    const every = Math.ceil((steps * 15) / numbers);
    for (let row = least; row <= most; row++) {
      if (row % every) continue;
      add(axis, "line", { x1: left - 4, x2: left + wide, y1: y(row), y2: y(row), class: row ? "" : "zero" });
      add(axis, "text", { x: left - 8, y: y(row) + 4, "text-anchor": "end" }, ulp(row));
    }
    if (apart) {
      add(axis, "text", { x: left - 8, y: y(data.apart) - 2, "text-anchor": "end" }, "not");
      add(axis, "text", { x: left - 8, y: y(data.apart) + 10, "text-anchor": "end" }, "comparable");
      add(axis, "line", { x1: left, x2: left + width, y1: first - 5, y2: first - 5 });
    }
    const taken = [];
    for (const [place, label] of ticks(plot)) {
      const at = left + ((place - plot.low) / (plot.high - plot.low)) * wide;
      if (taken.some((other) => Math.abs(other - at) < 38)) continue;
      taken.push(at);
      add(axis, "line", { x1: at, x2: at, y1: top + height, y2: top + height + 4 });
      if (at < left + wide - 14 || !strange.length)
        add(axis, "text", { x: at, y: top + height + 16, "text-anchor": "middle" }, label);
    }
    const scale = plot.linear ? "" : " (logarithmic away from 0)";
    add(svg, "text", { x: left + wide / 2, y: top + height + 38, "text-anchor": "middle" }, `${plot.source}, as the node read it${scale}`);
    add(svg, "text", { transform: `translate(14 ${top + height / 2}) rotate(-90)`, "text-anchor": "middle" }, "got \u2212 want, ULP");
    for (const [column, row, within, excused, beyond] of cells) {
      const mark = beyond ? 2 : excused ? 1 : 0;
      const r = Math.min(5, 1.6 + 0.7 * Math.log10(within + excused + beyond)), a = x(column), b = y(row);
      const shape = [
        `M${a - r} ${b - r}h${2 * r}v${2 * r}h${-2 * r}z`,
        `M${a - r - 1} ${b}l${r + 1} ${r + 1}l${r + 1} ${-r - 1}l${-r - 1} ${-r - 1}z`,
        `M${a - r} ${b - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`,
      ][mark];
      const point = add(svg, "path", { class: `point ${MARKS[mark]}`, d: shape });
      add(point, "title", {}, `${between(row)}: ${count(within)} within, ${count(excused)} excused, ${count(beyond)} beyond`);
    }
  }

  function drawErrors(parent, picture) {
    add(parent, "p", { class: "legend" }, "One point for each range of inputs and of errors, larger for more elements: "
      + "\u25a0 all within the bounds, \u25c7 some excused, \u2715 some beyond. Errors are grouped by powers of two.");
    for (const plot of picture.plots) drawPlot(parent, picture, plot);
    if (!picture.plots.length) add(parent, "p", {}, "The node read nothing that could be plotted.");
  }

  // ---- heat maps ----

  function drawChannels(parent, picture) {
    const values = picture.channels, most = Math.max(1, ...values), width = Math.max(3, Math.min(24, 640 / values.length));
    const name = (i) => {
      const first = i * picture.each, last = Math.min(first + picture.each, picture.shape[3]) - 1;
      return first === last ? `channel ${first}` : `channels ${first} to ${last}`;
    };
    const svg = add(add(parent, "div", { class: "scroll" }), "svg", { width: 90 + width * values.length, height: 170, role: "img",
      "aria-label": `Elements ${picture.kind}, by channel. The table below has the largest numbers.` });
    const axis = add(svg, "g", { class: "axis" });
    for (const part of most > 1 ? [0, 0.5, 1] : [0, 1]) {
      const value = Math.round(part * most), b = 140 - (value / most) * 120;
      add(axis, "line", { x1: 66, x2: 70 + width * values.length, y1: b, y2: b });
      add(axis, "text", { x: 62, y: b + 4, "text-anchor": "end" }, count(value));
    }
    const every = Math.ceil(34 / width);
    values.forEach((value, i) => {
      const high = (120 * value) / most, at = 70 + i * width;
      const bar = add(svg, "rect", { class: "cell", x: at, y: 140 - high, width: Math.max(width - 2, 1), height: high });
      add(bar, "title", {}, `${name(i)}: ${count(value)}`);
      if (i % every === 0) add(axis, "text", { x: at + width / 2 - 1, y: 156, "text-anchor": "middle" }, i * picture.each);
    });
    const order = values.map((_, i) => i).filter((i) => values[i]).sort((a, b) => values[b] - values[a] || a - b).slice(0, 8);
    table(parent, `Channels with the most elements ${picture.kind}`, ["channel", "elements"], order.map((i) => [name(i), count(values[i])]));
  }

  function drawMap(parent, picture, map) {
    parent.textContent = "";
    const { rows, columns } = map, pairs = [];
    if (map.dense) map.cells.forEach((value, i) => value && pairs.push([i, value]));
    else for (let i = 0; i < map.cells.length; i += 2) pairs.push([map.cells[i], map.cells[i + 1]]);
    const size = Math.max(5, Math.min(24, Math.floor(448 / Math.max(rows, columns))));
    const most = Math.max(1, ...pairs.map((pair) => pair[1]));
    const [, height, width] = picture.shape;
    const range = (i, parts, whole) => {
      const each = Math.ceil(whole / parts), first = i * each, last = Math.min(first + each, whole) - 1;
      return first === last ? `${first}` : `${first} to ${last}`;
    };
    const where = (cell) => `y ${range(Math.floor(cell / columns), rows, height)}, x ${range(cell % columns, columns, width)}`;
    const svg = add(add(parent, "div", { class: "scroll" }), "svg", { width: Math.max(columns * size + 60, 200), height: rows * size + 44,
      role: "img", "aria-label": `Elements ${picture.kind}, by pixel, ${map.title}. The table below has the largest numbers.` });
    const axis = add(svg, "g", { class: "axis" });
    add(axis, "rect", { class: "frame", x: 48, y: 6, width: columns * size, height: rows * size });
    add(axis, "text", { x: 42, y: 16, "text-anchor": "end" }, "y 0");
    if (rows > 1) add(axis, "text", { x: 42, y: 6 + rows * size, "text-anchor": "end" }, height - 1);
    add(axis, "text", { x: 48, y: rows * size + 22 }, "x 0");
    if (columns > 3) add(axis, "text", { x: 48 + columns * size, y: rows * size + 22, "text-anchor": "end" }, width - 1);
    for (const [cell, value] of pairs) {
      const mark = add(svg, "rect", { class: "cell", x: 48 + (cell % columns) * size, y: 6 + Math.floor(cell / columns) * size,
        width: size, height: size, "fill-opacity": (0.2 + (0.8 * value) / most).toFixed(2) });
      add(mark, "title", {}, `${where(cell)}: ${count(value)}`);
    }
    add(parent, "p", { class: "legend" }, `The stronger, the more; most elements in a block: ${count(most)}.`);
    const order = pairs.slice().sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 8);
    table(parent, `Blocks of pixels with the most elements ${picture.kind}`, ["pixels", "elements"], order.map(([c, v]) => [where(c), count(v)]));
  }

  function drawMaps(parent, picture, id) {
    if (!picture.maps.length) {
      add(parent, "p", {}, "Every element is exact: there is nothing to show.");
      return;
    }
    const box = add(parent, "div", { class: picture.kind === data.worst ? "" : "mild" });
    add(box, "h5", {}, `Elements ${picture.kind}, by pixel`);
    const label = add(box, "label", {}, "Show ");
    const choice = add(label, "select", { id: `map-${id}` });
    picture.maps.forEach((map, i) => add(choice, "option", { value: i }, map.title));
    const target = add(box, "div");
    const show = () => drawMap(target, picture, picture.maps[Number(choice.value)]);
    choice.addEventListener("change", show);
    show();
    add(box, "h5", {}, `Elements ${picture.kind}, by channel`);
    drawChannels(box, picture);
  }

  // ---- tabs and images ----

  const DRAW = { errors: drawErrors, maps: drawMaps };

  function choose(article, tabs, panels, index, focus) {
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
      panels[i].classList.toggle("chosen", i === index);
    });
    const target = panels[index].querySelector("[data-draw]:empty");
    const id = article.id.slice("image-".length);
    if (target && !data.pictures[id]) add(target, "p", { class: "note" }, "Not on this page: nothing was collected, or there was no room.");
    else if (target) DRAW[target.dataset.draw](target, data.pictures[id], id);
    if (focus) tabs[index].focus();
  }

  for (const article of all("article")) {
    const panels = all(".panel", article);
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "What to show of this image");
    panels[0].before(list);
    const tabs = panels.map((panel, i) => {
      const heading = panel.querySelector("h4");
      panel.id = `${article.id}-panel-${i}`;
      panel.setAttribute("role", "tabpanel");
      const tab = add(list, "button", { type: "button", role: "tab", id: `${article.id}-tab-${i}`, "aria-controls": panel.id }, heading.textContent);
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", () => choose(article, tabs, panels, i, false));
      return tab;
    });
    list.addEventListener("keydown", (event) => {
      const now = tabs.indexOf(event.target), last = tabs.length - 1;
      const next = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now ? now - 1 : last, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose(article, tabs, panels, next, true);
    });
    choose(article, tabs, panels, 0, false);
  }

  function showImage(id, focus) {
    const chosen = document.getElementById(id);
    if (!chosen || chosen.tagName !== "ARTICLE") return;
    for (const article of all("article")) article.classList.toggle("chosen", article === chosen);
    for (const link of all('a[href^="#image-"]')) {
      const current = link.getAttribute("href") === `#${id}`;
      link.classList.toggle("current", current);
      if (current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    if (!focus) return;
    chosen.scrollIntoView();
    chosen.focus();
  }

  document.documentElement.classList.add("js");
  const first = document.querySelector("article");
  if (first) showImage(first.id, false);
  window.addEventListener("hashchange", () => showImage(location.hash.slice(1), true));
  for (const link of all('a[href^="#image-"]'))
    link.addEventListener("click", () => { if (location.hash === link.getAttribute("href")) showImage(location.hash.slice(1), true); });
  if (location.hash) showImage(location.hash.slice(1), true);
})();
