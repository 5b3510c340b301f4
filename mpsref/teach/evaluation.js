  // ---- the graph ----

  const number = (value) => (typeof value === "string" ? Number(value.replace("inf", "Infinity")) : value);
  const initial = () => ({
    channel: data.channel,
    sources: data.images.map((image) => (image.step === null ? number(image.value) : null)),
    parameters: data.steps.map((step) => Object.assign({}, step.parameters)),
  });

  function parametersOf(step, state) {
    const own = state.parameters[step.owner];
    return { a: 0, b: 0, c: 0, ...own };
  }

  // What a step makes of the numbers that it reads, before it is stored.
  function computed(step, reads, p) {
    const found = { reads };
    if (step.neuron !== undefined) {
      const x = reads[reads.length - 1];
      found.parameters = p;
      found.slope = slope(step, x, p);
      if (step.kind === "gradient") {
        found.upstream = reads[0];
        found.value = found.slope * found.upstream;
      } else found.value = forward(step, x, p);
    } else if (step.terms !== undefined) {
      const [low, high] = step.bounds.map(number);
      const [first, second] = step.terms.map(([factor, places]) => places.reduce((made, k) => made * reads[k], factor));
      // A zero and a zero that is added have a sign together, which the exact sum leaves to the last addition.
      found.sum = (second === undefined && !step.bias ? first : exactSum(first, second === undefined ? 0 : second, step.bias)) + (step.bias ? 0 : step.bias);
      found.value = found.sum < low ? low : found.sum > high ? high : found.sum;
    } else found.value = 1;
    return found;
  }

  // What storing lost, as mpsref/teach/lost.py has it: a number that is 0, infinite or NaN only because it was stored,
  // or because of one that was. `exact` is the step's result if nothing had been stored.
  const specialOf = (x) => (Number.isNaN(x) ? "nan" : x === 0 ? "0" : Number.isFinite(x) ? "" : "infinite");
  function lostBy(step, found, exact, before) {
    const special = specialOf(found.stored), name = data.images[step.result].name;
    if (!special) return null;
    if (!specialOf(found.value)) {
      if (step.format.startsWith("unorm") && (found.value < 0 || found.value > 1)) return null;
      const over = special === "infinite";
      return { text: over ? "overflow" : "underflow", reason: `${name} ${over ? "overflowed" : "was lost"}` };
    }
    const used = step.terms === undefined ? [...step.reads.keys()] : step.terms.flatMap(([, places]) => places);
    const cause = step.kind === "ones" ? undefined : used.map((k) => before[step.reads[k]]).find(Boolean);
    if (!cause) return null;
    const factor = step.kind === "scale" ? step.terms[0][1].slice(1).reduce((made, k) => made * found.reads[k], step.terms[0][0]) : found.slope;
    // A long product may be 0 in float64 too; it is lost all the same if what comes in was, and the slope is not 0.
    const reaches = ["gradient", "scale"].includes(step.kind) && before[step.reads[0]] && factor !== 0;
    return specialOf(exact) !== special || reaches ? { text: `${special} because ${cause.reason}`, reason: cause.reason } : null;
  }

  // Everything from the sources on: for each step what it reads, makes, stores and lost.
  function run(state) {
    const values = data.images.map((image, i) => {
      return image.step === null ? FORMATS[image.format].round(state.sources[i]) : NaN;
    });
    const exact = [...values], lost = data.images.map(() => null);
    return data.steps.map((step) => {
      const p = step.neuron === undefined ? null : parametersOf(step, state);
      const found = computed(step, step.reads.map((i) => values[i]), p);
      found.stored = values[step.result] = FORMATS[step.format].round(found.value);
      exact[step.result] = computed(step, step.reads.map((i) => exact[i]), p).value;
      found.lost = lost[step.result] = lostBy(step, found, exact[step.result], lost);
      return found;
    });
  }

  // ---- gradients ----

  // The derivative of the result of a step with respect to one of its parameters, times its gradient.
  function parameterGradient(i, name, results, values) {
    const step = data.steps[i], gradient = data.gradients[step.result], x = values[step.reads[step.reads.length - 1]];
    if (gradient === undefined || !NEURONS[step.neuron].parameters[name]) return NaN;
    return values[gradient] * NEURONS[step.neuron].parameters[name](x, results[i].parameters);
  }

  // The terms of a gradient, each a list of factors with their names; where there would be too many, the gradient itself.
  const MOST_TERMS = 8, MOST_FACTORS = 8;
  function termsOf(i, results, values, known = new Map()) {
    if (known.has(i)) return known.get(i);
    const leaf = [[[data.images[i].name, values[i]]]], step = data.steps[data.images[i].step];
    let terms = leaf;
    if (step && ["gradient", "scale"].includes(step.kind)) {
      const found = results[data.images[i].step], factors = [];
      if (step.kind === "gradient") factors.push([`${step.neuron}\u2032(${data.images[step.reads[1]].name})`, found.slope]);
      else {
        const [[factor, places]] = step.terms;
        if (factor !== 1) factors.push([about(factor), factor]);
        for (const k of places.slice(1)) factors.push([data.images[step.reads[k]].name, found.reads[k]]);
      }
      terms = termsOf(step.reads[0], results, values, known).map((term) => [...term, ...factors]);
    } else if (step && step.of && step.bounds.every((end) => !Number.isFinite(number(end)))) {
      terms = step.reads.flatMap((k) => termsOf(k, results, values, known));
    }
    if (terms.length > MOST_TERMS || terms.some((term) => term.length > MOST_FACTORS)) terms = leaf;
    known.set(i, terms);
    return terms;
  }
  function chainRule(i, results, values) {
    const own = termsOf(i, results, values), sum = (part) => own.map((term) => term.map(part).join(" \u00d7 ")).join(" + ");
    const step = results[data.images[i].step];
    return [`${data.images[i].name} = ${sum(([name]) => name)}`, `= ${sum(([, x]) => signed(Number(x.toPrecision(6))))}`,
      `= ${valueOf(i, values)}${step.lost ? `: ${step.lost.text}` : ""}`];
  }

  // For the console, and for tests.
  window.explained = Object.freeze({ initial, run, erfc, round: (format, x) => FORMATS[format].round(x) });

  // ---- texts ----

  const minus = (text) => text.replaceAll("-", "\u2212").replace("Infinity", "infinity");
  const digits = (x, n) => minus(Object.is(x, -0) ? "-0" : String(Number(x.toPrecision(n))));
  // Numbers that stand for what is farther out are not shown as if they were known.
  const about = (x) => {
    if (Math.abs(x) > 1e100 && Number.isFinite(x)) return x > 0 ? "more than 1e100" : "less than \u22121e100";
    return Math.abs(x) < 1e-100 && x ? `${x < 0 ? "\u2212" : ""}0` : digits(x, 10);
  };
  // The shortest number that is stored as this one. Of a unorm code that would be a number of few digits, far from it.
  function stored(x, format) {
    if (format.startsWith("unorm")) return digits(x, 7);
    for (let n = 1; n < 17; n++) if (FORMATS[format].round(Number(x.toPrecision(n))) === x) return digits(x, n);
    return digits(x, 17);
  }
  const plain = (x, format) => stored(x, format).replaceAll("\u2212", "-").replace("infinity", "inf");
  const LOST = " lost";
  const valueOf = (i, values) => stored(values[i], data.images[i].format);
  const fitting = (i, values) => (valueOf(i, values).length > 11 ? digits(values[i], 5) : valueOf(i, values));
  // What a step reads: with the name that the formula has for it, and as it is stored, which a short text may not tell.
  function readingOf(i, values, symbol) {
    const name = data.images[i].name, short = valueOf(i, values), long = about(values[i]);
    return `${symbol && symbol !== name ? `${symbol} = ` : ""}${name} = ${short}${long === short ? "" : `, exactly ${digits(values[i], 17)}`}`;
  }
  const signed = (x) => (x < 0 || Object.is(x, -0) ? `(${about(x)})` : about(x));
  const neuronOf = (step) => (step.kind === "gradient" ? `gradient of ${step.neuron}` : step.neuron);
  function roundingOf(step, found) {
    const { value, stored: kept } = found, difference = kept - value;
    if (found.lost && found.lost.text === "underflow") return "underflow: nearer to 0 than to the smallest number of the format";
    if (found.lost && specialOf(value)) return found.lost.text;
    if (Number.isNaN(value)) return step.format.startsWith("unorm") ? "NaN is stored as 0" : "NaN is stored as NaN";
    if (!Number.isFinite(value)) return Number.isFinite(kept) ? "clamped to what the format can hold" : "an infinity is stored as it is";
    if (!Number.isFinite(kept)) return "overflow: above the largest number of the format";
    if (difference === 0) return "none: the format has this number";
    if (step.format.startsWith("unorm") && (value < 0 || value > 1)) return "clamped to the range from 0 to 1";
    const ulp = difference / FORMATS[step.format].unit(Math.abs(kept) < Math.abs(value) ? kept : value);
    // So near the number may lie that float64 knows only on which side.
    if (Math.abs(ulp) < 0.001) return "less than 0.001 ULP";
    const tie = Math.abs(ulp) === 0.5 ? ": a tie, which goes to the even one" : "";
    const few = kept !== 0 && Math.abs(kept) < { float16: 2 ** -14, float32: 2 ** -126 }[step.format] ? "; subnormal, with fewer digits" : "";
    return `${difference > 0 ? "+" : ""}${digits(difference, 3)}, which is ${ulp > 0 ? "+" : ""}${digits(ulp, 3)} ULP${tie}${few}`;
  }
  const parametersText = (step, p) => Object.keys(step.parameters)
    .map((name) => `${name === "data" ? "data[channel]" : name} = ${stored(p[name], "float32")}`).join(", ");

  function summaryOf(step, found, values) {
    const read = step.reads.map((i) => `${data.images[i].name} = ${valueOf(i, values)}`);
    const name = data.images[step.result].name;
    const last = `stored in ${name} as ${stored(found.stored, step.format)}${found.lost ? `: ${found.lost.text}` : ""}`;
    if (step.kind === "gradient") {
      return `${neuronOf(step)} reads the upstream gradient ${read[0]} and ${read[1]}; slope ${about(found.slope)}, `
        + `product ${about(found.value)}, ${last}`;
    }
    if (step.kind === "forward") return `${neuronOf(step)} reads ${read[0]} and gives ${about(found.value)}; slope ${about(found.slope)}; ${last}`;
    if (step.kind === "scale") {
      const [[factor, places]] = step.terms;
      const times = [...(factor === 1 && places.length > 1 ? [] : [about(factor)]), ...places.slice(1).map((k) => read[k])];
      return `the ${step.word}'s gradient reads ${read[0]}; times ${times.join(" and ")} is ${about(found.value)}, ${last}`;
    }
    if (step.terms !== undefined) return `the ${step.word} reads ${read[0]} and ${read[1]}; ${step.kind} ${about(found.value)}, ${last}`;
    return `the initial gradient is 1, ${last}`;
  }

  function line(parent, what, text) {
    add(parent, "dt", {}, what);
    return add(parent, "dd", {}, text);
  }
