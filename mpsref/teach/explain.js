  // ---- one step ----

  // What is added up to the gradient of an image with several readers: each gradient, with the image of the sum so far.
  function addends(step) {
    if (!step.of) return [];
    const [left, right] = step.reads.map((i) => {
      const maker = data.steps[data.images[i].step];
      return maker && maker.of === step.of ? addends(maker) : [];
    });
    if (left.length) return [...left, [step.reads[1], step.result]];
    if (right.length) return [...right, [step.reads[0], step.result]];
    return [[step.reads[0], step.reads[0]], [step.reads[1], step.result]];
  }

  function describe(parent, step, found, values) {
    const work = add(parent, "dl", { class: "work" });
    const source = step.reads[step.reads.length - 1], x = step.neuron === undefined ? "" : valueOf(source, values);
    const p = found.parameters, given = p && Object.keys(step.parameters).length ? parametersText(step, p) : "";
    if (step.kind === "forward") {
      line(work, "Reads", readingOf(source, values, "x"));
      line(work, "Function", `f(x) = ${step.formula}`);
      if (given) line(work, "With", given);
      line(work, "Value", `f(${x}) = ${about(found.value)}`).className = "result";
      line(work, "Derivative", `f\u2032(x) = ${step.slope}`);
      line(work, "Slope here", `f\u2032(${x}) = ${about(found.slope)}`);
    } else if (step.kind === "gradient") {
      line(work, "Upstream", readingOf(step.reads[0], values));
      line(work, "Forward read", readingOf(source, values, "x"));
      line(work, "Derivative", `f\u2032(x) = ${step.slope}`);
      if (given) line(work, "With", given);
      line(work, "Slope", `f\u2032(${x}) = ${about(found.slope)}`);
      line(work, "Product", `upstream \u00d7 slope = ${signed(values[step.reads[0]])} \u00d7 ${signed(found.slope)} = ${about(found.value)}`).className = "result";
    } else if (step.kind === "sum" || step.kind === "product") {
      const written = (name) => step.terms.map(([factor, places]) =>
        [...(factor === 1 ? [] : [signed(factor)]), ...places.map((k) => name(step.reads[k]))].join(" \u00d7 "));
      const terms = written((i) => data.images[i].name), numbers = written((i) => signed(values[i]));
      if (step.bias) { terms.push("bias"); numbers.push(signed(step.bias)); }
      line(work, step.kind === "product" ? "Product" : "Sum", `${terms.join(" + ")} = ${numbers.join(" + ")} = ${about(found.sum)}`).className = "result";
      if (!Object.is(found.sum, found.value)) line(work, "Clamped", `to ${about(found.value)}`);
      const parts = addends(step);
      if (parts.length) {
        add(parent, "p", {}, `${step.of} has several readers. Each of them sends a gradient back, and these are added up:`);
        const list = add(parent, "ol", { class: "addends" });
        const most = Math.max(...parts.flat().map((i) => Math.abs(values[i])).filter(Number.isFinite)) || 1;
        parts.forEach(([i, so], k) => {
          const item = add(list, "li", {}, `${k ? "plus " : ""}${data.images[i].name} = ${about(values[i])}${k ? `: the sum so far, as stored, ${about(values[so])}` : ""}`);
          const bar = add(add(item, "svg", { viewBox: "-100 0 200 8", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" }), "rect", { y: 1, height: 6 });
          const wide = Math.min(Math.max((100 * values[so]) / most || 0, -100), 100);
          bar.setAttribute("x", Math.min(0, wide));
          bar.setAttribute("width", Math.abs(wide));
        });
      }
    } else if (step.kind === "scale") {
      const [[factor, places]] = step.terms, others = places.slice(1).map((k) => step.reads[k]);
      const left = others.length && factor === 1 ? [] : [["scale of this source", signed(factor)]];
      const right = others.map((i) => [data.images[i].name, signed(values[i])]);
      const [names, numbers] = [0, 1].map((k) => [...left, ...right].map((each) => each[k]).join(" \u00d7 "));
      line(work, "Product", `${data.images[step.reads[0]].name} \u00d7 ${names} = ${signed(values[step.reads[0]])} \u00d7 ${numbers} = ${about(found.value)}`).className = "result";
    } else line(work, "Value", "1: the gradient of a result with respect to itself").className = "result";

    const box = add(add(parent, "div", { class: "scroll" }), "table");
    add(box, "caption", {}, `Rounded once, to nearest even, to be stored as ${step.format}`);
    const head = add(add(box, "thead"), "tr"), body = add(add(box, "tbody"), "tr");
    for (const name of ["before", "stored", "rounding"]) add(head, "th", { scope: "col" }, name);
    for (const text of [about(found.value), stored(found.stored, step.format), roundingOf(step, found)]) add(body, "td", {}, text);

    if (p) {
      const x0 = values[source];
      if (NEURONS[step.neuron].kinks(p).includes(x0)) add(parent, "p", { class: "note" }, "x is at a kink: the comparison that is documented chooses the slope.");
      if (Number.isNaN(forward(step, x0, p)) && !Number.isNaN(x0)) add(parent, "p", { class: "note" }, `x is outside of the domain: ${step.domain}.`);
      const figure = add(parent, "div", { class: "figure", id: "figure" });
      drawCurve(figure, step, found, values);
    }
  }

  // ---- the page ----

  let state = initial(), current = 0, playing = null, waiting = null;
  const last = data.steps.length - 1;

  function say(text) {
    clearTimeout(waiting);
    // A slider that is dragged must not make a reader speak all the time.
    waiting = setTimeout(() => { if (get("announcement").textContent !== text) get("announcement").textContent = text; }, 250);
  }

  function show() {
    const results = run(state), step = data.steps[current], found = results[current], values = valuesOf(results);
    // Its height, below which the graph stays.
    document.documentElement.style.setProperty("--bar", `${document.querySelector(".bar-of-buttons").offsetHeight}px`);
    showNumbers(results, values);
    remember();
    const summary = `Step ${current + 1} of ${data.steps.length}: ${summaryOf(step, found, values)}.`;
    get("position").textContent = `Step ${current + 1} of ${data.steps.length}, ${step.backward ? "backward" : "forward"}`;
    get("summary").textContent = summary;
    say(summary);
    get("step-title").textContent = `${data.images[step.result].name}: ${step.node}`;
    const body = get("work");
    body.textContent = "";
    describe(body, step, found, values);
    for (const [id, off] of [["first", current === 0], ["previous", current === 0], ["next", current === last], ["last", current === last]]) {
      get(id).setAttribute("aria-disabled", String(off));
    }
    data.images.forEach((image, i) => {
      const node = document.querySelector(`[data-image="${i}"]`);
      if (!node) return;
      const done = image.step === null || image.step <= current, now = image.step === current;
      node.classList.toggle("current", now);
      node.classList.toggle("read", step.reads.includes(i));
      node.classList.toggle("waiting", !done);
      const isLost = done && image.step !== null && results[image.step].lost !== null;
      node.classList.toggle("lost", isLost);
      node.querySelector(".value").textContent = done ? fitting(i, values) + (isLost ? LOST : "") : "not yet";
      node.querySelector(".mark").textContent = now ? "\u25b6" : step.reads.includes(i) ? "\u2022" : "";
      if (node.tagName === "a") {
        if (now) node.setAttribute("aria-current", "step");
        else node.removeAttribute("aria-current");
      }
    });
    all("#trace tbody tr").forEach((row, i) => {
      const each = results[i], one = data.steps[i], cell = (name, text) => { row.querySelector(`.${name}`).textContent = text; };
      row.classList.toggle("current", i === current);
      if (i === current) row.setAttribute("aria-current", "step");
      else row.removeAttribute("aria-current");
      cell("reads", one.reads.map((k) => `${data.images[k].name} = ${valueOf(k, values)}`).join(", "));
      cell("upstream", each.upstream === undefined ? "" : valueOf(one.reads[0], values));
      cell("slope", each.slope === undefined ? "" : about(each.slope));
      cell("before", about(each.value));
      cell("stored", stored(each.stored, one.format));
      cell("lost", each.lost ? each.lost.text : "");
    });
    const node = document.querySelector(".graph .current"), box = document.querySelector(".graph");
    if (node) {
      // Without the scrollbars, which would hide a node at the lower end.
      const inner = node.getBoundingClientRect(), outer = box.getBoundingClientRect();
      const left = inner.left - outer.left - box.clientLeft, top = inner.top - outer.top - box.clientTop;
      if (left < 0 || left + inner.width > box.clientWidth) box.scrollLeft += left - (box.clientWidth - inner.width) / 2;
      if (top < 0 || top + inner.height > box.clientHeight) box.scrollTop += top - (box.clientHeight - inner.height) / 2;
    }
  }

  function go(index) {
    current = Math.min(Math.max(index, 0), last);
    show();
  }
  function play(on) {
    clearInterval(playing);
    playing = on ? setInterval(() => { if (current === last) play(false); else go(current + 1); }, 1800) : null;
    get("play").textContent = on ? "Pause" : "Play";
  }
  const moves = { first: () => go(0), previous: () => go(current - 1), next: () => go(current + 1), last: () => go(last) };
  for (const [id, move] of Object.entries(moves)) get(id).addEventListener("click", () => { play(false); move(); });
  get("play").addEventListener("click", () => {
    if (playing === null && current === last) go(0);
    play(playing === null);
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.matches("input, select, .graph, .scroll, #whole")) return;
    const keys = { ArrowRight: "next", ArrowLeft: "previous" };
    if (event.target.closest(".bar-of-buttons")) Object.assign(keys, { Home: "first", End: "last" });
    if (!keys[event.key]) return;
    event.preventDefault();
    play(false);
    moves[keys[event.key]]();
  });
  for (const link of all('a[href^="#step-"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      play(false);
      go(Number(link.getAttribute("href").slice("#step-".length)) - 1);
    });
  }

  // ---- numbers to change ----

  // Each number: its name in the address of the page, its place, its value, its gradient, and how to set it.
  const numbers = [];
  // Beyond so many only those of the current step are shown, unless all are asked for.
  const FEW = 8;

  function control(parent, id, label, format, value, more) {
    const row = add(parent, "div", { class: label.length > 14 ? "control long" : "control" });
    add(row, "label", { for: id }, label);
    const reach = Math.max(4, Math.min(1e4, Number.isFinite(value) ? 2 * Math.abs(value) : 4));
    const unorm = format.startsWith("unorm");
    const slider = add(row, "input", { type: "range", id: `${id}-slider`, min: unorm ? 0 : -reach, max: unorm ? 1 : reach, step: unorm ? 0.005 : reach / 400,
      "aria-label": `${label}, slider` });
    const field = add(row, "input", { type: "text", id, size: 9, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-note` });
    const note = add(row, "span", { id: `${id}-note`, class: "wrong" });
    const slope = add(row, "span", { id: `${id}-gradient`, class: "slope-of" });
    const one = { row, slope, label, start: value, value: NaN, ...more };
    const put = (given) => {
      one.value = FORMATS[format].round(given);
      one.keep(one.value);
      slider.value = one.value;
      slider.setAttribute("aria-valuetext", stored(one.value, format));
      note.textContent = "";
      field.removeAttribute("aria-invalid");
      return one.value;
    };
    one.set = (given) => { field.value = plain(put(given), format); };
    one.text = () => plain(one.value, format);
    slider.addEventListener("input", () => {
      one.set(Number(slider.value));
      show();
    });
    field.addEventListener("input", () => {
      const given = read(field.value);
      if (given === undefined || (id.startsWith("parameter") && !Number.isFinite(Math.fround(given)))) {
        field.setAttribute("aria-invalid", "true");
        note.textContent = id.startsWith("parameter") ? "Give a finite number." : "Give a number, inf or nan.";
        say(`${label}: ${note.textContent}`);
        return;
      }
      put(given);
      show();
    });
    // What was typed need not be what the format can hold.
    field.addEventListener("change", () => { if (!note.textContent) field.value = one.text(); });
    one.set(value);
    numbers.push(one);
    return one;
  }

  // A number as people type it, or undefined.
  function read(typed) {
    const text = typed.trim().replaceAll("\u2212", "-").toLowerCase();
    const special = { nan: NaN, inf: Infinity, "+inf": Infinity, "-inf": -Infinity, infinity: Infinity, "-infinity": -Infinity }[text];
    if (special !== undefined) return special;
    return text && !Number.isNaN(Number(text)) ? Number(text) : undefined;
  }

  const panel = get("controls");
  function group(title) {
    const made = add(panel, "fieldset");
    add(made, "legend", {}, title);
    return made;
  }
  const sources = group("Sources"), incoming = new Set(Object.values(data.gradients).filter((i) => data.images[i].step === null));
  data.images.forEach((image, i) => {
    if (image.step !== null) return;
    const gradient = (results, values) => (data.gradients[i] === undefined ? NaN : values[data.gradients[i]]);
    const keep = (x) => { state.sources[i] = x; }, mine = (step) => step.reads.includes(i);
    control(sources, `source-${i}`, image.name, image.format, number(image.value), { key: image.name, source: i, keep, mine, gradient });
  });
  const slopes = [];
  data.steps.forEach((step, i) => {
    const names = Object.keys(step.parameters);
    if (step.owner !== i || !names.length) return;
    const box = group(`${data.images[step.result].name}: ${neuronOf(step)}`);
    add(box, "p", { class: "formula" }, step.formula);
    for (const name of names) {
      const keep = (x) => { state.parameters[i][name] = x; }, mine = (other) => other.owner === i;
      const gradient = (results, values) => parameterGradient(i, name, results, values);
      const one = control(box, `parameter-${i}-${name}`, name === "data" ? "data[channel]" : name, "float32", step.parameters[name],
        { key: `${data.images[step.result].name}.${name}`, keep, mine, gradient });
      if (name === "data") slopes.push([step, one]);
    }
  });
  let choose = null;
  if (data.channels > 1) {
    const row = add(sources, "div", { class: "control long" });
    add(row, "label", { for: "channel" }, "Feature channel, for the slopes of pReLU");
    const choice = add(row, "select", { id: "channel" });
    for (let i = 0; i < data.channels; i++) add(choice, "option", { value: i }, i);
    choose = (channel) => {
      state.channel = channel;
      choice.value = channel;
      for (const [step, one] of slopes) one.set(step.slopes[channel]);
    };
    choice.addEventListener("change", () => { choose(Number(choice.value)); show(); });
    choose(data.channel);
  }
  get("reset").addEventListener("click", () => {
    for (const one of numbers) one.set(one.start);
    if (choose) choose(data.channel);
    show();
  });
  get("which-row").hidden = numbers.length <= FEW;
  get("which").addEventListener("change", () => show());

  const hasGradients = Object.keys(data.gradients).length > 0;
  get("descent").hidden = !hasGradients;
  get("downhill").addEventListener("click", () => {
    const rate = read(get("rate").value), moved = get("moved").value, results = run(state), values = valuesOf(results);
    if (rate === undefined || !Number.isFinite(rate)) return;
    const steps = numbers.filter((one) => moved === "all" || (one.source === undefined) === (moved === "parameters"))
      .map((one) => [one, one.value - rate * one.gradient(results, values)]).filter(([, to]) => Number.isFinite(to));
    for (const [one, to] of steps) one.set(to);
    show();
  });

  function valuesOf(results) {
    return data.images.map((image, i) => (image.step === null ? FORMATS[image.format].round(state.sources[i]) : results[image.step].stored));
  }

  // What depends on all numbers: their gradients, the chain rule, and the curve of the whole graph.
  const along = get("along"), whole = get("whole");
  numbers.forEach((one) => { if (one.source !== undefined && !incoming.has(one.source)) add(along, "option", { value: one.source }, one.label); });
  get("whole-part").hidden = data.output === null || !along.options.length;
  along.addEventListener("change", () => show());
  let scale = null, reach = null;

  function showNumbers(results, values) {
    const step = data.steps[current], few = numbers.length > FEW && get("which").value === "step";
    // A gradient has the numbers of its forward node.
    const owner = data.steps[step.owner];
    for (const one of numbers) {
      one.row.hidden = few && !one.mine(step) && !one.mine(owner);
      const gradient = one.gradient(results, values);
      const isConstant = one.source !== undefined && data.gradients[one.source] === undefined;
      one.slope.textContent = isConstant ? "" : `dL/d${one.label} = ${about(Number(gradient.toPrecision(6)))}`;
    }
    for (const box of all("fieldset", panel)) box.hidden = all(".control", box).every((row) => row.hidden);
    if (data.output !== null) {
      const own = data.gradients[data.output], result = `${data.images[data.output].name} = ${valueOf(data.output, values)}`;
      const loss = own === undefined ? NaN : values[data.output] * values[own];
      get("loss").textContent = own === undefined || values[own] === 1 ? `L = ${result}` : `L = ${data.images[data.output].name} \u00d7 ${data.images[own].name} = ${about(loss)}`;
    }
    if (get("whole-part").hidden) return;
    const source = Number(along.value), gradient = data.gradients[source], chain = get("chain");
    chain.textContent = "";
    if (gradient !== undefined && data.images[gradient].step !== null) for (const text of chainRule(gradient, results, values)) add(chain, "div", {}, text);
    whole.textContent = "";
    whole.setAttribute("aria-valuetext", `${data.images[source].name} = ${valueOf(source, values)}, ${data.images[data.output].name} = ${valueOf(data.output, values)}`);
    whole.setAttribute("aria-valuenow", String(values[source]));
    whole.setAttribute("aria-label", `${data.images[source].name}, on the curve of ${data.images[data.output].name}`);
    scale = drawWhole(whole, state, source, values, reach);
  }

  const moving = () => numbers.find((one) => one.source === Number(along.value));
  function drag(event) {
    if (!scale) return;
    const box = whole.querySelector("svg").getBoundingClientRect();
    moving().set(Number(scale.at((event.clientX - box.left) / box.width).toPrecision(3)));
    show();
  }
  whole.addEventListener("pointerdown", (event) => {
    if (!scale || !event.target.closest("svg")) return;
    // The axis stays as it is while one drags.
    reach = scale.reach;
    whole.setPointerCapture(event.pointerId);
    drag(event);
  });
  whole.addEventListener("pointermove", (event) => { if (reach !== null) drag(event); });
  for (const end of ["pointerup", "pointercancel"]) whole.addEventListener(end, () => { reach = null; });
  whole.addEventListener("keydown", (event) => {
    const sign = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!sign || !scale) return;
    event.preventDefault();
    event.stopPropagation();
    const one = moving();
    one.set(Number((one.value + (sign * scale.reach) / 100).toPrecision(6)));
    show();
  });

  // ---- the address ----

  // The step, and every number that is not as it was, so that a page can be passed on as it is.
  function remember() {
    const parts = numbers.filter((one) => !Object.is(one.value, one.start) && !(Number.isNaN(one.value) && Number.isNaN(one.start)))
      .map((one) => `${encodeURIComponent(one.key)}=${encodeURIComponent(one.text())}`);
    if (current) parts.unshift(`step=${current + 1}`);
    const address = parts.length ? `#${parts.join("&")}` : location.hash ? "#" : "";
    if (!address || address === location.hash) return;
    // A page within a page may have no address of its own.
    try { history.replaceState(null, "", address); } catch { /* nothing is lost */ }
  }
  function recall() {
    const hash = location.hash.slice(1), anchor = /^step-(\d+)$/.exec(hash);
    if (anchor) current = Math.min(Math.max(Number(anchor[1]) - 1, 0), last);
    for (const part of hash.split("&")) {
      const [key, value] = part.split("=");
      if (value === undefined) continue;
      let name, given;
      try { [name, given] = [decodeURIComponent(key), read(decodeURIComponent(value))]; } catch { continue; }
      if (given === undefined) continue;
      const one = numbers.find((each) => each.key === name);
      if (one) one.set(one.source === undefined && !Number.isFinite(Math.fround(given)) ? one.start : given);
      else if (name === "step" && Number.isInteger(given)) current = Math.min(Math.max(given - 1, 0), last);
    }
  }

  document.documentElement.classList.add("js");
  // Within another page, which says what this is, there is less room.
  document.documentElement.classList.toggle("framed", window.parent !== window);
  recall();
  show();
