  // ---- the curve ----

  const BOTTOM = 34, TOP = 10, RIGHT = 22;

  function ticks(low, high) {
    const rough = (high - low) / 6, base = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((k) => k * base).find((s) => s >= rough), found = [];
    for (let k = Math.ceil(low / size); k * size <= high; k++) found.push([k * size + 0, digits(k * size + 0, 6)]);
    return found;
  }

  // A function with a point on it and its tangent; returns what turns a place on the screen into a number.
  function plot(parent, { f, x0, slope, every, name, label: axisName, text, reach: fixed, ring }) {
    // As wide as there is room, so that its texts keep their size.
    const WIDTH = Math.min(Math.max(parent.clientWidth, 280), 640), HEIGHT = Math.round(WIDTH * 0.58);
    const y0 = f(x0);
    // What is read and kinks nearby; others only if they are in sight then.
    const reach = fixed || Math.max(4, Math.abs(x0) * 1.5, ...every.map(Math.abs).filter((k) => k <= 8).map((k) => k + 1));
    const kinks = every.filter((k) => Math.abs(k) < reach);
    const points = [];
    for (let i = 0; i <= 400; i++) points.push(-reach + (i * reach) / 200);
    points.push(x0, ...kinks);
    points.sort((a, b) => a - b);
    const curve = points.map((x) => [x, f(x)]), finite = curve.map((c) => c[1]).filter(Number.isFinite).sort((a, b) => a - b);
    const part = (share) => finite[Math.round((finite.length - 1) * share)];
    let [low, high] = finite.length ? [part(0), part(1)] : [-1, 1];
    // Beside a pole nothing else could be seen.
    if (high - low > 8 * (part(0.96) - part(0.04))) [low, high] = [part(0.04), part(0.96)];
    if (Math.abs(y0) < 1e30) [low, high] = [Math.min(low, y0), Math.max(high, y0)];
    // Never so little that the ticks would be neighbours of one number, and all have its text.
    const pad = Math.max((high - low) * 0.08, Math.abs(high) * 1e-4, Math.abs(low) * 1e-4) || 1;
    [low, high] = [low - pad, high + pad];
    const marks = ticks(low, high), LEFT = Math.max(58, 14 + 6.5 * Math.max(...marks.map(([, text]) => text.length)));
    const px = (x) => LEFT + ((x + reach) / (2 * reach)) * (WIDTH - LEFT - RIGHT);
    const py = (y) => TOP + ((high - y) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const near = (y) => Math.min(Math.max(py(y), -2000), 2000).toFixed(2);

    const label = `Curve of ${name} from ${digits(-reach, 3)} to ${digits(reach, 3)}: ${text}`
      + (kinks.length ? `; kinks at ${kinks.map((k) => digits(k, 4)).join(", ")}` : "");
    const svg = add(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "curve" });
    const clip = `${parent.id}-area`;
    add(add(svg, "clipPath", { id: clip }), "rect", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM });
    const axis = add(svg, "g", { class: "axis" });
    add(axis, "rect", { class: "frame", x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM });
    for (const [x, text] of ticks(-reach, reach)) {
      add(axis, "line", { x1: px(x), x2: px(x), y1: TOP, y2: HEIGHT - BOTTOM, class: x ? "" : "zero" });
      add(axis, "text", { x: px(x), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text);
    }
    for (const [y, text] of marks) {
      add(axis, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(y), y2: py(y), class: y ? "" : "zero" });
      add(axis, "text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, text);
    }
    add(svg, "text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle", class: "small" }, axisName);
    const inside = add(svg, "g", { "clip-path": `url(#${clip})` });
    for (const k of kinks) {
      const mark = add(inside, "line", { class: "kink", x1: px(k), x2: px(k), y1: TOP, y2: HEIGHT - BOTTOM });
      add(mark, "title", {}, `a kink at ${digits(k, 6)}`);
    }
    let path = "", pen = false, before = NaN;
    for (const [x, y] of curve) {
      // From one end of the plot to the other at once: that is a pole, not the curve. A point alone becomes a dot.
      if ((before > high && y < low) || (before < low && y > high)) pen = false;
      if (Number.isFinite(y)) path += `${pen ? "L" : "M"}${px(x).toFixed(2)} ${near(y)}${pen ? "" : "h0"}`;
      pen = Number.isFinite(y);
      before = y;
    }
    add(inside, "path", { class: "function", d: path });
    const legend = ["solid: the function"];
    if (Number.isFinite(y0) && Number.isFinite(slope)) {
      const end = (x) => `${px(x).toFixed(2)} ${Math.min(Math.max(py(y0 + slope * (x - x0)), -1e6), 1e6).toFixed(2)}`;
      add(inside, "path", { class: "tangent", d: `M${end(-reach)}L${end(reach)}` });
      legend.push("dashed: its tangent, whose slope is the derivative");
    }
    if (Number.isFinite(y0)) {
      add(inside, "circle", { class: "point", cx: px(x0), cy: py(y0), r: 5.5 });
      legend.push(ring);
    }
    if (kinks.length) legend.push("dotted: a kink");
    add(parent, "p", { class: "legend" }, `${legend.join("; ")}.`);
    return { reach, at: (place) => (((place * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * 2 - 1) * reach };
  }

  // The neuron of a step, at what it reads.
  function drawCurve(parent, step, found, values) {
    const at = step.reads[step.reads.length - 1], x0 = values[at], p = found.parameters;
    if (!Number.isFinite(x0)) {
      add(parent, "p", { class: "note" }, `No curve: ${data.images[at].name} is ${valueOf(at, values)}.`);
      return;
    }
    plot(parent, {
      // What stands for numbers that are larger than the script knows is not drawn.
      f: (x) => { const y = forward(step, x, p); return Math.abs(y) > 1e100 ? NaN : y; },
      x0, slope: found.slope, name: step.neuron, label: "x", ring: "ring: where the node reads",
      every: NEURONS[step.neuron].kinks(p).filter((k, i, list) => list.indexOf(k) === i),
      text: `at ${stored(x0, data.images[at].format)} the value is ${about(forward(step, x0, p))} and the slope of the tangent ${about(found.slope)}`,
    });
  }

  // The output of the graph at each value of one source, and what turns a place on the screen into such a value.
  function drawWhole(parent, state, source, values, reach) {
    const i = data.output, x0 = values[source], gradient = data.gradients[source];
    if (!Number.isFinite(x0)) {
      add(parent, "p", { class: "note" }, `No curve: ${data.images[source].name} is ${valueOf(source, values)}.`);
      return null;
    }
    const at = (x, ones) => {
      const sources = state.sources.map((value, k) => (k === source ? x : ones && k === data.gradients[i] ? 1 : value));
      return run({ ...state, sources });
    };
    const f = (x) => { const y = at(x, false)[data.images[i].step].stored; return Math.abs(y) > 1e100 ? NaN : y; };
    // The slope of the output itself: as if its own gradient were 1.
    const slope = gradient === undefined ? NaN : at(x0, true)[data.images[gradient].step].stored;
    const name = `${data.images[i].name} by ${data.images[source].name}`;
    return plot(parent, {
      f, x0, slope, every: [], name, label: data.images[source].name, reach, ring: "ring: now; drag it, or use the arrow keys",
      text: `at ${valueOf(source, values)} the value is ${about(f(x0))}` + (Number.isNaN(slope) ? "" : ` and the slope of the tangent ${about(slope)}`),
    });
  }
