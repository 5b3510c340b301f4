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
