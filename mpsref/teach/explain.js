(() => {
  // ---- float64, with care ----

  // What is beyond these is beyond every format, whatever parameters and an upstream gradient it is multiplied with; and
  // no such product overflows or vanishes, which would make NaN of it beside 0 or an infinity.
  const LEAST = 2 ** -600, MOST = 2 ** 600, FAR = 1e70;
  const bytes = new DataView(new ArrayBuffer(8));

  function neighbour(x, above) {
    if (x === 0) return above ? Number.MIN_VALUE : -Number.MIN_VALUE;
    bytes.setFloat64(0, x);
    bytes.setBigInt64(0, bytes.getBigInt64(0) + (x > 0 === above ? 1n : -1n));
    return bytes.getFloat64(0);
  }
  function exponent(x) {
    bytes.setFloat64(0, x);
    return ((bytes.getUint16(0) >> 4) & 0x7ff) - 1023;
  }
  // A sum and what its rounding lost, rounded to odd: a later rounding to fewer digits is then that of the exact sum.
  function odd(total, error) {
    if (!error || !Number.isFinite(error) || !Number.isFinite(total)) return total;
    bytes.setFloat64(0, total);
    return bytes.getUint8(7) & 1 ? total : neighbour(total, error > 0);
  }
  function twoSum(x, y) {
    const total = x + y, part = total - x;
    return [total, x - (total - part) + (y - part)];
  }
  function exactSum(x, y, z) {
    if (!z) return odd(...twoSum(x, y));
    const [high, low] = twoSum(y, z), [top, middle] = twoSum(x, high);
    return Number.isFinite(top) ? odd(...twoSum(top, odd(...twoSum(middle, low)))) : top;
  }
  // For numbers of at most 24 bits, whose product is exact.
  const affine = (a, x, b) => odd(...twoSum(a * x, b));

  // What is not exact is never returned as if it were: where float64 has only the limit, its neighbour is returned, so
  // that what is rounded later is rounded to the right side.
  function bounded(y) {
    const size = Math.min(Math.max(Math.abs(y), LEAST), MOST);
    return y < 0 || Object.is(y, -0) ? -size : size;
  }
  const beside = (y, limit, u, above) => (y === limit && u !== 0 && Number.isFinite(u) ? neighbour(limit, above) : y);
  const square = (x) => x * x;
  const exp = (u) => (Number.isFinite(u) ? beside(bounded(Math.exp(u)), 1, u, u > 0) : Math.exp(u));
  const expm1 = (u) => beside(beside(Math.expm1(u), u, u, true), -1, u, true);
  // Near 0 the series, since browsers add a square to what is hardly more than u there.
  const tanhNear = (u) => (Math.abs(u) < 2 ** -20 ? u * (1 - (u * u) / 3) : Math.tanh(u));
  const tanh = (u) => beside(beside(tanhNear(u), u, u, u < 0), Math.sign(u), u, u < 0);
  const softplus = (u) => beside(Math.max(u, 0) + Math.log1p(exp(-Math.abs(u))), u, u, true);
  function logistic(u) {
    // Near 0 the sum of 1/2 and a quarter of u may be a tie, which the next term decides.
    if (Math.abs(u) < 2 ** -12) return odd(...twoSum(0.5, beside((u / 4) * (1 - (u * u) / 12), u / 4, u, u < 0)));
    const e = exp(-Math.abs(u)), y = (u >= 0 ? 1 : e) / (1 + e);
    return beside(beside(y, 0.5, u, u > 0), 1, u, false);
  }
  function logisticSlope(u) {
    if (Math.abs(u) < 2 ** -9) return sech2(u / 2) / 4;
    const e = exp(-Math.abs(u));
    return e / square(1 + e);
  }
  function sech2(u) {
    const near = Math.abs(u) < 2 ** -10, z = u * u;
    return near ? beside(1 - z * (1 - (2 / 3) * z), 1, u, false) : 4 * logisticSlope(2 * u);
  }
  const smaller = (x, y) => (x >= y ? y : x);
  const larger = (x, y) => (x <= y ? y : x);

  function erfc(u) {
    const z = Math.abs(u);
    if (z < 1) {
      let term = z, sum = z;
      for (let n = 1; n < 40 && term > sum * 1e-17; n++) sum += term *= (2 * z * z) / (2 * n + 1);
      const erf = (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
      return beside(u < 0 ? 1 + erf : 1 - erf, 1, u, u < 0);
    }
    let rest = z;
    for (let n = 24 + Math.ceil(200 / z); n > 0; n--) rest = z + n / 2 / rest;
    // z^2 without its rounding error, which the exponential would enlarge.
    const high = Math.fround(Math.min(z, 1e4)), low = Math.min(z, 1e4) - high;
    const tail = (Math.exp(-high * high) * Math.exp(-low * (2 * high + low))) / (rest * Math.sqrt(Math.PI));
    return u < 0 ? beside(2 - tail, 2, u, false) : tail;
  }

  // Half of erfc(u) and a rest: the slope of geLU, which is above 1 far to the right, if by less than float64 can tell.
  function geluSlope(u, rest) {
    const y = 0.5 * erfc(u) + rest;
    return u < -4 && y <= 1 ? neighbour(1, true) : y;
  }

  function power(u, c) {
    if (u < 0 && !Number.isInteger(c)) return NaN;
    let y = 1;
    if (Number.isInteger(c) && Math.abs(c) <= 4) {
      for (let n = Math.abs(c); n > 0; n--) y *= u;
      if (c < 0) y = 1 / y;
    } else y = Math.pow(u, c);
    return u === 0 || !Number.isFinite(u) ? y : bounded(y);
  }
  function powerSlope(a, c, u) {
    if (Number.isNaN(u) || (u < 0 && !Number.isInteger(c))) return NaN;
    if (a * c === 0) return u === 0 && c < 0 ? NaN : 0;
    return a * c * (c - 1 === c ? power(u, c) / u : power(u, c - 1));
  }
  // u^c ln u, with its limit at 0.
  const powLog = (u, c) => (u === 0 && c > 0 ? 0 : Math.pow(u, c) * Math.log(u));
  // 0 if a x + b is even, 1 if it is odd, NaN if it is no integer: of the exact sum, since large float64 are all even.
  function parity(a, x, b) {
    const [total, error] = twoSum((a * x) % 2, b % 2);
    // Infinity is no integer, and neither is what stands for it when a limit is asked for.
    if (a !== 0 && Math.abs(x) >= FAR) return NaN;
    return error === 0 && Number.isInteger(total) ? Math.abs(total % 2) : NaN;
  }
  function exponential(c, u, isOdd) {
    if (c > 0) return Number.isFinite(u) ? bounded(Math.pow(c, u)) : c === 1 ? 1 : Math.pow(c, u);
    if (c === 0) return u > 0 ? 0 : u === 0 ? 1 : NaN;
    return (isOdd ? -1 : isOdd + 1) * Math.pow(-c, u);
  }
  function exponentialSlope(a, c, u) {
    if (c <= 0) return c === 0 && u > 0 ? 0 : NaN;
    const k = a * Math.log(c);
    return k === 0 ? 0 : k * exponential(c, u);
  }
  // Beside 1 the logarithm of the rounded sum would be that of another number.
  function logAffine(a, x, b) {
    const u = affine(a, x, b);
    return u > 0.5 && u < 2 ? Math.log1p(exactSum(a * x, -1, b)) : Math.log(u);
  }
  const logBase = (c) => (c > 0 && c !== 1 ? Math.log(c) : NaN);

  const NEURONS = {
    /* neurons */
  };

  function evaluated(f, x, p) {
    const y = f(x, p);
    if (!Number.isNaN(y) || Math.abs(x) !== Infinity) return y;
    // The limit, where the formula has no value at an infinity. It is reached, unlike anything beside it.
    const far = f(Math.sign(x) * FAR, p), limit = Math.fround(far);
    if (Math.abs(far) > 1e100) return far * Infinity;
    return Math.abs(far) < 1e-100 ? 0 * far : Math.abs(far - limit) <= 2 ** -51 * Math.abs(far) ? limit : far;
  }
  const forward = (step, x, p) => (Number.isNaN(x) ? NaN : evaluated(NEURONS[step.neuron].forward, x, p));
  const slope = (step, x, p) =>
    Number.isNaN(x) && !step.constant ? NaN : evaluated(NEURONS[step.neuron].derivative, x, p);

  // ---- storage ----

  function half(x) {
    if (!(Math.abs(x) < 65520)) return Number.isNaN(x) ? NaN : Math.sign(x) * Infinity;
    const unit = 2 ** (Math.max(exponent(x), -14) - 10), even = 1.5 * 2 ** 52;
    const y = (x / unit + even - even) * unit;
    return y === 0 ? x * 0 : y;
  }
  function code(x, most) {
    const y = Math.min(Math.max(x, 0), 1);
    if (!(y > 0)) return 0;
    const high = Math.fround(y), product = y * most, lost = high * most - product + (y - high) * most;
    const exact = odd(product, lost), low = Math.floor(exact);
    // The only tie is that of 1/2, and the code above it is even.
    return exact - low >= 0.5 ? low + 1 : low;
  }
  const FORMATS = {
    float16: { round: half, unit: (x) => 2 ** (Math.max(exponent(x), -14) - 10) },
    float32: { round: Math.fround, unit: (x) => 2 ** (Math.max(exponent(x), -126) - 23) },
    unorm8: { round: (x) => Math.fround(code(x, 255) / 255), unit: () => 1 / 255 },
    unorm16: { round: (x) => Math.fround(code(x, 65535) / 65535), unit: () => 1 / 65535 },
  };

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
    return `${difference > 0 ? "+" : ""}${digits(difference, 3)}, which is ${ulp > 0 ? "+" : ""}${digits(ulp, 3)} ULP${tie}`;
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

  // ---- the curve ----

  const BOTTOM = 34, TOP = 10, RIGHT = 22;

  function ticks(low, high) {
    const rough = (high - low) / 6, base = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((k) => k * base).find((s) => s >= rough), found = [];
    for (let k = Math.ceil(low / size); k * size <= high; k++) found.push([k * size + 0, digits(k * size + 0, 6)]);
    return found;
  }

  function drawCurve(parent, step, found, values) {
    const at = step.reads[step.reads.length - 1], x0 = values[at], p = found.parameters;
    // As wide as there is room, so that its texts keep their size.
    const WIDTH = Math.min(Math.max(parent.clientWidth, 280), 640), HEIGHT = Math.round(WIDTH * 0.58);
    // What stands for numbers that are larger than the script knows is not drawn.
    const f = (x) => { const y = forward(step, x, p); return Math.abs(y) > 1e100 ? NaN : y; };
    const value = forward(step, x0, p), y0 = f(x0);
    if (!Number.isFinite(x0)) {
      add(parent, "p", { class: "note" }, `No curve: ${data.images[at].name} is ${valueOf(at, values)}.`);
      return;
    }
    const every = NEURONS[step.neuron].kinks(p).filter((k, i, list) => list.indexOf(k) === i);
    // What is read and kinks nearby; others only if they are in sight then.
    const reach = Math.max(4, Math.abs(x0) * 1.5, ...every.map(Math.abs).filter((k) => k <= 8).map((k) => k + 1));
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

    const label = `Curve of ${step.neuron} from ${digits(-reach, 3)} to ${digits(reach, 3)}: at ${stored(x0, data.images[at].format)} `
      + `the value is ${about(value)} and the slope of the tangent ${about(found.slope)}`
      + (kinks.length ? `; kinks at ${kinks.map((k) => digits(k, 4)).join(", ")}` : "");
    const svg = add(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "curve" });
    add(add(svg, "clipPath", { id: "plot-area" }), "rect", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM });
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
    add(svg, "text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle", class: "small" }, "x");
    const inside = add(svg, "g", { "clip-path": "url(#plot-area)" });
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
    if (Number.isFinite(y0) && Number.isFinite(found.slope)) {
      const end = (x) => `${px(x).toFixed(2)} ${Math.min(Math.max(py(y0 + found.slope * (x - x0)), -1e6), 1e6).toFixed(2)}`;
      add(inside, "path", { class: "tangent", d: `M${end(-reach)}L${end(reach)}` });
      legend.push("dashed: its tangent, whose slope is the derivative");
    }
    if (Number.isFinite(y0)) {
      add(inside, "circle", { class: "point", cx: px(x0), cy: py(y0), r: 5.5 });
      legend.push("ring: where the node reads");
    }
    if (kinks.length) legend.push("dotted: a kink");
    add(parent, "p", { class: "legend" }, `${legend.join("; ")}.`);
  }

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
      const figure = add(parent, "div", { class: "figure" });
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
    const results = run(state), step = data.steps[current], found = results[current];
    const values = data.images.map((image, i) => {
      return image.step === null ? FORMATS[image.format].round(state.sources[i]) : results[image.step].stored;
    });
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
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.matches("input, select, .graph, .scroll")) return;
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

  const resets = [];

  function control(parent, id, label, format, value, set) {
    const row = add(parent, "div", { class: label.length > 14 ? "control long" : "control" });
    add(row, "label", { for: id }, label);
    const reach = Math.max(4, Math.min(1e4, Number.isFinite(value) ? 2 * Math.abs(value) : 4));
    const unorm = format.startsWith("unorm");
    const slider = add(row, "input", { type: "range", id: `${id}-slider`, min: unorm ? 0 : -reach, max: unorm ? 1 : reach, step: unorm ? 0.005 : reach / 400,
      "aria-label": `${label}, slider` });
    const field = add(row, "input", { type: "text", id, size: 9, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-note` });
    const note = add(row, "span", { id: `${id}-note`, class: "wrong" });
    let kept = NaN;
    const put = (given) => {
      kept = FORMATS[format].round(given);
      set(kept);
      slider.value = kept;
      slider.setAttribute("aria-valuetext", stored(kept, format));
      note.textContent = "";
      field.removeAttribute("aria-invalid");
      return kept;
    };
    slider.addEventListener("input", () => {
      field.value = plain(put(Number(slider.value)), format);
      show();
    });
    field.addEventListener("input", () => {
      const text = field.value.trim().replaceAll("\u2212", "-").toLowerCase();
      const special = { nan: NaN, inf: Infinity, "+inf": Infinity, "-inf": -Infinity, infinity: Infinity, "-infinity": -Infinity }[text];
      const given = special === undefined ? Number(text) : special;
      const right = text && (special !== undefined || !Number.isNaN(given));
      if (!right || (id.startsWith("parameter") && !Number.isFinite(Math.fround(given)))) {
        field.setAttribute("aria-invalid", "true");
        note.textContent = id.startsWith("parameter") ? "Give a finite number." : "Give a number, inf or nan.";
        say(`${label}: ${note.textContent}`);
        return;
      }
      put(given);
      show();
    });
    // What was typed need not be what the format can hold.
    field.addEventListener("change", () => { if (!note.textContent) field.value = plain(kept, format); });
    const reset = () => { field.value = plain(put(value), format); };
    reset();
    resets.push(reset);
    return reset;
  }

  const panel = get("controls");
  function group(title) {
    const made = add(panel, "fieldset");
    add(made, "legend", {}, title);
    return made;
  }
  const sources = group("Sources");
  data.images.forEach((image, i) => {
    if (image.step === null) control(sources, `source-${i}`, image.name, image.format, number(image.value), (x) => { state.sources[i] = x; });
  });
  const slopes = [];
  data.steps.forEach((step, i) => {
    const names = Object.keys(step.parameters);
    if (step.owner !== i || !names.length) return;
    const box = group(`${data.images[step.result].name}: ${neuronOf(step)}`);
    add(box, "p", { class: "formula" }, step.formula);
    for (const name of names) {
      const reset = control(box, `parameter-${i}-${name}`, name === "data" ? "data[channel]" : name, "float32", step.parameters[name],
        (x) => { state.parameters[i][name] = x; });
      if (name === "data") slopes.push([step, reset]);
    }
  });
  if (data.channels > 1) {
    const row = add(sources, "div", { class: "control long" });
    add(row, "label", { for: "channel" }, "Feature channel, for the slopes of pReLU");
    const choice = add(row, "select", { id: "channel" });
    for (let i = 0; i < data.channels; i++) add(choice, "option", { value: i }, i);
    const choose = (channel) => {
      state.channel = channel;
      choice.value = channel;
      for (const [step] of slopes) {
        const field = get(`parameter-${step.owner}-data`);
        field.value = plain(step.slopes[channel], "float32");
        field.dispatchEvent(new Event("input"));
      }
    };
    choice.addEventListener("change", () => choose(Number(choice.value)));
    resets.push(() => choose(data.channel));
  }
  get("reset").addEventListener("click", () => {
    for (const reset of resets) reset();
    show();
  });

  document.documentElement.classList.add("js");
  show();
})();
