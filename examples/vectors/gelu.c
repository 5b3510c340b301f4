/* Tests a geLU in half precision with vectors of mpsref, here made by

       mpsref vectors --neuron geLU --format float16 --all --language c --out gelu.h

       gcc -o t examples/vectors/gelu.c && ./t

   in the folder above `examples`. Put your own kernel in place of `kernel`. With -DFAULT=1 to 8 it has a fault. It needs _Float16: gcc from 12 on, or
   clang from 15 on. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#if __has_include("gelu.h")
#include "gelu.h"
#else
#include "../../gelu.h"
#endif

#ifndef FAULT
#define FAULT 0
#endif

/* By its series, so that no library is needed. */
static inline float error_function(float x) {
  const double z = x > 4 ? 4 : x < -4 ? -4 : x;
  double term = z, sum = z;
  for (int n = 1; n < 80; ++n) sum += (term *= -z * z / n) / (2 * n + 1);
  return (float)(sum * 1.1283791670955126);
}

static float gelu(float x) {
#if FAULT == 1 /* the tanh approximation */
  return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
#elif FAULT == 2 /* x sigmoid(1.702 x) */
  return x / (1 + expf(-1.702f * x));
#elif FAULT == 3 /* erf by Abramowitz and Stegun 7.1.25 */
  const float z = fabsf(x) * 0.70710678f, t = 1 / (1 + 0.47047f * z);
  const float y = 1 - ((0.7478556f * t - 0.0958798f) * t + 0.3480242f) * t * expf(-z * z);
  return 0.5f * x * (1 + (x < 0 ? -y : y));
#elif FAULT == 4 /* the tail cut off */
  return x < -3 ? 0 : 0.5f * x * (1 + error_function(x * 0.70710678f));
#elif FAULT == 5 /* x itself from 2.5 on */
  return x > 2.5f ? x : 0.5f * x * (1 + error_function(x * 0.70710678f));
#elif FAULT == 6 /* a constant with three digits */
  return 0.5f * x * (1 + error_function(x * 0.707f));
#elif FAULT == 7 /* erf in half precision */
  return 0.5f * x * (1 + (float)(_Float16)error_function(x * 0.70710678f));
#else
  return 0.5f * x * (1 + error_function(x * 0.70710678f));
#endif
}

static uint16_t kernel(uint16_t bits) {
  _Float16 x, y;
  memcpy(&x, &bits, sizeof x);
  y = (_Float16)gelu((float)x);
  memcpy(&bits, &y, sizeof bits);
#if FAULT == 8 /* the store truncates */
  if (!mpsref_is_nan(bits) && fabsf((float)y) > fabsf(gelu((float)x))) --bits;
#endif
  return bits;
}

int main(void) {
  int wrong = 0;
  for (int i = 0; i < mpsref_count; ++i) {
    const struct mpsref_vector *v = &mpsref_vectors[i];
    const uint16_t got = kernel(v->input);
    if (mpsref_passes(v, got)) continue;
    if (wrong++ < 5) printf("input %04x: got %04x, allowed %04x to %04x, right %04x\n", v->input, got, v->low, v->high, v->ideal);
  }
  printf("%d of %d wrong\n", wrong, mpsref_count);
  return wrong != 0;
}
