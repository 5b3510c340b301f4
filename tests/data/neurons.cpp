// The sixteen neurons and their gradients as a plain kernel computes them, in arithmetic of type T.
//
// neurons NEURON DIRECTION FORM A B C COUNT < x, dy, slopes > results; COUNT numbers of type T each.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifndef T
#define T float
#endif

namespace {
// Functions of half are those of float, rounded once.
T exp_(T x) { return T(std::exp(float(x))); }
T log_(T x) { return T(std::log(float(x))); }
T tanh_(T x) { return T(std::tanh(float(x))); }
T erf_(T x) { return T(std::erf(float(x))); }
T log1p_(T x) { return T(std::log1p(float(x))); }
T expm1_(T x) { return T(std::expm1(float(x))); }
T pow_(T x, T y) { return T(std::pow(float(x), float(y))); }
T abs_(T x) { return x < T(0) ? -x : x; }
T min_(T x, T y) { return x < y ? x : y; }
T max_(T x, T y) { return x > y ? x : y; }

struct Neuron {
  const char *name;
  T (*value)(T x, T a, T b, T c, int form);
  T (*slope)(T x, T dy, T a, T b, T c, int form);
};

const T one = T(1), half = T(0.5), r2 = T(0.70710678118654752), r2pi = T(0.3989422804014327);

const Neuron neurons[] = {
    {"none", [](T x, T, T, T, int) { return x; }, [](T, T dy, T, T, T, int) { return dy; }},
    {"reLU", [](T x, T a, T, T, int) { return x >= T(0) ? x : a * x; },
     [](T x, T dy, T a, T, T, int) { return x >= T(0) ? dy : dy * a; }},
    {"pReLU", [](T x, T a, T, T, int) { return x >= T(0) ? x : a * x; },
     [](T x, T dy, T a, T, T, int) { return dy * (x >= T(0) ? one : a); }},
    {"linear", [](T x, T a, T b, T, int) { return a * x + b; }, [](T, T dy, T a, T, T, int) { return a * dy; }},
    {"sigmoid", [](T x, T, T, T, int) { return one / (one + exp_(-x)); },
     [](T x, T dy, T, T, T, int form) {
       if (form) {
         T s = one / (one + exp_(-x));
         return dy * s * (one - s);
       }
       T e = exp_(x);
       return dy * (e / ((e + one) * (e + one)));
     }},
    {"hardSigmoid", [](T x, T a, T b, T, int) { return min_(max_(a * x + b, T(0)), one); },
     [](T x, T dy, T a, T b, T, int) {
       T u = a * x + b;
       return u >= T(0) && u <= one ? dy * a : dy * T(0);
     }},
    {"tanH", [](T x, T a, T b, T, int) { return a * tanh_(b * x); },
     [](T x, T dy, T a, T b, T, int) {
       T t = tanh_(b * x);
       return dy * a * b * (one - t * t);
     }},
    {"absolute", [](T x, T, T, T, int) { return abs_(x); },
     [](T x, T dy, T, T, T, int) { return x > T(0) ? dy : x < T(0) ? -dy : dy * T(0); }},
    {"softPlus",
     [](T x, T a, T b, T, int form) {
       T z = b * x;
       T e = exp_(-abs_(z));
       return form ? a * (max_(z, T(0)) + (form == 1 ? log_(one + e) : log1p_(e))) : a * log_(one + exp_(z));
     },
     [](T x, T dy, T a, T b, T, int form) {
       if (form) return dy * a * b * (one / (one + exp_(-(b * x))));
       T e = exp_(b * x);
       return dy * (a * b * e / (e + one));
     }},
    {"softSign",
     [](T x, T, T, T, int) { return x / (one + abs_(x)); },
     [](T x, T dy, T, T, T, int form) {
       T r = one / (abs_(x) + one);
       return form ? dy * (r * r) : dy / ((abs_(x) + one) * (abs_(x) + one));
     }},
    {"ELU",
     [](T x, T a, T, T, int form) { return x >= T(0) ? x : a * (form ? expm1_(x) : exp_(x) - one); },
     [](T x, T dy, T a, T, T, int) { return x >= T(0) ? dy : dy * a * exp_(x); }},
    {"reLUN", [](T x, T a, T b, T, int) { return min_(x >= T(0) ? x : a * x, b); },
     [](T x, T dy, T a, T b, T, int) {
       T y = x >= T(0) ? x : a * x;
       return dy * (y >= b ? T(0) : x >= T(0) ? one : a);
     }},
    {"power", [](T x, T a, T b, T c, int) { return pow_(a * x + b, c); },
     [](T x, T dy, T a, T b, T c, int) { return dy * a * c * pow_(a * x + b, c - one); }},
    {"exponential", [](T x, T a, T b, T c, int) { return c == T(-1) ? exp_(a * x + b) : pow_(c, a * x + b); },
     [](T x, T dy, T a, T b, T c, int) {
       T u = a * x + b;
       return c == T(-1) ? dy * a * exp_(u) : dy * a * log_(c) * pow_(c, u);
     }},
    {"logarithm", [](T x, T a, T b, T c, int) { return c == T(-1) ? log_(a * x + b) : log_(a * x + b) / log_(c); },
     [](T x, T dy, T a, T b, T c, int) {
       T u = a * x + b;
       return c == T(-1) ? dy * a / u : dy * a / (log_(c) * u);
     }},
    {"geLU",
     [](T x, T, T, T, int) { return half * x * (one + erf_(x * r2)); },
     [](T x, T dy, T, T, T, int) {
       T bell = r2pi * exp_(-half * x * x);
       return dy * (half * (one + erf_(x * r2)) + bell * x);
     }},
};
}  // namespace

int main(int, char **argv) {
  const bool gradient = !std::strcmp(argv[2], "gradient");
  const int form = std::atoi(argv[3]);
  const T a = T(std::atof(argv[4])), b = T(std::atof(argv[5])), c = T(std::atof(argv[6]));
  const size_t count = std::strtoul(argv[7], nullptr, 10);
  std::vector<T> x(count), dy(count), slopes(count), out(count);
  for (auto *each : {&x, &dy, &slopes})
    if (std::fread(each->data(), sizeof(T), count, stdin) != count) return 1;
  for (const Neuron &neuron : neurons) {
    if (std::strcmp(neuron.name, argv[1])) continue;
    for (size_t i = 0; i < count; i++) {
      T first = std::strcmp(neuron.name, "pReLU") ? a : slopes[i];
      out[i] = gradient ? neuron.slope(x[i], dy[i], first, b, c, form) : neuron.value(x[i], first, b, c, form);
    }
    return std::fwrite(out.data(), sizeof(T), count, stdout) != count;
  }
  return 2;
}
